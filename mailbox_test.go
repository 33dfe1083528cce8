package ws_test

import (
	"crypto/tls"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// boundedMailboxes hold 8 messages that blockMessage makes of one-digit ids.
func boundedMailboxes() map[string]ws.Option {
	length := int64(len(harness.BlockMessage(1)))
	return map[string]ws.Option{
		"by count":         ws.WithMailboxSize(8),
		"by bytes":         ws.WithMailboxBytes(8 * length),
		"by bytes, uneven": ws.WithMailboxBytes(9*length - 1),
	}
}

// As many messages as a mailbox holds may wait, and are handled.
func TestMailboxAtItsBound(t *testing.T) {
	for name, bound := range boundedMailboxes() {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, bound)
				entered, release := harness.RegisterBlock(t, s.Manager)
				c, sc := s.DialClient(w)
				c.Send(harness.BlockMessage(0))
				harness.Receive(t, entered, "not called")
				for id := 1; id <= 8; id++ {
					c.Send(harness.BlockMessage(id))
				}
				c.Sync()
				assert.False(t, sc.IsClosed())
				release()
				for id := range 9 {
					c.ExpectReply(strconv.Itoa(id), 200, "")
				}
			})
		})
	}
}

// A client whose messages are more than its mailbox holds waits: its connection is
// paused, everything is handled in order, and the others do not notice.
func TestMailboxBeyondItsBound(t *testing.T) {
	const messages = 2000 // some do not fit into one read
	for name, bound := range boundedMailboxes() {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, bound, ws.WithLoops(1))
				harness.RegisterGreetings(t, s.Manager)
				entered, release := harness.RegisterBlock(t, s.Manager)
				bystander := s.Dial(w)
				c, sc := s.DialClient(w)
				var burst []string
				for id := range messages {
					burst = append(burst, harness.BlockMessage(id))
				}
				c.Send(burst...)
				harness.Receive(t, entered, "not called")
				harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 1 }, "not paused")
				bystander.Send(harness.Request("only", "1", ""))
				bystander.ExpectReply("1", 200, "")
				assert.False(t, sc.IsClosed())
				release()
				for id := range messages {
					c.ExpectReply(strconv.Itoa(id), 200, "")
				}
				harness.Eventually(t, func() bool { return s.Stats().Total.Paused == 0 }, "not resumed")
			})
		})
	}
}

// A mailbox that is empty takes one message of any size.
func TestMailboxTakesOneOfAnySize(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMailboxBytes(1))
		entered, release := harness.RegisterBlock(t, s.Manager)
		c, sc := s.DialClient(w)
		big := `"` + strings.Repeat("x", 300_000) + `"`
		c.Send(harness.Request("block", "first", big))
		harness.Receive(t, entered, "not called")
		c.Send(harness.Request("block", "second", big)) // the first is out of the mailbox
		c.Sync()
		assert.False(t, sc.IsClosed())
		release()
		c.ExpectReply("first", 200, "")
		c.ExpectReply("second", 200, "")
	})
}

// The memory of a mailbox does not grow with the messages that it has seen,
// also if it is never empty.
func TestMailboxMemory(t *testing.T) {
	const waiting, messages = 20, 10_000
	m := harness.NewManager(t)
	var handled []string
	step := make(chan struct{})
	require.NoError(t, m.Register("step", func(_ *ws.Client, msg *ws.Message) error {
		handled = append(handled, msg.RequestID)
		step <- struct{}{}
		return nil
	}))
	c := ws.NewTestClient(m)
	for id := range messages {
		ws.Enqueue(c, []byte(harness.Request("step", strconv.Itoa(id), "")))
		if id >= waiting {
			<-step
		}
	}
	// It may have been another client's before.
	assert.LessOrEqual(t, ws.MailboxCap(c), max(4*waiting, ws.MaxPooledMessages))
	for range waiting {
		<-step
	}
	harness.Shutdown(t, m) // waits for the handler
	require.Len(t, handled, messages)
	for id, got := range handled {
		require.Equal(t, strconv.Itoa(id), got)
	}
}

