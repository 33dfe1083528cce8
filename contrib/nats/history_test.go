package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	"github.com/qi-realtime/ws/internal/harness"
)

// keep are the bounds of the rooms of the tests.
var keep = ws.History{Size: 100, TTL: time.Second}

// newStore starts an embedded server with JetStream.
func newStore(t *testing.T) *natsserver.Server {
	t.Helper()
	return newServer(t, natsserver.Options{JetStream: true, StoreDir: t.TempDir()})
}

// connectStore starts a broker with histories, and waits for its connection.
func connectStore(t *testing.T, n *node, url string, cfg natsbroker.HistoryConfig) *natsbroker.HistoryBroker {
	t.Helper()
	return startStore(t, n, natsbroker.Config{Servers: []string{url}}, cfg)
}

func startStore(t *testing.T, n *node, cfg natsbroker.Config, h natsbroker.HistoryConfig) *natsbroker.HistoryBroker {
	t.Helper()
	b, err := natsbroker.NewWithHistory(withDefaults(cfg), h)
	require.NoError(t, err)
	require.NoError(t, b.Start(n))
	t.Cleanup(func() { stop(t, n, b.Broker) })
	eventually(t, n.isUp, "no connection")
	return b
}

// appendText stores a message.
func appendText(t *testing.T, b *natsbroker.HistoryBroker, room, text string) ws.Position {
	t.Helper()
	p, err := b.Append(t.Context(), room, []byte(text), keep)
	require.NoError(t, err)
	return p
}

// readAll reads all messages behind after, a page at a time.
func readAll(t *testing.T, b *natsbroker.HistoryBroker, room string, after uint64, limit int) ([]stored, uint64) {
	t.Helper()
	var msgs []stored
	var base uint64
	for first := true; ; first = false {
		page, err := b.Read(t.Context(), room, after, limit)
		require.NoError(t, err)
		if first {
			base = page.Base
		} else {
			require.Equal(t, after, page.Base, "a hole between pages")
		}
		require.LessOrEqual(t, len(page.Messages), limit)
		for _, m := range page.Messages {
			require.Greater(t, m.Offset, after)
			after = m.Offset
			msgs = append(msgs, stored{epoch: page.Epoch, offset: m.Offset, text: string(m.Data)})
		}
		if len(page.Messages) == 0 {
			require.Equal(t, page.Base, page.Top)
		}
		if after >= page.Top {
			return msgs, base
		}
	}
}

func TestHistory(t *testing.T) {
	s := newStore(t)
	an, bn := newNode(t, "a"), newNode(t, "b")
	a := connectStore(t, an, s.ClientURL(), natsbroker.HistoryConfig{})
	b := connectStore(t, bn, s.ClientURL(), natsbroker.HistoryConfig{})
	topic := ws.Topic{Kind: ws.TopicHistory, Name: "a room of.any*bytes>"}
	require.NoError(t, a.Subscribe([]ws.Topic{topic}))
	require.NoError(t, b.Subscribe([]ws.Topic{topic}))
	page, err := b.Read(t.Context(), topic.Name, 0, 10)
	require.NoError(t, err)
	require.NotEmpty(t, page.Epoch)
	require.Equal(t, ws.HistoryPage{Epoch: page.Epoch}, page, "a room without messages")

	var want []stored
	prev := uint64(0)
	for i := range 300 {
		p := appendText(t, a, topic.Name, fmt.Sprint(i))
		appendText(t, b, fmt.Sprint("other ", i%30), "")
		require.Equal(t, page.Epoch, p.Epoch)
		require.Less(t, p.Offset, uint64(1)<<53)
		want = append(want, stored{p.Epoch, p.Offset, prev, fmt.Sprint(i)})
		prev = p.Offset
	}
	for _, n := range []*node{an, bn} {
		eventually(t, func() bool { return len(n.history(topic.Name)) == len(want) }, "messages are missing")
		require.Equal(t, want, n.history(topic.Name), "the own node gets them, too")
	}
	for i := range want {
		want[i].prev = 0
	}
	for _, limit := range []int{1, 7, 1000} {
		msgs, base := readAll(t, b, topic.Name, 0, limit)
		require.Equal(t, want, msgs)
		require.Equal(t, want[0].offset-1, base)
		msgs, base = readAll(t, b, topic.Name, want[100].offset, limit)
		require.Equal(t, want[101:], msgs)
		require.Equal(t, want[100].offset, base, "nothing is missing")
	}
	last := want[len(want)-1].offset
	page, err = a.Read(t.Context(), topic.Name, last, 10)
	require.NoError(t, err)
	require.Equal(t, ws.HistoryPage{Epoch: page.Epoch, Base: last, Top: last}, page)

	require.NoError(t, b.Forget(t.Context(), topic.Name))
	page, err = a.Read(t.Context(), topic.Name, 0, 10)
	require.NoError(t, err)
	require.Equal(t, ws.HistoryPage{Epoch: page.Epoch}, page, "no messages after Forget")
	p := appendText(t, a, topic.Name, "again")
	require.Greater(t, p.Offset, last)
	eventually(t, func() bool { return len(bn.history(topic.Name)) == len(want)+1 }, "no message")
	require.Zero(t, bn.history(topic.Name)[len(want)].prev)
}

