package integration_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// sender is a way to send one text message to one client, which is in the room
// "r".
type sender struct {
	name string
	send func(s *harness.Server, c *ws.Client, text string) error
}

// senders are the ways that end in a client's normal queue. Messages of inline handlers go another
// way through the engine; see TestInlineReplies.
var senders = []sender{
	{"SendBytes", func(_ *harness.Server, c *ws.Client, text string) error { return c.SendBytes([]byte(text)) }},
	{"Send", func(_ *harness.Server, c *ws.Client, text string) error { return c.Send([]byte(text)) }},
	{"BroadcastToRoom", func(s *harness.Server, _ *ws.Client, text string) error {
		return s.BroadcastToRoom("r", []byte(text), nil)
	}},
	{"BroadcastPrepared", func(s *harness.Server, _ *ws.Client, text string) error {
		return s.BroadcastPrepared("r", ws.Prepare(ws.OpText, []byte(text)), nil)
	}},
	{"Publish", func(s *harness.Server, _ *ws.Client, text string) error {
		_, err := s.Publish("r", []byte(text))
		return err
	}},
	{"BroadcastAll", func(s *harness.Server, _ *ws.Client, text string) error {
		s.BroadcastAll([]byte(text))
		return nil
	}},
	{"BroadcastToUser", func(s *harness.Server, _ *ws.Client, text string) error {
		s.BroadcastToUser(7, []byte(text))
		return nil
	}},
}

// onAllSenders runs test with a client of user 7 in room "r" whose socket is
// full: a bigMessage is half sent.
func onAllSenders(t *testing.T, opts []ws.Option,
	test func(t *testing.T, s *harness.Server, c *harness.Client, sc *ws.Client, send func(string) error),
) {
	t.Helper()
	for _, sender := range senders {
		t.Run(sender.name, func(t *testing.T) {
			s := harness.Start(t, append([]ws.Option{harness.WithDeepQueue, ws.WithAuthenticate(harness.ByQuery)}, opts...)...)
			c, sc := s.DialClient(harness.Native, "user=7")
			require.NoError(t, sc.JoinRoom("r"))
			s.Stall(sc)
			test(t, s, c, sc, func(text string) error { return sender.send(s, sc, text) })
		})
	}
}

// settle waits until all that was posted to the event loops before has run. It
// queues nothing.
func settle(s *harness.Server) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	s.RangeClients(func(c *ws.Client) bool {
		if c.JoinRoom("settle") != nil {
			return true // it is closed
		}
		d, err := s.Publish("settle", nil, ws.Exclude(c))
		if c.IsClosed() && errors.Is(err, ws.ErrRoomNotFound) {
			return true
		}
		require.NoError(s.T, err)
		require.NoError(s.T, d.Wait(ctx))
		s.DeleteRoom("settle")
		return true
	})
}

// drops waits until the drops are these, and no other comes.
func drops(s *harness.Server, want ws.DropCounts) {
	s.T.Helper()
	_ = harness.Holds(func() bool { return s.Stats().Total.Drops == want })
	require.Equal(s.T, want, s.Stats().Total.Drops)
}

func numbers(from, to int) (texts []string) {
	for i := from; i < to; i++ {
		texts = append(texts, fmt.Sprint("message ", i))
	}
	return texts
}

func TestDropNewestKeepsTheOldest(t *testing.T) {
	opts := []ws.Option{ws.WithMessageQueueSize(4)} // one of them is half sent
	onAllSenders(t, opts, func(t *testing.T, s *harness.Server, c *harness.Client, sc *ws.Client,
		send func(string) error,
	) {
		for _, text := range numbers(0, 10) {
			_ = send(text)
		}
		drops(s, ws.DropCounts{Full: 7})
		assert.False(t, sc.IsClosed())
		c.Expect(append([]string{harness.BigMessage}, numbers(0, 3)...)...)
		harness.Eventually(t, func() bool { return sc.QueuedBytes() == 0 }, "%d bytes queued", sc.QueuedBytes())
		require.NoError(t, send("again"))
		c.Expect("again")
	})
}

