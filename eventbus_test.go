package ws_test

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// While a subscriber hangs, the messages that wait for it are bounded in bytes,
// and the others are dropped and counted.
func TestEventBusIsBoundedInBytes(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
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
		c := s.dial(w)
		c.send(request("store", "1", "1"))
		c.expectReply("1", 200, "")
		receive(t, entered, "no event")
		const length, messages = 400 << 10, 40 // 16 MB
		data := `"` + strings.Repeat("x", length-2) + `"`
		for range messages {
			c.send(request("store", "2", data))
			c.expectReply("2", 200, "")
		}
		s.dial(w) // a connect is kept, however much waits
		dropped := s.EventBus.GetDroppedEventCount()
		assert.Positive(t, dropped, "all of %d bytes wait", length*messages)
		resume()
		eventually(t, func() bool { return others.Load() == 2 && kept.Load() == 1+(messages-dropped)*length },
			"%d bytes and %d connects", kept.Load(), others.Load())
		assert.LessOrEqual(t, kept.Load(), int64(ws.MaxQueuedEventBytes))
		assert.Greater(t, kept.Load(), int64(ws.MaxQueuedEventBytes-2*length), "the space is used")
		c.send(request("store", "3", data))
		c.expectReply("3", 200, "")
		eventually(t, func() bool { return kept.Load() == 1+(messages-dropped+1)*length }, "the space is not given back")
	})
}

// A bus that has delivered its events does not keep them.
func TestEventBusKeepsNothing(t *testing.T) {
	s := start(t)
	var last atomic.Pointer[weak.Pointer[ws.Message]]
	var count atomic.Int64
	s.Subscribe(ws.EventMessageReceived, func(e ws.Event) {
		p := weak.Make(e.Data.(*ws.Message))
		last.Store(&p)
		count.Add(1)
	})
	registerGreetings(t, s.Manager)
	c := s.dial(native)
	c.send(request("only", "1", ""))
	c.expectReply("1", 200, "")
	eventually(t, func() bool {
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
	s := start(t, ws.WithMessageSizeLimit(2*length), ws.WithHandlerMode(ws.Inline))
	events := s.events(ws.EventMessageReceived)
	registerGreetings(t, s.Manager)
	c := s.dial(native)
	c.send(request("only", "1", `"`+strings.Repeat("x", length)+`"`))
	c.expectReply("1", 200, "")
	e := receive(t, events, "no event")
	assert.Len(t, e.Data.(*ws.Message).Data, length+2)
}

// A subscriber that ends its goroutine ends no more than its own call.
func TestSubscriberEndsItsGoroutine(t *testing.T) {
	s := start(t)
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { runtime.Goexit() })
	disconnected := s.events(ws.EventClientDisconnected)
	for range 3 {
		c, sc := s.dialClient(native)
		c.abort()
		assert.Equal(t, sc.ID, receive(t, disconnected, "the bus has ended").ClientID)
	}
}

// The queue against a list, and what it makes of its bounds.
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
