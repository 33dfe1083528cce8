package ws_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Each event comes with its client, its data and its time.
func TestEvents(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		events := s.Events(ws.EventClientConnected, ws.EventClientDisconnected, ws.EventMessageReceived,
			ws.EventMessageSent, ws.EventRoomJoined, ws.EventRoomLeft, ws.EventError)
		c, sc := s.DialClient(w)
		next := func(want ws.EventType) ws.Event {
			t.Helper()
			e := harness.Receive(t, events, "no %s", want)
			require.Equal(t, want, e.Type)
			assert.Equal(t, sc.ID, e.ClientID)
			assert.WithinDuration(t, time.Now(), e.Time, harness.Patience)
			return e
		}
		next(ws.EventClientConnected)

		c.Send(harness.Request("greet", "7", `{"name":"Ann"}`))
		c.ExpectReply("7", 200, "")
		m, ok := next(ws.EventMessageReceived).Data.(*ws.Message)
		require.True(t, ok)
		assert.Equal(t, "greet", m.Event)
		assert.Equal(t, "7", m.RequestID)
		assert.JSONEq(t, `{"name":"Ann"}`, string(m.Data))
		next(ws.EventMessageSent)

		require.NoError(t, sc.JoinRoom("a"))
		assert.Equal(t, "a", next(ws.EventRoomJoined).Data)
		require.ErrorIs(t, sc.JoinRoom("a"), ws.ErrAlreadyInRoom) // no event
		sc.LeaveRoom("a")
		assert.Equal(t, "a", next(ws.EventRoomLeft).Data)
		sc.LeaveRoom("a") // no event
		require.NoError(t, sc.JoinRoom("b"))
		assert.Equal(t, "b", next(ws.EventRoomJoined).Data)
		s.DeleteRoom("b")
		assert.Equal(t, "b", next(ws.EventRoomLeft).Data)
		require.NoError(t, sc.JoinRoom("c"))
		assert.Equal(t, "c", next(ws.EventRoomJoined).Data)

		c.Send(harness.Request("greet", "8", `{"name":"secret"}`))
		c.ExpectReply("8", 500, "")
		next(ws.EventMessageReceived)
		err, ok := next(ws.EventError).Data.(error)
		require.True(t, ok)
		assert.ErrorContains(t, err, "hunter2", "the server's side learns the text")
		next(ws.EventMessageSent)

		c.SendClose(1000, "bye")
		assert.Equal(t, "c", next(ws.EventRoomLeft).Data)
		end, ok := next(ws.EventClientDisconnected).Data.(*ws.CloseError)
		require.True(t, ok)
		assert.Equal(t, 1000, end.Code)
		// A subscriber may keep the data of an event.
		assert.Equal(t, "greet", m.Event)
		assert.JSONEq(t, `{"name":"Ann"}`, string(m.Data))
	})
}