func TestDropOldestKeepsTheNewest(t *testing.T) {
	opts := []ws.Option{ws.WithMessageQueueSize(4), ws.WithOverflowPolicy(ws.DropOldest)}
	onAllSenders(t, opts, func(t *testing.T, s *harness.Server, c *harness.Client, sc *ws.Client,
		send func(string) error,
	) {
		for _, text := range numbers(0, 10) {
			require.NoError(t, send(text))
		}
		drops(s, ws.DropCounts{Full: 7})
		want := 4 + 6 + len(harness.BigMessage) + 3*(2+len("message 0"))
		harness.Eventually(t, func() bool { return sc.QueuedBytes() == want }, "want %d bytes queued", want)
		c.Expect(append([]string{harness.BigMessage}, numbers(7, 10)...)...)
		require.NoError(t, send("again"))
		c.Expect("again")
	})
}

// DropOldest makes room for bytes too, and drops the new message only if it
// does not fit beside the one that is half sent.
func TestDropOldestCountsBytes(t *testing.T) {
	s := harness.Start(t, ws.WithQueueBytes(int64(len(harness.BigMessage)+1000)), ws.WithOverflowPolicy(ws.DropOldest))
	c, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	for _, n := range []int{100, 200, 300, 600, 2000} {
		require.NoError(t, sc.SendBytes([]byte(strings.Repeat("x", n))))
	}
	settle(s)
	drops(s, ws.DropCounts{Full: 5}) // the last makes room in vain
	require.NoError(t, sc.SendBytes([]byte("fits")))
	c.Expect(harness.BigMessage, "fits")
}

func TestDisconnectClosesWith1013(t *testing.T) {
	opts := []ws.Option{ws.WithMessageQueueSize(4), ws.WithOverflowPolicy(ws.Disconnect)}
	onAllSenders(t, opts, func(t *testing.T, s *harness.Server, c *harness.Client, sc *ws.Client,
		send func(string) error,
	) {
		ended := s.Events(ws.EventClientDisconnected)
		for _, text := range numbers(0, 3) {
			require.NoError(t, send(text))
		}
		settle(s)
		assert.False(t, sc.IsClosed())
		require.NoError(t, send("one too many"))
		harness.Eventually(t, sc.IsClosed, "it is not closed")
		drops(s, ws.DropCounts{Full: 1, Closed: 3})
		require.ErrorIs(t, sc.SendBytes([]byte("late")), ws.ErrConnectionClosed)

		c.Expect(harness.BigMessage) // the half-sent message is sent
		assert.Equal(t, "client reads too slowly", c.ExpectClose(ws.CloseTryAgainLater))
		c.Finish(ws.CloseTryAgainLater)
		end := harness.Receive(t, ended, "no disconnect").Data.(*ws.CloseError)
		assert.Equal(t, ws.CloseTryAgainLater, end.Code)
		assert.False(t, end.Remote)
		assert.Contains(t, end.Rooms, "r")
	})
}

// One that reads nothing any more does not see the close frame; it is cut off
// after the close timeout.
func TestDisconnectDoesNotWaitForever(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(1), ws.WithOverflowPolicy(ws.Disconnect),
		func(c *ws.Config) { c.CloseTimeout = 50 * time.Millisecond })
	ended := s.Events(ws.EventClientDisconnected)
	_, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	require.NoError(t, sc.SendBytes([]byte("one too many")))
	end := harness.Receive(t, ended, "no disconnect").Data.(*ws.CloseError)
	assert.Equal(t, ws.CloseTryAgainLater, end.Code)
	assert.Zero(t, s.GetClientCount())
	drops(s, ws.DropCounts{Full: 1, Closed: 1}) // the new one, and the one half sent
}

// BroadcastAll walks over the shard's connections, which a disconnect must not
// change.
func TestBroadcastAllDisconnectsSlowClients(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithLoops(1), ws.WithMessageQueueSize(2),
		ws.WithOverflowPolicy(ws.Disconnect), ws.WithCloseTimeout(5*harness.Patience)) // they read one after the other
	pairs := harness.FewerUnderRace(20)
	var slow, healthy []*harness.Client
	for range pairs {
		c, sc := s.DialClient(harness.Native)
		s.Stall(sc)
		slow = append(slow, c)
		healthy = append(healthy, s.Dial(harness.Native))
	}
	for _, text := range numbers(0, 3) {
		s.BroadcastAll([]byte(text))
	}
	for _, c := range healthy {
		c.Expect(numbers(0, 3)...)
	}
	for _, c := range slow {
		c.Expect(harness.BigMessage)
		c.ExpectClose(ws.CloseTryAgainLater)
		c.Finish(ws.CloseTryAgainLater)
	}
	drops(s, ws.DropCounts{Full: uint64(pairs), Closed: uint64(pairs)})
}