// hangUp resets the connection. A client that has sent a FIN may still read.
func hangUp(c *harness.Client) {
	if tc, ok := c.Conn.(*tls.Conn); ok {
		c.Conn = tc.NetConn()
	}
	c.Abort()
}

// The messages of clients that have hung up are dropped and counted. Only the
// handlers that run go on, and a healthy client waits for those alone.
func TestHangUpDropsMessages(t *testing.T) {
	const workers, dead, each = 2, 10, 30
	routes := map[string][]ws.RouteOption{"shared pool": nil, "own pool": {ws.RunOn(ws.NewPool(workers))}}
	for route, opts := range routes {
		t.Run(route, func(t *testing.T) {
			harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
				s := start(ws.WithWorkers(workers))
				events := s.Events(ws.EventClientDisconnected)
				entered, release := make(chan struct{}, dead*each+1), make(chan struct{})
				free := sync.OnceFunc(func() { close(release) })
				t.Cleanup(free)
				var late atomic.Int64
				require.NoError(t, s.Register("slow", func(c *ws.Client, msg *ws.Message) error {
					entered <- struct{}{}
					<-release
					if c.Context().Err() == nil && msg.RequestID != "healthy" {
						late.Add(1)
					}
					return c.SendResponse(msg.RequestID, 200, "success", nil)
				}, opts...))
				for i := range dead {
					c := s.Connect()
					for id := range each {
						c.Send(harness.Request("slow", strconv.Itoa(id), ""))
					}
					c.Sync()
					if i < workers {
						harness.Receive(t, entered, "not called")
					}
					hangUp(c)
				}
				harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "not ended")
				for range dead - workers {
					harness.Receive(t, events, "a client waits for a worker while none of its messages is handled")
				}
				assert.Equal(t, uint64(dead*each-workers), s.Stats().Unhandled)
				healthy := s.Connect()
				healthy.Send(harness.Request("slow", "healthy", ""))
				healthy.Sync()
				assert.Empty(t, entered)
				free()
				healthy.ExpectReply("healthy", 200, "")
				assert.Len(t, entered, 1, "messages of clients that have hung up were handled")
				assert.Zero(t, late.Load(), "the context of a client that has hung up had not ended")
				for range workers {
					harness.Receive(t, events, "no disconnect of a client whose handler ran")
				}
				harness.Eventually(t, func() bool { return s.Stats().WaitingTasks == 0 }, "tasks are left")
				assert.Empty(t, events)
				assert.Equal(t, uint64(dead*each-workers), s.Stats().Unhandled)
			})
		})
	}
}

// Clients that have hung up are not kept in line for a worker, however long that takes.
func TestHangUpLeavesTheLine(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithWorkers(1))
		entered, release := make(chan struct{}, 1), make(chan struct{})
		t.Cleanup(sync.OnceFunc(func() { close(release) }))
		require.NoError(t, s.Register("slow", func(*ws.Client, *ws.Message) error {
			entered <- struct{}{}
			<-release
			return nil
		}))
		s.Dial(w).Send(harness.Request("slow", "1", ""))
		harness.Receive(t, entered, "the handler does not run")
		var clients []*harness.Client
		for range 20 {
			c := s.Dial(w)
			c.Send(harness.Request("slow", "1", ""))
			clients = append(clients, c)
		}
		harness.Eventually(t, func() bool { return s.Stats().WaitingTasks == len(clients) }, "not all wait")
		for _, c := range clients {
			hangUp(c)
		}
		harness.Eventually(t, func() bool { return s.Stats().WaitingTasks == 0 }, "the dead wait for a worker")
		harness.Eventually(t, func() bool { return s.Stats().Unhandled == uint64(len(clients)) }, "not all are counted")
	})
}
