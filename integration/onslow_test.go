package integration_test

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
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
func caughtUp(s *harness.Server) {
	s.T.Helper()
	harness.Eventually(s.T, func() bool {
		st := s.Stats().Total
		return st.Slow == 0 && st.Blocked == 0 && st.QueuedMemory == 0
	}, "somebody counts as behind still")
}

func TestOnSlowAndOnDrain(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		var log slowLog
		s := harness.Start(t, harness.WithDeepQueue, log.options(), ws.WithMessageQueueSize(10)) // marks at 5 and 1
		_, bystander := s.DialClient(w)
		require.NoError(t, bystander.JoinRoom("r"))
		c, sc := s.DialClient(w)
		require.NoError(t, sc.JoinRoom("r"))
		for range 3 { // episodes
			s.Stall(sc)
			publish := func(n int) {
				for _, text := range numbers(0, n) {
					require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
				}
				settle(s)
			}
			publish(3) // the one half sent makes 4
			assert.Empty(t, log.calls, "below the high mark")
			assert.Zero(t, s.Stats().Total.Slow)
			publish(1)
			assert.Equal(t, "slow "+sc.ID, harness.Receive(t, log.calls, "no OnSlow"))
			assert.EqualValues(t, sc.QueuedBytes(), log.bytes.Load())
			publish(20) // loses some
			assert.Empty(t, log.calls, "told once")
			assert.Equal(t, 1, s.Stats().Total.Slow)
			assert.Equal(t, 1, s.Stats().Total.Blocked)
			assert.Greater(t, s.Stats().Total.QueuedMemory, int64(len(harness.BigMessage)))

			c.Expect(harness.BigMessage)
			assert.Equal(t, "drain "+sc.ID, harness.Receive(t, log.calls, "no OnDrain"))
			for range 9 {
				c.Next()
			}
			harness.Eventually(t, func() bool { return sc.QueuedBytes() == 0 }, "the queue did not drain")
			caughtUp(s)
		}
		assert.Empty(t, log.calls)
	})
}

// A burst to a client that reads is not slow, however far above the mark it is.
func TestHealthyClientsAreNeverSlow(t *testing.T) {
	var log slowLog
	s := harness.Start(t, log.options(), ws.WithMessageQueueSize(4))
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	const n = 2000
	for _, text := range numbers(0, n) {
		require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
	}
	c.Expect(numbers(0, n)...)
	settle(s)
	assert.Empty(t, log.calls)
	assert.Zero(t, s.Stats().Total.Drops)
}

// A client that loses messages is slow, though its queue is below the mark in
// bytes and messages.
func TestLosingMakesSlow(t *testing.T) {
	var log slowLog
	s := harness.Start(t, log.options(), ws.WithMessageQueueSize(1000), ws.WithHighQueueSize(1000), harness.WithDeepQueue,
		ws.WithQueueBudget(1))
	_, sc := s.DialClient(harness.Native)
	stallQuietly(s, sc)
	assert.Equal(t, "slow "+sc.ID, harness.Receive(t, log.calls, "no OnSlow"))
}

// stallQuietly is stall for a client that may be closed for it.
func stallQuietly(s *harness.Server, sc *ws.Client) {
	s.T.Helper()
	_ = sc.SendBytes([]byte(harness.BigMessage))
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
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(2), ws.WithLoops(1),
		ws.WithOnSlow(func(c *ws.Client, _ int) { enter(c, "slow "); panic("on slow") }),
		ws.WithOnDrain(func(c *ws.Client) { enter(c, "drain "); panic("on drain") }))
	const clients = 5
	var conns []*harness.Client
	for range clients {
		c, sc := s.DialClient(harness.Native)
		s.Stall(sc)
		require.NoError(t, sc.SendBytes([]byte("one more")))
		conns = append(conns, c)
		assert.Equal(t, "slow "+sc.ID, harness.Receive(t, entered, "blocked by another client's"))
	}
	for _, c := range conns { // the loop goes on
		c.Expect(harness.BigMessage, "one more")
	}
	harness.Eventually(t, func() bool { return s.Stats().Total.Slow == 0 }, "still slow")
	close(block)
	for range clients {
		assert.True(t, strings.HasPrefix(harness.Receive(t, entered, "no OnDrain"), "drain "))
	}
}

