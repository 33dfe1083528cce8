package redisbroker_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
	"github.com/qi-realtime/ws/internal/testcert"
	"github.com/qi-realtime/ws/wstest"
)

// pair starts two brokers.
func pair(t *testing.T, cfg redisbroker.Config) (a, b *redisbroker.Broker, an, bn *node) {
	t.Helper()
	an, bn = newNode(t, "a"), newNode(t, "b")
	return connect(t, an, cfg), connect(t, bn, cfg), an, bn
}

// TestEachKindOfServer runs tests with pub/sub and with sharded pub/sub on one server, and on a cluster.
func TestEachKindOfServer(t *testing.T) {
	tests := map[string]func(*testing.T, redisbroker.Config){
		"contract": testContract, "stored": testStoredMessages, "pages": testPages,
		"stored order": testStoredOrder, "stored names": testNamesOfHistories, "heads": testHeads,
		"forget": testForget, "unknown": testUnknownRoom,
	}
	all := func(t *testing.T, cfg redisbroker.Config) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				cfg.Prefix = name // parts the tests
				test(t, cfg)
			})
		}
	}
	t.Run("plain", func(t *testing.T) { all(t, newServer(t).config()) })
	t.Run("sharded", func(t *testing.T) {
		cfg := newServer(t).config()
		cfg.Sharded = true
		all(t, cfg)
	})
	t.Run("cluster", func(t *testing.T) {
		cfg := configOf(newCluster(t)...)
		n := newNode(t, "a")
		start(t, n, cfg)
		eventually(t, func() bool { return n.isDown(redisbroker.ErrCluster) }, "the reason is not told")
		cfg.Sharded = true
		all(t, cfg)
	})
}

func testContract(t *testing.T, cfg redisbroker.Config) {
	wstest.TestBroker(t, func(t *testing.T) ws.Broker { return newBroker(t, cfg) })
}

func TestCallsAfterClose(t *testing.T) {
	a, _, an, _ := pair(t, newServer(t).config())
	stop(t, an, a)
	require.ErrorIs(t, a.Close(t.Context()), redisbroker.ErrClosed)
	require.ErrorIs(t, a.Publish(room("r"), nil), redisbroker.ErrDown)
	require.ErrorIs(t, a.Subscribe(rooms(1)), redisbroker.ErrDown)
	require.ErrorIs(t, a.Start(an), redisbroker.ErrStarted)
}

func TestPrefixesPartClusters(t *testing.T) {
	s := newServer(t)
	one, two := s.config(), s.config()
	one.Prefix, two.Prefix = "one", "one.two"
	an, bn, cn := newNode(t, "a"), newNode(t, "b"), newNode(t, "c")
	a := connect(t, an, two)
	connect(t, bn, one)
	connect(t, cn, two)
	all := ws.Topic{Kind: ws.TopicAll}
	require.NoError(t, a.Publish(all, []byte("x")))
	eventually(t, func() bool { return cn.count(all) == 1 }, "no message")
	require.Zero(t, bn.count(all))
}

func TestPassword(t *testing.T) {
	cfg := newServer(t, "--requirepass", "secret").config()
	n := newNode(t, "a")
	start(t, n, cfg)
	eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.cause != nil && strings.Contains(n.cause.Error(), "NOAUTH")
	}, "the reason is not told")
	cfg.Options.Password = "secret"
	connect(t, newNode(t, "b"), cfg)
}

func TestTLS(t *testing.T) {
	cert, roots := testcert.New("localhost")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, b []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600))
		return file
	}
	certFile := write("cert", "CERTIFICATE", cert.Certificate[0])
	keyFile := write("key", "PRIVATE KEY", key)
	s := newServer(t, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-auth-clients", "no")
	s.do("CONFIG", "SET", "port", "0", "tls-port", strconv.Itoa(s.port))
	cfg := s.config()
	cfg.Options.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "localhost"}
	a, _, _, bn := pair(t, cfg)
	all := ws.Topic{Kind: ws.TopicAll}
	require.NoError(t, a.Publish(all, nil))
	eventually(t, func() bool { return bn.count(all) == 1 }, "no message")
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]redisbroker.Config{
		"brace":      {Prefix: "a{b"},
		"negative":   {MaxInFlight: -1},
		"time":       {Timeout: -time.Millisecond},
		"partitions": {Sharded: true, Partitions: 1025},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := redisbroker.New(cfg)
			if assert.Error(t, err) {
				require.True(t, strings.HasPrefix(err.Error(), "redisbroker: "), err)
			}
		})
	}
	b, err := redisbroker.New(redisbroker.Config{})
	require.NoError(t, err)
	require.NoError(t, b.Close(t.Context()), "a broker that was never started")
}
