package integration_test

import (
	"fmt"
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

// Where a handler runs does not change the order of one connection's messages.
func TestOrderOfOneConnection(t *testing.T) {
	tests := []struct {
		name         string
		mode         ws.HandlerMode
		slow, inline []ws.RouteOption
	}{
		{"pooled", ws.Pooled, nil, nil},
		{"inline", ws.Inline, nil, nil},
		{"pooled, one route inline", ws.Pooled, nil, []ws.RouteOption{ws.RunInline()}},
		{"inline, one route pooled", ws.Inline, []ws.RouteOption{ws.RunPooled()}, nil},
		{"both routes say", ws.Inline, []ws.RouteOption{ws.RunPooled()}, []ws.RouteOption{ws.RunInline()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, ws.WithHandlerMode(tt.mode),
					func(c *ws.Config) { c.MailboxSize, c.MessageQueueSize = 10_000, 10_000 })
				var running sync.Map // a client's messages never run at the same time
				handler := func(c *ws.Client, req *int) (*int, error) {
					if _, busy := running.LoadOrStore(c.ID, true); busy {
						return nil, ws.NewClientError(500, "two at a time")
					}
					defer running.Delete(c.ID)
					return req, nil
				}
				require.NoError(t, ws.Handle(s.Manager, "slow", handler, tt.slow...))
				require.NoError(t, ws.Handle(s.Manager, "inline", handler, tt.inline...))
				const n, conns = 300, 4
				var wg sync.WaitGroup
				for range conns {
					c := s.Dial(w)
					var b strings.Builder
					for i := range n {
						event := "slow"
						if i%5 > 2 {
							event = "inline"
						}
						b.WriteString(harness.Frame(1, harness.Request(event, strconv.Itoa(i), strconv.Itoa(i))))
					}
					wg.Go(func() {
						stream := b.String()
						for len(stream) > 0 {
							k := min(len(stream), 1000)
							if _, err := c.Write([]byte(stream[:k])); !assert.NoError(t, err) {
								return
							}
							stream = stream[k:]
						}
					})
					defer func() {
						for i := range n {
							assert.Equal(t, strconv.Itoa(i), c.ExpectReply(strconv.Itoa(i), 200, ""))
						}
					}()
				}
				wg.Wait()
			})
		})
	}
}

// A pooled handler that blocks holds up its own connection, and no other one,
// on the same loop or not.
func TestBlockingHandler(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithLoops(1))
		harness.RegisterGreetings(t, s.Manager)
		entered, release := make(chan string, 100), make(chan struct{})
		free := sync.OnceFunc(func() { close(release) })
		t.Cleanup(free)
		require.NoError(t, s.Register("block", func(c *ws.Client, m *ws.Message) error {
			entered <- c.ID
			<-release
			return c.SendResponse(m.RequestID, 200, "success", nil)
		}))
		var blocked []*harness.Client
		for range 20 { // all block at the same time
			c := s.Dial(w)
			c.Send(harness.Request("block", "b", ""), harness.Request("only", "after", ""))
			harness.Receive(t, entered, "handlers of different connections do not run in parallel")
			blocked = append(blocked, c)
		}
		other, otherClient := s.DialClient(w)
		for range 10 {
			other.Send(harness.Request("only", "1", ""))
			other.ExpectReply("1", 200, "")
		}
		require.NoError(t, otherClient.JoinRoom("r"))
		s.BroadcastAll([]byte("all"))
		other.Expect("all")
		free()
		for _, c := range blocked {
			c.Expect("all")
			c.ExpectReply("b", 200, "")
			c.ExpectReply("after", 200, "")
		}
	})
}

// A route that runs inline answers while the workers are all busy.
func TestRunInlineNeedsNoWorker(t *testing.T) {
	s := harness.Start(t, func(c *ws.Config) { c.Workers = 1 })
	entered, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	require.NoError(t, s.Register("block", func(*ws.Client, *ws.Message) error {
		close(entered)
		<-release
		return nil
	}))
	nothing := func(*ws.Client) (*int, error) { return nil, nil }
	require.NoError(t, ws.HandleOnly(s.Manager, "inline", nothing, ws.RunInline()))
	require.NoError(t, ws.HandleOnly(s.Manager, "pooled", nothing))
	blocker, c := s.Dial(harness.Native), s.Dial(harness.NetHTTP)
	blocker.Send(harness.Request("block", "1", ""))
	harness.Receive(t, entered, "not called")
	for range 10 {
		c.Send(harness.Request("inline", "2", ""))
		c.ExpectReply("2", 200, "")
	}
	c.Send(harness.Request("pooled", "3", ""))
	harness.Eventually(t, func() bool { return s.Stats().WaitingTasks == 1 }, "%d tasks wait", s.Stats().WaitingTasks)
}

// Pooled handlers may call everything of their client and manager.
func TestHandlersCallBack(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		require.NoError(t, ws.HandleOnly(s.Manager, "all", func(c *ws.Client) (*[]string, error) {
			if err := c.JoinRoom("r"); err != nil {
				return nil, err
			}
			if err := s.BroadcastToRoom("r", []byte("room"), nil); err != nil {
				return nil, err
			}
			s.BroadcastAll([]byte("all"))
			if err := c.SendBytes([]byte("direct")); err != nil {
				return nil, err
			}
			rooms := c.GetRooms()
			c.LeaveRoom("r")
			s.DeleteRoom("r")
			_ = s.Stats()
			return &rooms, nil
		}))
		c := s.Dial(w)
		for range 50 {
			c.Send(harness.Request("all", "1", ""))
			c.Expect("room", "all", "direct")
			assert.JSONEq(t, `["r"]`, c.ExpectReply("1", 200, ""))
		}
	})
}

// A full mailbox is none: as many messages as it holds may wait.
func TestMailboxHolds(t *testing.T) {
	s := harness.Start(t)
	entered, release := make(chan struct{}, 100), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	require.NoError(t, s.Register("block", func(c *ws.Client, m *ws.Message) error {
		if m.RequestID == "first" {
			entered <- struct{}{}
			<-release
		}
		return c.SendResponse(m.RequestID, 200, "success", nil)
	}))
	c := s.Dial(harness.Native)
	c.Send(harness.Request("block", "first", ""))
	harness.Receive(t, entered, "not called")
	for i := range 64 {
		c.Send(harness.Request("block", fmt.Sprint(i), ""))
	}
	harness.Eventually(t, func() bool { return s.Stats().Total.MessagesIn == 65 }, "not received")
	free()
	c.ExpectReply("first", 200, "")
	for i := range 64 {
		c.ExpectReply(fmt.Sprint(i), 200, "")
	}
}

// After CloseWithCode no message is handled any more, as its comment says.
func TestNoMessageIsHandledAfterClose(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		var late atomic.Int64
		require.NoError(t, s.Register("close", func(c *ws.Client, _ *ws.Message) error {
			c.Close()
			return nil
		}))
		require.NoError(t, s.Register("late", func(*ws.Client, *ws.Message) error {
			late.Add(1)
			return nil
		}))
		ends := s.Events(ws.EventClientDisconnected)
		for range 10 {
			c := s.Dial(w)
			c.Send(harness.Request("close", "1", ""), harness.Request("late", "2", ""), harness.Request("late", "3", ""))
			c.ExpectClose(1000)
			c.Finish(1000)
			harness.Receive(t, ends, "no disconnect") // comes after the last handler
		}
		assert.Zero(t, late.Load(), "messages handled after Close")
	})
}
