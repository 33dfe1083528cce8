package natsbroker_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	"github.com/qi-realtime/ws/wstest"
)

// pair starts two brokers on a new server.
func pair(t *testing.T) (a, b *natsbroker.Broker, an, bn *node) {
	t.Helper()
	s := newServer(t, natsserver.Options{})
	cfg := natsbroker.Config{Servers: []string{s.ClientURL()}}
	an, bn = newNode(t, "a"), newNode(t, "b")
	return connect(t, an, cfg), connect(t, bn, cfg), an, bn
}

func TestContract(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	wstest.TestBroker(t, func(t *testing.T) ws.Broker {
		return newBroker(t, natsbroker.Config{Servers: []string{s.ClientURL()}})
	})
}

func TestCallsAfterClose(t *testing.T) {
	a, _, an, _ := pair(t)
	stop(t, an, a)
	require.ErrorIs(t, a.Close(t.Context()), natsbroker.ErrClosed)
	require.ErrorIs(t, a.Publish(room("r"), nil), natsbroker.ErrDown)
	require.ErrorIs(t, a.Subscribe(rooms(1)), natsbroker.ErrDown)
}

// TestLateReportDuringClose lets nats.go report a connection while Close waits for a stopped server.
func TestLateReportDuringClose(t *testing.T) {
	c := processConfig{Port: freePort(t)}
	server := newProcess(t, c)
	cfg := natsbroker.Config{Servers: []string{urlOf(c.Port)}, PingInterval: patience}
	bn := newNode(t, "b")
	a, b := connect(t, newNode(t, "a"), cfg), connect(t, bn, cfg)
	require.NoError(t, b.Subscribe(rooms(1)))
	server.signal(syscall.SIGSTOP)
	require.NoError(t, a.Publish(rooms(1)[0], []byte("last")))
	closed := make(chan error, 1)
	go func() { closed <- a.Close(t.Context()) }()
	eventually(t, func() bool { return natsbroker.ReportLate(a) }, "Close does not wait")
	server.signal(syscall.SIGCONT)
	require.NoError(t, <-closed)
	eventually(t, func() bool { return bn.count(rooms(1)[0]) == 1 }, "no message")
}

func TestPrefixesPartClusters(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	an, bn, cn := newNode(t, "a"), newNode(t, "b"), newNode(t, "c")
	a := connect(t, an, natsbroker.Config{Servers: []string{s.ClientURL()}, Prefix: "one.two"})
	connect(t, bn, natsbroker.Config{Servers: []string{s.ClientURL()}, Prefix: "one"})
	connect(t, cn, natsbroker.Config{Servers: []string{s.ClientURL()}, Prefix: "one.two"})
	all := ws.Topic{Kind: ws.TopicAll}
	require.NoError(t, a.Publish(all, []byte("x")))
	eventually(t, func() bool { return cn.count(all) == 1 }, "no message")
	require.Zero(t, bn.count(all))
}

func TestTooLargeMessage(t *testing.T) {
	s := newServer(t, natsserver.Options{MaxPayload: 1000})
	n := newNode(t, "a")
	b := connect(t, n, natsbroker.Config{Servers: []string{s.ClientURL()}})
	require.Equal(t, 1000, b.MaxMessage())
	err := b.Publish(room("r"), make([]byte, 1001))
	require.ErrorIs(t, err, nats.ErrMaxPayload)
	require.ErrorContains(t, err, "1001 bytes, where max_payload of the server is 1000")
	require.NoError(t, b.Publish(room("r"), make([]byte, 1000)))
	require.True(t, n.isUp())
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]natsbroker.Config{
		"empty part":  {Prefix: "a..b"},
		"wildcard":    {Prefix: "a.*"},
		"not ASCII":   {Prefix: "é"},
		"long":        {Prefix: strings.Repeat("a", 201)},
		"URL":         {Servers: []string{"nats://a b"}},
		"negative":    {Pending: -1},
		"option":      {Options: []nats.Option{nats.UserCredentials("a", "b", "c", "d")}},
		"root":        {Options: []nats.Option{nats.RootCAs("/does/not/exist")}},
		"negative ms": {Timeout: -time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := natsbroker.New(cfg)
			if assert.Error(t, err) {
				require.True(t, strings.HasPrefix(err.Error(), "natsbroker: "), err)
			}
		})
	}
	b, err := natsbroker.New(natsbroker.Config{})
	require.NoError(t, err)
	require.NoError(t, b.Close(t.Context()), "a broker that was never started")
}

func TestSecondStart(t *testing.T) {
	a, _, an, _ := pair(t)
	require.ErrorIs(t, a.Start(an), natsbroker.ErrStarted)
}