// A client that closes while it is slow is not told to have drained.
func TestSlowClientThatCloses(t *testing.T) {
	var log slowLog
	s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(2), log.options())
	ended := s.Events(ws.EventClientDisconnected)
	c, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	require.NoError(t, sc.SendBytes([]byte("one more")))
	assert.Equal(t, "slow "+sc.ID, harness.Receive(t, log.calls, "no OnSlow"))
	c.Abort()
	harness.Receive(t, ended, "no disconnect")
	assert.Empty(t, log.calls)
	caughtUp(s)
	drops(s, ws.DropCounts{Closed: 2}) // the second may have been on its way to the loop still
}

// The messages that an inline handler sends within one read are bounded like all others.
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
			s := harness.Start(t, ws.WithHandlerMode(ws.Inline), ws.WithOverflowPolicy(tt.policy),
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
			c := s.Dial(harness.Native)
			requests := uint64(0)
			lossy := func() bool { return s.Stats().Total.Drops.Full > 0 }
			for !lossy() {
				require.Less(t, requests, uint64(10_000), "the socket does not fill")
				c.WriteRaw(strings.Repeat(harness.Frame(2, "go"), 5))
				requests += 5
				harness.Eventually(t, func() bool { return s.Stats().Total.MessagesIn == requests || lossy() }, "not received")
			}
			settle(s)
			bound := min(int64(tt.frames)*(size+4), tt.bytes)
			assert.LessOrEqual(t, most.Load(), bound+size+4, "one frame beyond the bound at most")
			if tt.policy == ws.Disconnect {
				harness.Eventually(t, func() bool { return s.Stats().Total.Drops.Closed > 0 }, "not closed")
				expectReplies(c, size)
				c.Finish(ws.CloseTryAgainLater)
				return
			}
			// The client waits with its requests until it reads the answers.
			handled := func() bool { return s.Stats().Total.MessagesIn == requests }
			read, want := int64(0), int64(0)
			for done := false; !done || read < want; {
				harness.Eventually(t, func() bool {
					done = handled()
					if done {
						settle(s) // the last of them is handled
					}
					want = accepted.Load()
					if tt.policy == ws.DropOldest {
						want -= int64(s.Stats().Total.Drops.Full)
					}
					return done || read < want
				}, "requests")
				for ; read < want; read++ {
					require.Len(t, c.Next().Payload, size)
				}
			}
			if tt.policy != ws.DropOldest {
				assert.EqualValues(t, refused.Load(), s.Stats().Total.Drops.Full)
			}
			harness.Eventually(t, func() bool { return s.Stats().Total.MessagesOut == uint64(want) }, "counted as sent")
			caughtUp(s)
		})
	}
}

// expectReplies reads text messages of one size up to the close frame 1013.
func expectReplies(c *harness.Client, size int) {
	c.T.Helper()
	for {
		f := c.Next()
		if f.Header.OpCode == 8 {
			require.Contains(c.T, string(f.Payload), "too slowly")
			return
		}
		require.Len(c.T, f.Payload, size)
	}
}

// countOpen returns the number of open clients. The closed ones must receive a close
// frame behind the last, partly sent message.
func countOpen(clients []*ws.Client, conns []*harness.Client) int {
	open := 0
	for i, sc := range clients {
		if !sc.IsClosed() {
			open++
			continue
		}
		conns[i].ExpectClose(ws.CloseTryAgainLater)
		conns[i].Finish(ws.CloseTryAgainLater)
	}
	return open
}

