package redisbroker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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
		"order": testOrder, "names": testNames, "stored": testStoredMessages, "pages": testPages,
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

// testOrder holds that messages reach the other node in order.
func testOrder(t *testing.T, cfg redisbroker.Config) {
	a, b, _, bn := pair(t, cfg)
	topic, left := room("r"), room("left")
	require.NoError(t, b.Subscribe([]ws.Topic{topic, left}))
	require.NoError(t, b.Unsubscribe([]ws.Topic{left}))
	const count = 20_000
	for i := range count {
		require.NoError(t, a.Publish(topic, []byte(strconv.Itoa(i))))
		if i%100 == 0 {
			require.NoError(t, a.Publish(left, []byte("left")))
		}
	}
	eventually(t, func() bool { return bn.count(topic) == count }, "messages are missing")
	bn.read(func() {
		for i, msg := range bn.received[topic] {
			require.Equal(t, strconv.Itoa(i), msg)
		}
		require.NotContains(t, bn.received, left, "a message without a subscription")
		require.Equal(t, 1, bn.ups)
	})
}

func TestTopicsOfAllNodesAndOfOneNode(t *testing.T) {
	a, b, an, bn := pair(t, newServer(t).config())
	user := ws.Topic{Kind: ws.TopicUser, Name: "u"}
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicAll}, []byte("hello")))
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicNode, Name: "b"}, []byte("to b")))
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicNode, Name: "c"}, []byte("to c")))
	require.NoError(t, b.Subscribe([]ws.Topic{user}))
	require.NoError(t, a.Publish(room("u"), []byte("to a room of that name")))
	require.NoError(t, a.Publish(user, []byte("to u")))
	eventually(t, func() bool { return bn.count(user) == 1 }, "messages are missing")
	bn.read(func() {
		require.Equal(t, map[ws.Topic][]string{
			user: {"to u"}, {Kind: ws.TopicAll}: {"hello"}, {Kind: ws.TopicNode, Name: "b"}: {"to b"},
		}, bn.received)
	})
	an.read(func() { require.Len(t, an.received, 1, "its own message to all") })
}

// testNames holds that any bytes are a name.
func testNames(t *testing.T, cfg redisbroker.Config) {
	a, b, _, bn := pair(t, cfg)
	names := []string{
		"", " ", ".", "*", "?", "[a]", "a.b", "a", "A", "{", "}", "{}", "{a}", "}{", "\x00\r\n\t", "é", "\xff",
		"$5\r\nhello\r\n", strings.Repeat("x", 10_000),
	}
	for range 200 {
		name := make([]byte, 3)
		_, _ = rand.Read(name)
		names = append(names, string(name))
	}
	var topics []ws.Topic
	for _, name := range names {
		topics = append(topics, room(name), ws.Topic{Kind: ws.TopicUser, Name: name})
	}
	require.NoError(t, b.Subscribe(topics))
	want := make(map[ws.Topic]int)
	for _, topic := range topics {
		require.NoError(t, a.Publish(topic, []byte(topic.Kind.String()+topic.Name)))
		want[topic]++
	}
	for topic, count := range want {
		eventually(t, func() bool { return bn.count(topic) >= count }, fmt.Sprintf("no message of %q", topic.Name))
	}
	bn.read(func() {
		for topic, msgs := range bn.received {
			require.Len(t, msgs, want[topic], "%q", topic)
			for _, msg := range msgs {
				require.Equal(t, topic.Kind.String()+topic.Name, msg)
			}
		}
	})
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

func TestCloseSendsAll(t *testing.T) {
	a, _, an, bn := pair(t, newServer(t).config())
	all := ws.Topic{Kind: ws.TopicAll}
	msg := bytes.Repeat([]byte("x"), 1000)
	for range 3000 {
		require.NoError(t, a.Publish(all, msg))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, a.Close(ctx))
	an.read(func() { an.closed = true })
	eventually(t, func() bool { return bn.count(all) == 3000 }, "messages are missing")
	require.ErrorIs(t, a.Close(ctx), redisbroker.ErrClosed)
	require.ErrorIs(t, a.Publish(all, msg), redisbroker.ErrDown)
	require.ErrorIs(t, a.Subscribe(rooms(1)), redisbroker.ErrDown)
	require.ErrorIs(t, a.Start(an), redisbroker.ErrStarted)
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
