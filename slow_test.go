package ws_test

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// slowLog records the calls of OnSlow and OnDrain.
type slowLog struct {
	calls chan string // "slow ID" or "drain ID"
	bytes atomic.Int64
}

func (l *slowLog) options() ws.Option {
	l.calls = make(chan string, 1000)
	return func(c *ws.Config) {
		c.OnSlow = func(c *ws.Client, queuedBytes int) {
			l.bytes.Store(int64(queuedBytes))
			l.calls <- "slow " + c.ID
		}
		c.OnDrain = func(c *ws.Client) { l.calls <- "drain " + c.ID }
	}
}

// caughtUp waits until nobody is behind: the loops count it a little after the
// last byte is written.
func (s *server) caughtUp() {
	s.t.Helper()
	eventually(s.t, func() bool {
		st := s.Stats().Total
		return st.Slow == 0 && st.Blocked == 0 && st.QueuedMemory == 0
	}, "somebody counts as behind still")
}

func TestOnSlowAndOnDrain(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		var log slowLog
		s := start(t, withDeepQueue, log.options(), ws.WithMessageQueueSize(10)) // marks at 5 and 1
		_, bystander := s.dialClient(w)
		require.NoError(t, bystander.JoinRoom("r"))
		c, sc := s.dialClient(w)
		require.NoError(t, sc.JoinRoom("r"))
		for range 3 { // episodes
			s.stall(sc)
			publish := func(n int) {
				for _, text := range numbers(0, n) {
					require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
				}
				s.settle()
			}
			publish(3) // the one half sent makes 4
			assert.Empty(t, log.calls, "below the high mark")
			assert.Zero(t, s.Stats().Total.Slow)
			publish(1)
			assert.Equal(t, "slow "+sc.ID, receive(t, log.calls, "no OnSlow"))
			assert.EqualValues(t, sc.QueuedBytes(), log.bytes.Load())
			publish(20) // loses some
			assert.Empty(t, log.calls, "told once")
			assert.Equal(t, 1, s.Stats().Total.Slow)
			assert.Equal(t, 1, s.Stats().Total.Blocked)
			assert.Greater(t, s.Stats().Total.QueuedMemory, int64(len(bigMessage)))

			c.expect(bigMessage)
			assert.Equal(t, "drain "+sc.ID, receive(t, log.calls, "no OnDrain"))
			for range 9 {
				c.read()
			}
			eventually(t, func() bool { return sc.QueuedBytes() == 0 }, "the queue did not drain")
			s.caughtUp()
		}
		assert.Empty(t, log.calls)
	})
}

// A burst to a client that reads is not slow, however far above the mark it is.
func TestHealthyClientsAreNeverSlow(t *testing.T) {
	var log slowLog
	s := start(t, log.options(), ws.WithMessageQueueSize(4))
	c, sc := s.dialClient(native)
	require.NoError(t, sc.JoinRoom("r"))
	const n = 2000
	for _, text := range numbers(0, n) {
		require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
	}
	c.expect(numbers(0, n)...)
	s.settle()
	assert.Empty(t, log.calls)
	assert.Zero(t, s.Stats().Total.Drops)
}

// A client that loses messages is slow, though its queue is below the mark in
// bytes and messages.
func TestLosingMakesSlow(t *testing.T) {
	var log slowLog
	s := start(t, log.options(), ws.WithMessageQueueSize(1000), ws.WithHighQueueSize(1000), withDeepQueue, ws.WithQueueBudget(1))
	_, sc := s.dialClient(native)
	s.stallQuietly(sc)
	assert.Equal(t, "slow "+sc.ID, receive(t, log.calls, "no OnSlow"))
}

// stallQuietly is stall for a client that may be closed for it.
func (s *server) stallQuietly(sc *ws.Client) {
	s.t.Helper()
	_ = sc.SendBytes([]byte(bigMessage))
}

// The callbacks may block and panic: it concerns neither the event loops nor
// the calls for other clients; those for one client come one after the other.
func TestSlowCallbacksMayBlockAndPanic(t *testing.T) {
	var mu sync.Mutex
	running := map[string]int{}
	block, entered := make(chan struct{}), make(chan string, 100)
	enter := func(c *ws.Client, what string) {
		mu.Lock()
		running[c.ID]++
		assert.Equal(t, 1, running[c.ID], "two calls at once for one client")
		mu.Unlock()
		entered <- what + c.ID
		<-block
		mu.Lock()
		running[c.ID]--
		mu.Unlock()
	}
	s := start(t, withDeepQueue, ws.WithMessageQueueSize(2), ws.WithLoops(1),
		ws.WithOnSlow(func(c *ws.Client, _ int) { enter(c, "slow "); panic("on slow") }),
		ws.WithOnDrain(func(c *ws.Client) { enter(c, "drain "); panic("on drain") }))
	const clients = 5
	var conns []*client
	for range clients {
		c, sc := s.dialClient(native)
		s.stall(sc)
		require.NoError(t, sc.SendBytes([]byte("one more")))
		conns = append(conns, c)
		assert.Equal(t, "slow "+sc.ID, receive(t, entered, "blocked by another client's"))
	}
	for _, c := range conns { // the loop goes on
		c.expect(bigMessage, "one more")
	}
	eventually(t, func() bool { return s.Stats().Total.Slow == 0 }, "still slow")
	close(block)
	for range clients {
		assert.True(t, strings.HasPrefix(receive(t, entered, "no OnDrain"), "drain "))
	}
}