func TestCloseErrors(t *testing.T) {
	tests := []struct {
		name string
		end  func(c *harness.Client, sc *ws.Client)
		want ws.CloseError
		err  bool // Err is set
	}{
		{
			"client closes", func(c *harness.Client, _ *ws.Client) { c.SendClose(4321, "bored") },
			ws.CloseError{Code: 4321, Reason: "bored", Remote: true},
			false,
		},
		{
			"client closes without a code", func(c *harness.Client, _ *ws.Client) { c.WriteRaw(harness.Frame(8, "")) },
			ws.CloseError{Code: 1005, Remote: true},
			false,
		},
		{"server closes", func(c *harness.Client, sc *ws.Client) {
			sc.CloseWithCode(4000, "enough")
			c.ExpectClose(4000)
			c.SendClose(1000, "fine")
		}, ws.CloseError{Code: 4000, Reason: "enough"}, false},
		{"server closes with Close", func(c *harness.Client, sc *ws.Client) {
			sc.Close()
			c.ExpectClose(1000)
			c.SendClose(1000, "")
		}, ws.CloseError{Code: 1000}, false},
		{"reset", func(c *harness.Client, _ *ws.Client) { c.Abort() }, ws.CloseError{Code: 1006}, true},
		{
			"end of the stream without a close frame", func(c *harness.Client, _ *ws.Client) { _ = c.Close() },
			ws.CloseError{Code: 1006},
			true,
		},
		{"protocol error", func(c *harness.Client, _ *ws.Client) {
			c.WriteRaw("\xc1\x80\x00\x00\x00\x00") // a reserved bit
			c.ExpectClose(1002)
			_ = c.Close()
		}, ws.CloseError{Code: 1002}, true},
		{"unmasked frame", func(c *harness.Client, _ *ws.Client) {
			c.WriteRaw("\x81\x01x")
			c.ExpectClose(1002)
			_ = c.Close()
		}, ws.CloseError{Code: 1002}, true},
		{"invalid UTF-8", func(c *harness.Client, _ *ws.Client) {
			c.Send("\xff")
			c.ExpectClose(1007)
			_ = c.Close()
		}, ws.CloseError{Code: 1007}, true},
	}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		ends := s.Events(ws.EventClientDisconnected)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c, sc := s.DialClient(w)
				tt.end(c, sc)
				e := harness.Receive(t, ends, "no EventClientDisconnected")
				assert.Equal(t, sc.ID, e.ClientID)
				got, ok := e.Data.(*ws.CloseError)
				require.True(t, ok, "Data is a %T", e.Data)
				assert.Equal(t, tt.want.Code, got.Code)
				assert.Equal(t, tt.want.Remote, got.Remote)
				if !tt.err {
					assert.Equal(t, tt.want.Reason, got.Reason)
				}
				if tt.want.Code != 1006 {
					assert.Equal(t, tt.err, got.Err != nil, "Err is %v", got.Err)
				}
				assert.Contains(t, got.Error(), fmt.Sprint(tt.want.Code))
			})
		}
		assert.Empty(t, ends, "one end for each connection")
	})
}

// A subscriber's panic is its own.
func TestSubscriberPanics(t *testing.T) {
	s := harness.Start(t)
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { panic("subscriber") })
	after := s.Events(ws.EventClientConnected)
	for range 3 {
		_, sc := s.DialClient(harness.Native)
		assert.Equal(t, sc.ID, harness.Receive(t, after, "the next subscriber was not called").ClientID)
	}
	assert.Zero(t, s.EventBus.GetDroppedEventCount())
}

// While a subscriber hangs, connects and disconnects are kept, the other events
// are dropped and counted, and the connections are served.
func TestDroppedEvents(t *testing.T) {
	s := harness.Start(t, ws.WithHandlerMode(ws.Inline))
	harness.RegisterGreetings(t, s.Manager)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	t.Cleanup(func() {
		select {
		case <-release:
		default:
			close(release)
		}
	})
	var connected, disconnected, joined atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) {
		if connected.Add(1) == 1 {
			entered <- struct{}{}
			<-release
		}
	})
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { disconnected.Add(1) })
	s.Subscribe(ws.EventRoomJoined, func(ws.Event) { joined.Add(1) })
	s.Subscribe(ws.EventRoomLeft, func(ws.Event) { joined.Add(1) })
	c, sc := s.DialClient(harness.Native)
	harness.Receive(t, entered, "no event")
	var rooms int64
	for s.EventBus.GetDroppedEventCount() == 0 && rooms < 1_000_000 {
		require.NoError(t, sc.JoinRoom("r"))
		sc.LeaveRoom("r")
		rooms += 2
	}
	require.Positive(t, s.EventBus.GetDroppedEventCount(), "the bus has no bound")
	const more = 50
	for i := range more { // the bus is full
		other := s.Dial([]harness.Way{harness.Native, harness.NetHTTP}[i%2])
		other.Abort()
	}
	harness.Eventually(t, func() bool { return s.GetClientCount() == 1 }, "the loops are held up")
	c.Send(harness.Request("only", "1", ""))
	c.ExpectReply("1", 200, "")
	dropped := s.EventBus.GetDroppedEventCount()
	close(release)
	harness.Eventually(t, func() bool { return connected.Load() == more+1 && disconnected.Load() == more },
		"%d connects and %d disconnects", connected.Load(), disconnected.Load())
	assert.Equal(t, rooms, joined.Load()+dropped, "every event is delivered or counted")
	assert.Equal(t, dropped, s.Stats().DroppedEvents)
	s.EventBus.ResetDroppedEventCount()
	assert.Zero(t, s.EventBus.GetDroppedEventCount())
}