// TestPublishersHaveOneOrder holds that all nodes receive the messages of 8 publishers in the order of
// the offsets, each with the offset of the one before it.
func TestPublishersHaveOneOrder(t *testing.T) {
	s := newStore(t)
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	var brokers []*natsbroker.HistoryBroker
	topics := make([]ws.Topic, 4)
	for i := range topics {
		topics[i] = ws.Topic{Kind: ws.TopicHistory, Name: fmt.Sprint("room ", i)}
	}
	for _, n := range nodes {
		b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{Streams: 2, Memory: true})
		require.NoError(t, b.Subscribe(topics))
		_, err := b.Heads(t.Context(), []string{"room 0", "room 1", "room 2", "room 3"})
		require.NoError(t, err)
		brokers = append(brokers, b)
	}
	const publishers, count = 8, 250
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range count {
				room := topics[(p+i)%len(topics)].Name
				if _, err := brokers[p%len(brokers)].Append(t.Context(), room, fmt.Appendf(nil, "%d %d", p, i), keep); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, topic := range topics {
		for _, n := range nodes {
			all := publishers * count / len(topics)
			eventually(t, func() bool { return len(n.history(topic.Name)) == all }, "messages are missing")
			require.Equal(t, nodes[0].history(topic.Name), n.history(topic.Name), "another order")
		}
		prev, last := uint64(0), make(map[int]int)
		for _, m := range nodes[0].history(topic.Name) {
			require.Equal(t, prev, m.prev)
			require.Greater(t, m.offset, prev)
			prev = m.offset
			var p, i int
			_, err := fmt.Sscan(m.text, &p, &i)
			require.NoError(t, err)
			require.GreaterOrEqual(t, i, last[p], "the order of a publisher")
			last[p] = i
		}
	}
}

// TestEvictedMessages holds that the Base of a page is right when messages behind the offset are gone.
func TestEvictedMessages(t *testing.T) {
	s := newStore(t)
	n := newNode(t, "a")
	b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{RoomMessages: 10})
	small := ws.History{Size: 10, TTL: time.Second}
	var offsets []uint64
	for i := range 30 {
		p, err := b.Append(t.Context(), "r", fmt.Append(nil, i), small)
		require.NoError(t, err)
		offsets = append(offsets, p.Offset)
		appendOther(t, b, small)
	}
	msgs, base := readAll(t, b, "r", offsets[5], 100)
	require.Len(t, msgs, 10)
	require.Equal(t, offsets[20]-1, base, "messages behind the offset are gone")
	require.Equal(t, "20", msgs[0].text)
	msgs, base = readAll(t, b, "r", offsets[20], 100)
	require.Len(t, msgs, 9)
	require.Equal(t, offsets[20], base, "the oldest message is there, so nothing is missing")
	_, err := b.Append(t.Context(), "r", nil, keep)
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
	require.ErrorContains(t, err, "History.Size is 100, where the stream keeps 10 messages of a room")
	_, err = b.Append(t.Context(), "r", nil, ws.History{Size: 10, TTL: -1})
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
}

func appendOther(t *testing.T, b *natsbroker.HistoryBroker, keep ws.History) {
	t.Helper()
	_, err := b.Append(t.Context(), "other", nil, keep)
	require.NoError(t, err)
}

// TestRemovedByAge holds that the epoch stays when all messages are too old, and that the Base of the
// next page is right.
func TestRemovedByAge(t *testing.T) {
	for _, memory := range []bool{false, true} {
		s := newStore(t)
		n := newNode(t, "a")
		cfg := natsbroker.HistoryConfig{Streams: 1, Memory: memory, MaxAge: time.Second}
		b := connectStore(t, n, s.ClientURL(), cfg)
		first, page := appendAndRead(t, b, 0)
		require.Less(t, page.Messages[0].Age, patience)
		eventually(t, func() bool {
			heads, err := b.Heads(t.Context(), []string{"r"})
			require.NoError(t, err)
			require.Equal(t, first.Epoch, heads[0].Epoch)
			return heads[0].Offset == 0
		}, "the message stays")
		page, err := b.Read(t.Context(), "r", first.Offset, 10)
		require.NoError(t, err)
		require.Equal(t, ws.HistoryPage{Epoch: first.Epoch, Base: first.Offset, Top: first.Offset}, page)
		second, page := appendAndRead(t, b, first.Offset)
		require.Equal(t, second, ws.Position{Epoch: page.Epoch, Offset: page.Top})
		require.Equal(t, second.Offset-1, page.Base)
	}
}