func TestRoomHasItsOwnPolicyAndDrops(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(4))
	prices, err := s.CreateRoom("prices", nil, ws.WithRoomOverflowPolicy(ws.DropOldest))
	require.NoError(t, err)
	chat, err := s.CreateRoom("chat", nil)
	require.NoError(t, err)
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("prices"))
	require.NoError(t, sc.JoinRoom("chat"))
	s.Stall(sc)
	publish := func(room string, from, to int) {
		for _, text := range numbers(from, to) {
			require.NoError(t, s.BroadcastToRoom(room, []byte(room+" "+text), nil))
		}
		settle(s)
	}
	publish("chat", 0, 5)
	publish("prices", 5, 7) // of the older ones, chat's are dropped
	publish("chat", 7, 8)
	assert.Equal(t, ws.DropCounts{Full: 5}, chat.Drops())
	assert.Zero(t, prices.Drops())
	publish("prices", 8, 11)
	assert.Equal(t, ws.DropCounts{Full: 6}, chat.Drops())
	assert.Equal(t, ws.DropCounts{Full: 2}, prices.Drops())
	c.Expect(harness.BigMessage, "prices message 8", "prices message 9", "prices message 10")
	assert.EqualValues(t, 8, s.Stats().Total.Drops.Full)

	_, err = s.CreateRoom("bad", nil, ws.WithRoomOverflowPolicy(17))
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
	require.ErrorContains(t, err, "RoomOverflowPolicy")
}

func TestConflation(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(6))
	prices, err := s.CreateRoom("prices", nil)
	require.NoError(t, err)
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("prices"))
	require.NoError(t, sc.JoinRoom("other"))
	s.Stall(sc)
	publish := func(room, key, text string) {
		d, err := s.Publish(room, []byte(text), ws.ConflateKey(key))
		require.NoError(t, err)
		require.NoError(t, d.Wait(context.Background()))
		assert.Equal(t, 1, d.Queued())
		assert.Zero(t, d.Dropped())
	}
	publish("prices", "A", "A 0")
	require.NoError(t, sc.SendBytes([]byte("in between")))
	publish("prices", "B", "B 0")
	publish("other", "A", "other A")
	for i := range 100 {
		publish("prices", "A", fmt.Sprint("A ", i))
		publish("prices", "B", fmt.Sprint("B ", i))
		require.NoError(t, sc.Send([]byte(fmt.Sprint("direct ", i)), ws.ConflateKey("A")))
		require.NoError(t, sc.SendPrepared(ws.Prepare(ws.OpText, []byte(fmt.Sprint("direct ", i)), ws.ConflateKey("A"))))
	}
	settle(s)
	// The queue is full; a message that conflates still gets in.
	require.ErrorIs(t, sc.SendBytes([]byte("no room")), ws.ErrChannelFull)
	publish("prices", "A", "the last A")
	drops(s, ws.DropCounts{Full: 1, Conflated: 101 + 100 + 199})
	assert.Equal(t, ws.DropCounts{Conflated: 201}, prices.Drops())
	c.Expect(harness.BigMessage, "the last A", "in between", "B 99", "other A", "direct 99")
}