// A disconnect comes after all of the client's messages were handled.
func TestDisconnectComesLast(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		var handled atomic.Int64
		require.NoError(t, s.Register("work", func(*ws.Client, *ws.Message) error {
			handled.Add(1)
			return nil
		}))
		atEnd := make(chan int64, 1)
		s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { atEnd <- handled.Load() })
		for i := range int64(20) {
			c := s.Dial(w)
			var b string
			for range 50 {
				b += harness.Frame(1, harness.Request("work", "", ""))
			}
			c.WriteRaw(b + harness.Frame(8, "\x03\xe8"))
			assert.Equal(t, 50*(i+1), harness.Receive(t, atEnd, "no disconnect"))
		}
	})
}

// Events of one client come in the order in which they happened, and the bus hands out waiting
// events before Shutdown returns.
func TestEventsBeforeShutdownReturns(t *testing.T) {
	s := harness.Start(t)
	var connected, disconnected atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { connected.Add(1) })
	s.Subscribe(ws.EventClientDisconnected, func(e ws.Event) {
		assert.Positive(t, connected.Load())
		assert.Equal(t, 1001, e.Data.(*ws.CloseError).Code)
		disconnected.Add(1)
	})
	done := make(chan struct{})
	var conns []*harness.Client
	for i := range 20 {
		conns = append(conns, s.Dial([]harness.Way{harness.Native, harness.NetHTTP}[i%2]))
	}
	go func() {
		defer close(done)
		s.Stop()
	}()
	for _, c := range conns {
		c.ExpectClose(1001)
		c.Finish(1001)
	}
	harness.Receive(t, done, "Shutdown did not return")
	assert.EqualValues(t, 20, connected.Load())
	assert.EqualValues(t, 20, disconnected.Load())
}

// While subscribers are far behind, no client is taken in, so that the connects and
// disconnects, which are never dropped, are bounded.
func TestConnectsAreRefusedWhileSubscribersAreBehind(t *testing.T) {
	const most = ws.MaxQueuedEvents
	s := harness.Start(t, ws.WithMaxConnections(10))
	release := make(chan struct{})
	resume := sync.OnceFunc(func() { close(release) })
	t.Cleanup(resume)
	var connects, disconnects atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) {
		<-release
		connects.Add(1)
	})
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { disconnects.Add(1) })
	s.Dial(harness.Native)
	harness.Eventually(t, func() bool { return ws.QueuedLifecycle(s.Manager) == 0 }, "no event is handed out")
	ws.FillEventBus(s.Manager, ws.EventClientDisconnected, most-1)
	s.Dial(harness.NetHTTP) // the last
	for _, w := range []harness.Way{harness.Native, harness.NetHTTP} {
		c := s.DialTCP(w)
		c.WriteRaw(harness.UpgradeRequest("/ws", ""))
		resp, body := c.ReadResponse()
		assert.Equal(t, 503, resp.StatusCode, body)
	}
	resume()
	harness.Eventually(t, func() bool { return connects.Load() == 2 && disconnects.Load() == most-1 },
		"events are missing")
	s.Dial(harness.Native)
	s.Dial(harness.NetHTTP)
}