// A client that closes while it is slow is not told to have drained.
func TestSlowClientThatCloses(t *testing.T) {
	var log slowLog
	s := start(t, withDeepQueue, ws.WithMessageQueueSize(2), log.options())
	ended := s.events(ws.EventClientDisconnected)
	c, sc := s.dialClient(native)
	s.stall(sc)
	require.NoError(t, sc.SendBytes([]byte("one more")))
	assert.Equal(t, "slow "+sc.ID, receive(t, log.calls, "no OnSlow"))
	c.abort()
	receive(t, ended, "no disconnect")
	assert.Empty(t, log.calls)
	s.caughtUp()
	s.drops(ws.DropCounts{Closed: 2}) // the second may have been on its way to the loop still
}

// What an inline handler sends within one read is bounded like all else.
func TestInlineReplies(t *testing.T) {
	tests := []struct {
		name   string
		policy ws.OverflowPolicy
		frames int
		bytes  int64
	}{
		{"by messages", ws.DropNewest, 100, 1 << 30},
		{"by bytes", ws.DropNewest, 1 << 20, 50_000},
		{"drop oldest", ws.DropOldest, 100, 1 << 30},
		{"disconnect", ws.Disconnect, 100, 1 << 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const size = 1000
			var refused, accepted, most atomic.Int64
			s := start(t, ws.WithHandlerMode(ws.Inline), ws.WithOverflowPolicy(tt.policy),
				ws.WithMessageQueueSize(tt.frames), ws.WithQueueBytes(tt.bytes))
			reply := []byte(strings.Repeat("r", size))
			s.HandleRaw(func(c *ws.Client, _ ws.Opcode, _ []byte) {
				for range 200 {
					if err := c.SendBytes(reply); err != nil {
						refused.Add(1)
					} else {
						accepted.Add(1)
					}
					most.Store(max(most.Load(), int64(c.QueuedBytes())))
				}
			})
			c := s.dial(native)
			requests := uint64(0)
			lossy := func() bool { return s.Stats().Total.Drops.Full > 0 }
			for !lossy() {
				require.Less(t, requests, uint64(10_000), "the socket does not fill")
				c.raw(strings.Repeat(frame(2, "go"), 5))
				requests += 5
				eventually(t, func() bool { return s.Stats().Total.MessagesIn == requests || lossy() }, "not received")
			}
			s.settle()
			bound := min(int64(tt.frames)*(size+4), tt.bytes)
			assert.LessOrEqual(t, most.Load(), bound+size+4, "one frame beyond the bound at most")
			if tt.policy == ws.Disconnect {
				eventually(t, func() bool { return s.Stats().Total.Drops.Closed > 0 }, "not closed")
				c.expectReplies(size)
				c.finish(ws.CloseTryAgainLater)
				return
			}
			// The client waits with its requests until it reads the answers.
			handled := func() bool { return s.Stats().Total.MessagesIn == requests }
			read, want := int64(0), int64(0)
			for done := false; !done || read < want; {
				eventually(t, func() bool {
					done = handled()
					if done {
						s.settle() // the last of them is handled
					}
					want = accepted.Load()
					if tt.policy == ws.DropOldest {
						want -= int64(s.Stats().Total.Drops.Full)
					}
					return done || read < want
				}, "requests")
				for ; read < want; read++ {
					require.Len(t, c.read().Payload, size)
				}
			}
			if tt.policy != ws.DropOldest {
				assert.EqualValues(t, refused.Load(), s.Stats().Total.Drops.Full)
			}
			eventually(t, func() bool { return s.Stats().Total.MessagesOut == uint64(want) }, "counted as sent")
			s.caughtUp()
		})
	}
}

// expectReplies reads text messages of one size up to the close frame 1013.
func (c *client) expectReplies(size int) {
	c.t.Helper()
	for {
		f := c.read()
		if f.Header.OpCode == 8 {
			require.Contains(c.t, string(f.Payload), "too slowly")
			return
		}
		require.Len(c.t, f.Payload, size)
	}
}