// A message that has grown too large for the place of the older one is handled
// like any other.
func TestConflationKeepsTheBounds(t *testing.T) {
	tests := []struct {
		policy ws.OverflowPolicy
		want   []string
	}{
		{ws.DropNewest, []string{"K", "rest"}},
		{ws.DropOldest, []string{strings.Repeat("K", 1000)}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.policy), func(t *testing.T) {
			s := harness.Start(t, ws.WithQueueBytes(int64(len(harness.BigMessage)+1015)), ws.WithOverflowPolicy(tt.policy))
			c, sc := s.DialClient(harness.Native)
			s.Stall(sc)
			require.NoError(t, sc.Send([]byte("K"), ws.ConflateKey("K")))
			require.NoError(t, sc.SendBytes([]byte("rest")))
			require.NoError(t, sc.Send([]byte(strings.Repeat("K", 1000)), ws.ConflateKey("K")))
			settle(s)
			assert.LessOrEqual(t, sc.QueuedBytes(), len(harness.BigMessage)+1015)
			c.Expect(append([]string{harness.BigMessage}, tt.want...)...)
		})
	}
}

func TestTTL(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue)
	room, err := s.CreateRoom("r", nil)
	require.NoError(t, err)
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	publish := func(text string, ttl time.Duration) {
		_, err := s.Publish("r", []byte(text), ws.TTL(ttl))
		require.NoError(t, err)
	}
	publish("gone before it is there", -1)
	publish("in time", time.Hour)
	publish("for ever", 0)
	c.Expect("in time", "for ever")
	drops(s, ws.DropCounts{Expired: 1})

	s.Stall(sc)
	before := sc.QueuedBytes()
	publish("waits", time.Hour)
	publish("expires", time.Millisecond)
	p := ws.Prepare(ws.OpText, []byte("expires, too"), ws.TTL(time.Millisecond))
	require.NoError(t, sc.SendPrepared(p))
	drops(s, ws.DropCounts{Expired: 3}) // though nothing can be written
	assert.Equal(t, before+2+len("waits"), sc.QueuedBytes())
	assert.Equal(t, ws.DropCounts{Expired: 2}, room.Drops())
	c.Expect(harness.BigMessage, "waits")
	// The time of a prepared message runs from each sending.
	p = ws.Prepare(ws.OpText, []byte("prepared"), ws.TTL(time.Hour))
	require.NoError(t, sc.SendPrepared(p))
	require.NoError(t, s.BroadcastPrepared("r", p, nil))
	c.Expect("prepared", "prepared")
}

// Expired messages do not take the room of those that follow.
func TestExpiredMessagesMakeRoom(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(3))
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	s.Stall(sc)
	for range 10 {
		_, err := s.Publish("r", []byte("short-lived"), ws.TTL(time.Nanosecond))
		require.NoError(t, err)
	}
	for _, text := range numbers(0, 2) {
		require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
	}
	drops(s, ws.DropCounts{Expired: 10})
	c.Expect(append([]string{harness.BigMessage}, numbers(0, 2)...)...)
}

func TestHighLaneHasItsOwnBounds(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(3), ws.WithHighQueueSize(2),
		ws.WithHighQueueBytes(100))
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	s.Stall(sc)
	require.NoError(t, sc.SendBytes([]byte("normal 0")))
	require.NoError(t, sc.SendBytes([]byte("normal 1")))
	require.ErrorIs(t, sc.SendBytes([]byte("full")), ws.ErrChannelFull)
	require.NoError(t, sc.SendBytesHigh([]byte("high 0")))
	require.ErrorIs(t, sc.SendBytesHigh([]byte(strings.Repeat("x", 100))), ws.ErrChannelFull, "bytes")
	d, err := s.Publish("r", []byte("high 1"), ws.HighPriority())
	require.NoError(t, err)
	require.NoError(t, d.Wait(context.Background()))
	assert.Equal(t, 1, d.Queued())
	require.ErrorIs(t, sc.SendBytesHigh([]byte("full")), ws.ErrChannelFull, "messages")
	c.WriteRaw(harness.Frame(gobwas.OpPing, "are you there?"))
	settle(s)

	for rest := len(harness.BigMessage); rest > 0; { // never interleaved with the one half sent
		f := c.ReadFrame()
		require.Equal(t, gobwas.OpText, f.Header.OpCode)
		rest -= len(f.Payload)
	}
	pong := c.ReadFrame()
	assert.Equal(t, gobwas.OpPong, pong.Header.OpCode, "control frames before all others")
	c.Expect("high 0", "high 1", "normal 0", "normal 1")
}