// While a subscriber hangs, the messages that wait for it are bounded in bytes,
// and the others are dropped and counted.
func TestEventBusIsBoundedInBytes(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		entered, release := make(chan struct{}, 1), make(chan struct{})
		var kept, others atomic.Int64
		s.Subscribe(ws.EventMessageReceived, func(e ws.Event) {
			if kept.Add(int64(len(e.Data.(*ws.Message).Data))) == 1 {
				entered <- struct{}{}
				<-release
			}
		})
		s.Subscribe(ws.EventClientConnected, func(ws.Event) { others.Add(1) })
		resume := sync.OnceFunc(func() { close(release) })
		t.Cleanup(resume)
		require.NoError(t, s.Register("store", func(c *ws.Client, msg *ws.Message) error {
			return c.SendResponse(msg.RequestID, 200, "success", nil)
		}))
		c := s.Dial(w)
		c.Send(harness.Request("store", "1", "1"))
		c.ExpectReply("1", 200, "")
		harness.Receive(t, entered, "no event")
		const length, messages = 400 << 10, 40 // 16 MB
		data := `"` + strings.Repeat("x", length-2) + `"`
		for range messages {
			c.Send(harness.Request("store", "2", data))
			c.ExpectReply("2", 200, "")
		}
		s.Dial(w) // a connect is kept, however much waits
		dropped := s.EventBus.GetDroppedEventCount()
		assert.Positive(t, dropped, "all of %d bytes wait", length*messages)
		resume()
		harness.Eventually(t, func() bool { return others.Load() == 2 && kept.Load() == 1+(messages-dropped)*length },
			"%d bytes and %d connects", kept.Load(), others.Load())
		assert.LessOrEqual(t, kept.Load(), int64(ws.MaxQueuedEventBytes))
		assert.Greater(t, kept.Load(), int64(ws.MaxQueuedEventBytes-2*length), "the space is used")
		c.Send(harness.Request("store", "3", data))
		c.ExpectReply("3", 200, "")
		harness.Eventually(t, func() bool { return kept.Load() == 1+(messages-dropped+1)*length },
			"the space is not given back")
	})
}

// A bus that has delivered its events does not keep them.
func TestEventBusKeepsNothing(t *testing.T) {
	s := harness.Start(t)
	var last atomic.Pointer[weak.Pointer[ws.Message]]
	var count atomic.Int64
	s.Subscribe(ws.EventMessageReceived, func(e ws.Event) {
		p := weak.Make(e.Data.(*ws.Message))
		last.Store(&p)
		count.Add(1)
	})
	harness.RegisterGreetings(t, s.Manager)
	c := s.Dial(harness.Native)
	c.Send(harness.Request("only", "1", ""))
	c.ExpectReply("1", 200, "")
	harness.Eventually(t, func() bool {
		if count.Load() == 0 {
			return false
		}
		runtime.GC()
		return last.Load().Value() == nil
	}, "the bus keeps the last message")
}

// A message that is larger than all the space waits alone.
func TestEventBusTakesOneLargeMessage(t *testing.T) {
	const length = ws.MaxQueuedEventBytes + 1
	s := harness.Start(t, ws.WithMessageSizeLimit(2*length), ws.WithHandlerMode(ws.Inline))
	events := s.Events(ws.EventMessageReceived)
	harness.RegisterGreetings(t, s.Manager)
	c := s.Dial(harness.Native)
	c.Send(harness.Request("only", "1", `"`+strings.Repeat("x", length)+`"`))
	c.ExpectReply("1", 200, "")
	e := harness.Receive(t, events, "no event")
	assert.Len(t, e.Data.(*ws.Message).Data, length+2)
}

// A subscriber that ends its goroutine ends no more than its own call.
func TestSubscriberEndsItsGoroutine(t *testing.T) {
	s := harness.Start(t)
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { runtime.Goexit() })
	disconnected := s.Events(ws.EventClientDisconnected)
	for range 3 {
		c, sc := s.DialClient(harness.Native)
		c.Abort()
		assert.Equal(t, sc.ID, harness.Receive(t, disconnected, "the bus has ended").ClientID)
	}
}

// The queue against a list, and its bounds.
func TestEventQueue(t *testing.T) {
	var q ws.EventQueue
	var model []int
	rng := rand.New(rand.NewPCG(1, 2))
	next, bytes := 0, 0
	for round := range 10 {
		for range 2_000 {
			if rng.IntN(10) < 4+round%2*3 {
				m := &ws.Message{Timestamp: int64(next), Data: make([]byte, rng.IntN(3)*100)}
				q.Push(m)
				model = append(model, next)
				next++
			} else if len(model) > 0 {
				m, n := q.Pop()
				require.Equal(t, model[0], int(m.Timestamp))
				require.GreaterOrEqual(t, n, len(m.Data))
				model, bytes = model[1:], bytes+n
			}
			require.Equal(t, len(model), q.Len())
		}
	}
	for len(model) > 0 {
		_, n := q.Pop()
		model, bytes = model[1:], bytes+n
	}
	assert.Equal(t, bytes, q.Bytes(), "as much as was pushed")
	assert.False(t, q.HasMemory())
}