// The budget is kept by taking from those that hold the most.
func TestQueueBudget(t *testing.T) {
	const large, small, size, budget = 20, 5, 1000, 1_000_000
	for _, policy := range []ws.OverflowPolicy{ws.DropNewest, ws.DropOldest, ws.Disconnect} {
		for _, loops := range []int{1, 3} {
			t.Run(fmt.Sprintf("policy %d, %d loops", policy, loops), func(t *testing.T) {
				// Without a bound of unsent bytes a socket that is full stays full.
				s := start(t, withDeepQueue, ws.WithMessageQueueSize(1<<20), ws.WithOverflowPolicy(policy), ws.WithLoops(loops),
					ws.WithQueueBudget(budget), ws.WithUnsentBytes(0))
				var clients []*ws.Client
				var conns []*client
				var sent []int
				for range large + small {
					c, sc := s.dialClient(native)
					sent = append(sent, s.fill(sc))
					clients = append(clients, sc)
					conns = append(conns, c)
				}
				healthy, hc := s.dialClient(native)
				base := s.Stats().Total
				require.LessOrEqual(t, base.QueuedMemory, int64(budget))
				payload := []byte(strings.Repeat("x", size))
				for range 3 {
					for _, sc := range clients[large:] {
						require.NoError(t, sc.SendBytes(payload))
					}
				}
				s.settle()
				for range 100 {
					for _, sc := range clients[:large] {
						_ = sc.SendBytes(payload)
					}
					require.NoError(t, hc.SendBytes(payload))
					s.settle() // a pace at which the loops keep up with each other
				}
				s.settle()
				eventually(t, func() bool { return s.Stats().Total.QueuedMemory <= budget }, "over the budget")
				st := s.Stats().Total
				assert.Positive(t, st.Drops.Budget-base.Drops.Budget)
				for range 100 {
					require.Len(t, healthy.read().Payload, size)
				}
				if policy == ws.Disconnect {
					open := 0
					for i, sc := range clients {
						if !sc.IsClosed() {
							open++
							continue
						}
						conns[i].expectClose(ws.CloseTryAgainLater) // behind what was half sent
						conns[i].finish(ws.CloseTryAgainLater)
					}
					assert.Less(t, open, large+small)
					assert.GreaterOrEqual(t, open, small)
					return
				}
				assert.Greater(t, st.QueuedMemory, int64(budget*5/8), "no more is taken than needed")
				least, most := 1<<30, 0
				for _, sc := range clients[:large] {
					assert.False(t, sc.IsClosed())
					least, most = min(least, sc.QueuedBytes()), max(most, sc.QueuedBytes())
				}
				assert.LessOrEqual(t, most-least, most/4+2*size, "all of them lose alike: from %d to %d", least, most)
				got, wait := drain(conns, size)
				for i, sc := range clients {
					eventually(t, func() bool { return sc.QueuedBytes() == 0 }, "client %d: %d bytes left", i, sc.QueuedBytes())
				}
				eventually(t, func() bool { return s.Stats().Total.QueuedMemory == 0 }, "%d left", s.Stats().Total.QueuedMemory)
				for i := range conns {
					if i >= large {
						eventually(t, func() bool { return got[i].Load() == int64(sent[i]+3) }, "client %d holds little and lost", i)
					}
					_ = conns[i].Close()
				}
				wait()
			})
		}
	}
}

// drain reads all connections until they are closed, and counts the messages of
// one size that each of them gets.
func drain(conns []*client, size int64) (got []atomic.Int64, wait func()) {
	got = make([]atomic.Int64, len(conns))
	var readers sync.WaitGroup
	for i, c := range conns {
		readers.Go(func() {
			for {
				h, err := gws.ReadHeader(c.r)
				if err != nil {
					return
				}
				if n, err := io.CopyN(io.Discard, c.r, h.Length); err != nil || n != size {
					return
				}
				got[i].Add(1)
			}
		})
	}
	return got, readers.Wait
}

// fill fills the socket of a client that does not read with messages that it
// can hold whole, so that little waits in the queue. It returns how many it sent.
func (s *server) fill(sc *ws.Client) (sent int) {
	s.t.Helper()
	payload := []byte(strings.Repeat("f", 1000))
	blocked := s.Stats().Total.BlockedTotal
	for ; s.Stats().Total.BlockedTotal == blocked; sent++ {
		require.Less(s.t, sent, 100_000, "the socket does not fill")
		require.NoError(s.t, sc.SendBytes(payload))
		if sent%20 == 0 { // so that little is queued when it is full
			s.settleOne(sc)
			eventually(s.t, func() bool {
				return sc.QueuedBytes() == 0 || s.Stats().Total.BlockedTotal != blocked
			}, "%d bytes are neither sent nor blocked", sc.QueuedBytes())
		}
	}
	s.settleOne(sc)
	return sent
}

// settleOne is settle for one client's event loop.
func (s *server) settleOne(sc *ws.Client) {
	s.t.Helper()
	require.NoError(s.t, sc.JoinRoom("settle"))
	d, err := s.Publish("settle", nil, ws.Exclude(sc))
	require.NoError(s.t, err)
	<-d.Done()
	s.DeleteRoom("settle")
}

// A budget that one message half sent exceeds costs the connection.
func TestQueueBudgetCutsOffWhatIsHalfSent(t *testing.T) {
	s := start(t, withDeepQueue, ws.WithQueueBudget(1<<20))
	ended := s.events(ws.EventClientDisconnected)
	_, sc := s.dialClient(native)
	require.NoError(t, sc.SendBytes([]byte(bigMessage)))
	end := receive(t, ended, "it is not cut off").Data.(*ws.CloseError)
	assert.Equal(t, ws.CloseTryAgainLater, end.Code)
	s.drops(ws.DropCounts{Budget: 1})
	s.caughtUp()
	assert.Zero(t, sc.QueuedBytes())
}