func TestPublishOptions(t *testing.T) {
	s := harness.Start(t)
	a, ac := s.DialClient(harness.Native)
	b, bc := s.DialClient(harness.Native)
	require.NoError(t, ac.JoinRoom("r"))
	require.NoError(t, bc.JoinRoom("r"))
	d, err := s.Publish("r", []byte("binary"), ws.Binary(), ws.Exclude(ac))
	require.NoError(t, err)
	require.NoError(t, d.Wait(context.Background()))
	assert.Equal(t, 1, d.Queued())
	f := b.Next()
	assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
	require.NoError(t, ac.Send([]byte("direct"), ws.Binary()))
	f = a.Next()
	assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
	assert.Equal(t, "direct", string(f.Payload))
}

func TestDeliveryReport(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(2))
	const members, stalled = 10, 3
	var clients []*ws.Client
	for range members {
		_, sc := s.DialClient(harness.Native)
		require.NoError(t, sc.JoinRoom("r"))
		clients = append(clients, sc)
	}
	for _, sc := range clients[:stalled] {
		s.Stall(sc)
		require.NoError(t, sc.SendBytes([]byte("fills the queue")))
	}
	d, err := s.Publish("r", []byte("x"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	require.NoError(t, d.Wait(ctx))
	<-d.Done()
	assert.Equal(t, members-stalled, d.Queued())
	assert.Equal(t, stalled, d.Dropped())

	var none ws.Delivery
	<-none.Done()
	assert.Zero(t, none.Queued()+none.Dropped())
	_, err = s.CreateRoom("empty", nil)
	require.NoError(t, err)
	d, err = s.Publish("empty", []byte("x"))
	require.NoError(t, err)
	require.NoError(t, d.Wait(ctx))
	assert.Zero(t, d.Queued()+d.Dropped())
	_, err = s.Publish("no such room", nil)
	require.ErrorIs(t, err, ws.ErrRoomNotFound)

	canceled, cancelNow := context.WithCancel(ctx)
	cancelNow()
	_, err = s.PublishContext(canceled, "r", []byte("x"))
	require.ErrorIs(t, err, context.Canceled)
}

// block holds up the only event loop of s until the returned function is
// called.
func block(s *harness.Server) (release func()) {
	s.T.Helper()
	held, free := make(chan struct{}), make(chan struct{})
	s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
		close(held)
		<-free
	})
	s.Dial(harness.Native).Send("block")
	harness.Receive(s.T, held, "the handler did not run")
	return func() { close(free) }
}

func TestPublishContextEndsWithItsContext(t *testing.T) {
	s := harness.Start(t, ws.WithLoops(1), ws.WithHandlerMode(ws.Inline), func(c *ws.Config) {
		c.Broadcast.QueueSize = 1
		c.Broadcast.Timeout = time.Hour
	})
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	settle(s)
	release := block(s)
	first, err := s.Publish("r", []byte("in the ring"))
	require.NoError(t, err)
	assert.Zero(t, first.Queued())
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := s.PublishContext(ctx, "r", []byte("waits in vain"))
		result <- err
	}()
	cancel()
	require.ErrorIs(t, harness.Receive(t, result, "the publish did not end"), context.Canceled)
	release()
	require.NoError(t, first.Wait(context.Background()))
	require.NoError(t, s.BroadcastToRoom("r", []byte("the next"), nil))
	c.Expect("in the ring", "the next")
}

// A report is completed though its loop has ended.
func TestDeliveryEndsWithTheManager(t *testing.T) {
	s := harness.Start(t, ws.WithLoops(1))
	_, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	stop := make(chan struct{})
	done := make(chan ws.Delivery, 1)
	go func() {
		var last ws.Delivery
		for {
			select {
			case <-stop:
				done <- last
				return
			default:
			}
			if d, err := s.Publish("r", []byte("x")); err == nil {
				last = d
			}
		}
	}()
	abortShutdown(s)
	close(stop)
	last := <-done
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	require.NoError(t, last.Wait(ctx))
}

// abortShutdown stops the manager without waiting for its clients.
func abortShutdown(s *harness.Server) {
	s.Abandon()
	s.Web.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_ = s.Shutdown(ctx)
	require.NoError(s.T, harness.Receive(s.T, s.Ran, "Run did not return"))
	harness.Shutdown(s.T, s.Manager)
}
