package natsbroker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

// pair starts two brokers on a new server.
func pair(t *testing.T) (a, b *natsbroker.Broker, an, bn *node) {
	t.Helper()
	s := newServer(t, natsserver.Options{})
	cfg := natsbroker.Config{Servers: []string{s.ClientURL()}}
	an, bn = newNode(t, "a"), newNode(t, "b")
	return connect(t, an, cfg), connect(t, bn, cfg), an, bn
}

func TestMessagesReachTheOtherNodeInOrder(t *testing.T) {
	a, b, an, bn := pair(t)
	topic, left := room("r"), room("left")
	require.NoError(t, a.Subscribe([]ws.Topic{topic, left}))
	require.NoError(t, b.Subscribe([]ws.Topic{topic, left}))
	require.NoError(t, b.Unsubscribe([]ws.Topic{left}))
	const count = 20_000
	for i := range count {
		require.NoError(t, a.Publish(topic, []byte(strconv.Itoa(i))))
		if i%100 == 0 {
			require.NoError(t, a.Publish(left, []byte("left")))
			eventually(t, func() bool { return bn.count(topic) > i-2000 }, "messages are missing")
		}
	}
	eventually(t, func() bool { return bn.count(topic) == count }, "messages are missing")
	for i, msg := range bn.received[topic] {
		require.Equal(t, strconv.Itoa(i), msg)
	}
	require.Zero(t, bn.count(left), "a message without a subscription")
	require.Zero(t, an.count(topic), "an echo")
	require.Empty(t, bn.lost)
}

func TestTopicsOfAllNodesAndOfOneNode(t *testing.T) {
	a, b, an, bn := pair(t)
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicAll}, []byte("hello")))
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicNode, Name: "b"}, []byte("to b")))
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicNode, Name: "c"}, []byte("to c")))
	require.NoError(t, b.Publish(ws.Topic{Kind: ws.TopicUser, Name: "u"}, []byte("without a subscription")))
	require.NoError(t, b.Subscribe([]ws.Topic{{Kind: ws.TopicUser, Name: "u"}}))
	require.NoError(t, a.Publish(ws.Topic{Kind: ws.TopicUser, Name: "u"}, []byte("to u")))
	require.NoError(t, a.Publish(room("u"), []byte("to a room of that name")))
	eventually(t, func() bool {
		return bn.count(ws.Topic{Kind: ws.TopicUser, Name: "u"}) == 1 && bn.count(ws.Topic{Kind: ws.TopicAll}) == 1 &&
			bn.count(ws.Topic{Kind: ws.TopicNode, Name: "b"}) == 1
	}, "messages are missing")
	require.Len(t, bn.received, 3)
	require.Empty(t, an.received)
}

func TestAnyBytesAreAName(t *testing.T) {
	a, b, _, bn := pair(t)
	names := []string{
		"", " ", ".", "*", ">", "a.b", "a.*", "a.>", "a", "A", "%", "%20", "%%", "a b", "\x00\r\n\t", "$SYS", "é", "\xff",
		strings.Repeat("x", 600), strings.Repeat("x", 601), strings.Repeat("x", 602), strings.Repeat(" ", 10_000), "_INBOX.a",
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
	for topic, msgs := range bn.received {
		require.Len(t, msgs, want[topic], "%q", topic)
		for _, msg := range msgs {
			require.Equal(t, topic.Kind.String()+topic.Name, msg)
		}
	}
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

func TestCloseSendsAll(t *testing.T) {
	a, _, an, bn := pair(t)
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
	require.ErrorIs(t, a.Close(ctx), natsbroker.ErrClosed)
	require.Error(t, a.Publish(all, msg))
	require.Error(t, a.Subscribe(rooms(1)))
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
