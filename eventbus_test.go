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
	"github.com/qi-realtime/ws/internal/harness"
)

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
		harness.Eventually(t, func() bool { return kept.Load() == 1+(messages-dropped+1)*length }, "the space is not given back")
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