// appendAndRead stores a message, and reads it before it is too old: it stores another one as long as
// a busy machine takes too much time.
func appendAndRead(t *testing.T, b *natsbroker.HistoryBroker, after uint64) (ws.Position, ws.HistoryPage) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		p := appendText(t, b, "r", "")
		page, err := b.Read(t.Context(), "r", after, 10)
		require.NoError(t, err)
		if len(page.Messages) > 0 || time.Now().After(deadline) {
			require.Len(t, page.Messages, 1)
			return p, page
		}
	}
}

// TestLargeMessages reads messages that are larger than an answer.
func TestLargeMessages(t *testing.T) {
	s := newServer(t, natsserver.Options{JetStream: true, StoreDir: t.TempDir(), MaxPayload: 4 << 20})
	n := newNode(t, "a")
	b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{})
	var want []stored
	for i := range 4 {
		text := strings.Repeat(fmt.Sprint(i), 3<<20/2)
		p := appendText(t, b, "r", text)
		want = append(want, stored{epoch: p.Epoch, offset: p.Offset, text: text})
	}
	msgs, _ := readAll(t, b, "r", 0, 10)
	require.True(t, fmt.Sprint(want) == fmt.Sprint(msgs))
	msgs, base := readAll(t, b, "r", want[0].offset, 10)
	require.Equal(t, want[0].offset, base)
	require.Len(t, msgs, 3)
	heads, err := b.Heads(t.Context(), []string{"r", "x", "y"})
	require.NoError(t, err)
	require.Equal(t, want[3].offset, heads[0].Offset)
	_, err = b.Append(t.Context(), "r", make([]byte, b.MaxMessage()), keep)
	require.NoError(t, err)
	_, err = b.Append(t.Context(), "r", make([]byte, 4<<20), keep)
	require.ErrorContains(t, err, "max_payload")
	require.NotErrorIs(t, err, ws.ErrBrokerUnavailable)
}

func TestStoreWithoutAConnection(t *testing.T) {
	s := newStore(t)
	n := newNode(t, "a")
	b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{})
	appendText(t, b, "r", "1")
	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, func() bool { return !n.isUp() }, "still up")
	_, err := b.Append(t.Context(), "r", nil, keep)
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	_, err = b.Read(t.Context(), "r", 0, 1)
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	_, err = b.Heads(t.Context(), []string{"r", "r2"})
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	require.ErrorIs(t, b.Forget(t.Context(), "r"), ws.ErrBrokerUnavailable)
}

// TestAppendThatWaits ends an Append that the server does not answer.
func TestAppendThatWaits(t *testing.T) {
	c := processConfig{Port: freePort(t), StoreDir: t.TempDir()}
	for name, end := range map[string]func(*process, *natsbroker.HistoryBroker, context.CancelFunc){
		"context": func(_ *process, _ *natsbroker.HistoryBroker, cancel context.CancelFunc) { cancel() },
		"server":  func(p *process, _ *natsbroker.HistoryBroker, _ context.CancelFunc) { p.kill() },
		"close": func(_ *process, b *natsbroker.HistoryBroker, _ context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = b.Close(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcess(t, c)
			b := connectStore(t, newNode(t, "a"), urlOf(c.Port), natsbroker.HistoryConfig{Streams: 1})
			appendText(t, b, "r", "1")
			p.signal(syscall.SIGSTOP)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			sent, done := natsbroker.OutMsgs(b.Broker), make(chan error, 1)
			go func() {
				for { // the process may answer some before it stops
					if _, err := b.Append(ctx, "r", nil, keep); err != nil {
						done <- err
						return
					}
				}
			}()
			eventually(t, func() bool { return natsbroker.OutMsgs(b.Broker) > sent }, "no request")
			end(p, b, cancel)
			err := harness.Receive(t, done, "Append waits")
			if name == "context" {
				require.ErrorIs(t, err, context.Canceled)
			} else {
				require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
			}
			p.kill()
		})
	}
}

func TestServerWithoutJetStream(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	n := newNode(t, "a")
	b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{})
	_, err := b.Append(t.Context(), "r", nil, keep)
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	require.ErrorContains(t, err, "jetstream not enabled")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Append(ctx, "r", nil, keep)
	require.True(t, errors.Is(err, context.Canceled) || errors.Is(err, ws.ErrBrokerUnavailable), err)
}

func TestHistoryConfig(t *testing.T) {
	for name, cfg := range map[string]natsbroker.HistoryConfig{
		"streams":  {Streams: -1},
		"many":     {Streams: 2000},
		"replicas": {Replicas: -1},
		"messages": {RoomMessages: -1},
		"age":      {MaxAge: time.Millisecond},
	} {
		_, err := natsbroker.NewWithHistory(natsbroker.Config{}, cfg)
		require.ErrorContains(t, err, "natsbroker: ", name)
	}
	_, err := natsbroker.NewWithHistory(natsbroker.Config{Prefix: "*"}, natsbroker.HistoryConfig{})
	require.Error(t, err)
	b, err := natsbroker.NewWithHistory(natsbroker.Config{}, natsbroker.HistoryConfig{MaxAge: -1})
	require.NoError(t, err)
	require.NoError(t, b.Close(t.Context()))
}