// The budget is kept by taking from those that hold the most.
func TestQueueBudget(t *testing.T) {
	t.Parallel()
	const large, small, size, budget = 20, 5, 1000, 1_000_000
	for _, policy := range []ws.OverflowPolicy{ws.DropNewest, ws.DropOldest, ws.Disconnect} {
		for _, loops := range []int{1, 3} {
			t.Run(fmt.Sprintf("policy %d, %d loops", policy, loops), func(t *testing.T) {
				// Without a bound of unsent bytes a socket that is full stays full.
				s := harness.Start(t, harness.WithDeepQueue, ws.WithMessageQueueSize(1<<20), ws.WithOverflowPolicy(policy),
					ws.WithLoops(loops), ws.WithQueueBudget(budget), ws.WithUnsentBytes(0))
				var clients []*ws.Client
				var conns []*harness.Client
				var sent []int
				for range large + small {
					c, sc := s.DialClient(harness.Native)
					sent = append(sent, fill(s, sc))
					clients = append(clients, sc)
					conns = append(conns, c)
				}
				fillAgain(s, clients, sent)
				healthy, hc := s.DialClient(harness.Native)
				base := s.Stats().Total
				require.LessOrEqual(t, base.QueuedMemory, int64(budget))
				payload := []byte(strings.Repeat("x", size))
				for range 3 {
					for _, sc := range clients[large:] {
						require.NoError(t, sc.SendBytes(payload))
					}
				}
				settle(s)
				for range 100 {
					for _, sc := range clients[:large] {
						_ = sc.SendBytes(payload)
					}
					require.NoError(t, hc.SendBytes(payload))
					settle(s) // a pace at which the loops keep up with each other
				}
				settle(s)
				harness.Eventually(t, func() bool { return s.Stats().Total.QueuedMemory <= budget }, "over the budget")
				st := s.Stats().Total
				assert.Positive(t, st.Drops.Budget-base.Drops.Budget)
				for range 100 {
					require.Len(t, healthy.Next().Payload, size)
				}
				if policy == ws.Disconnect {
					open := countOpen(clients, conns)
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
					harness.Eventually(t, func() bool { return sc.QueuedBytes() == 0 },
						"client %d: %d bytes left", i, sc.QueuedBytes())
				}
				harness.Eventually(t, func() bool { return s.Stats().Total.QueuedMemory == 0 },
					"%d left", s.Stats().Total.QueuedMemory)
				for i := range conns {
					if i >= large {
						harness.Eventually(t, func() bool { return got[i].Load() == int64(sent[i]+3) },
							"client %d holds little and lost", i)
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
func drain(conns []*harness.Client, size int64) (got []atomic.Int64, wait func()) {
	got = make([]atomic.Int64, len(conns))
	var readers sync.WaitGroup
	for i, c := range conns {
		readers.Go(func() {
			for {
				h, err := gobwas.ReadHeader(c.R)
				if err != nil {
					return
				}
				if n, err := io.CopyN(io.Discard, c.R, h.Length); err != nil || n != size {
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
func fill(s *harness.Server, sc *ws.Client) (sent int) {
	s.T.Helper()
	payload := []byte(strings.Repeat("f", 1000))
	blocked := s.Stats().Total.BlockedTotal
	for ; s.Stats().Total.BlockedTotal == blocked; sent++ {
		require.Less(s.T, sent, 100_000, "the socket does not fill")
		require.NoError(s.T, sc.SendBytes(payload))
		if sent%20 == 0 { // so that little is queued when it is full
			settleOne(s, sc)
			harness.Eventually(s.T, func() bool {
				return sc.QueuedBytes() == 0 || s.Stats().Total.BlockedTotal != blocked
			}, "%d bytes are neither sent nor blocked", sc.QueuedBytes())
		}
	}
	settleOne(s, sc)
	return sent
}

// fillAgain fills the sockets again that have taken all of their queue after they were full: the
// kernel may make room late. It adds the messages of each client to sent.
func fillAgain(s *harness.Server, clients []*ws.Client, sent []int) {
	s.T.Helper()
	for full := false; !full; {
		<-time.After(100 * time.Millisecond)
		full = true
		for i, sc := range clients {
			if sc.QueuedBytes() == 0 {
				sent[i] += fill(s, sc)
				full = false
			}
		}
	}
}

// settleOne is settle for one client's event loop.
func settleOne(s *harness.Server, sc *ws.Client) {
	s.T.Helper()
	require.NoError(s.T, sc.JoinRoom("settle"))
	d, err := s.Publish("settle", nil, ws.Exclude(sc))
	require.NoError(s.T, err)
	<-d.Done()
	s.DeleteRoom("settle")
}

// A budget that one message half sent exceeds costs the connection.
func TestQueueBudgetCutsOffWhatIsHalfSent(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue, ws.WithQueueBudget(1<<20))
	ended := s.Events(ws.EventClientDisconnected)
	_, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.SendBytes([]byte(harness.BigMessage)))
	end := harness.Receive(t, ended, "it is not cut off").Data.(*ws.CloseError)
	assert.Equal(t, ws.CloseTryAgainLater, end.Code)
	drops(s, ws.DropCounts{Budget: 1})
	caughtUp(s)
	assert.Zero(t, sc.QueuedBytes())
}
