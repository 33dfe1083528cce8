//go:build !race

package integration_test

import (
	"io"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// mallocs returns how many objects the process allocates while fn runs: the fewest of three times, because
// others allocate, too.
func mallocs(fn func()) (fewest uint64) {
	fewest = math.MaxUint64
	for range 3 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		fn()
		runtime.ReadMemStats(&after)
		fewest = min(fewest, after.Mallocs-before.Mallocs)
	}
	return fewest
}

// An inline raw echo allocates nothing, on either side.
func TestEchoDoesNotAllocate(t *testing.T) {
	t.Run("no limit", func(t *testing.T) { echoDoesNotAllocate(t, ws.RateLimit{}) })
	t.Run("rate limit", func(t *testing.T) { echoDoesNotAllocate(t, ws.RateLimit{Messages: 1e9, Bytes: 1e12}) })
}

func echoDoesNotAllocate(t *testing.T, limit ws.RateLimit) {
	test := func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithHandlerMode(ws.Inline), ws.WithRateLimit(limit))
		s.HandleRaw(harness.Echo)
		c := s.Dial(w)
		request := []byte(harness.Frame(2, string(make([]byte, 512))))
		reply := make([]byte, 4+512)
		run := func(n int) {
			for range n {
				if _, err := c.Write(request); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(c.Conn, reply); err != nil {
					t.Error(err)
				}
			}
		}
		run(1000)
		const n = 10_000
		assert.Less(t, float64(mallocs(func() { run(n) }))/n, 0.05, "allocations for each message")
	}
	harness.OnBothWays(t, test)
	t.Run(string(harness.Served), func(t *testing.T) { test(t, harness.Served) })
}

// A typed request allocates four objects: its value, the two strings of it, and its
// request_id. The response allocates none.
func TestTypedRequestAllocations(t *testing.T) {
	s := harness.Start(t, ws.WithHandlerMode(ws.Inline))
	type said struct{ Room, Text string }
	require.NoError(t, ws.Handle(s.Manager, "say", func(_ *ws.Client, req *said) (*said, error) { return req, nil }))
	c := s.Dial(harness.Native)
	message := harness.Request("say", "req_1", `{"room":"lobby","text":"hello, everybody"}`)
	c.Send(message)
	answer := make([]byte, 4+len(c.Next().Payload))
	request := []byte(harness.Frame(1, message))
	run := func(n int) {
		for range n {
			if _, err := c.Write(request); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c.Conn, answer); err != nil {
				t.Error(err)
			}
		}
	}
	run(1000)
	const n = 5000
	assert.LessOrEqual(t, float64(mallocs(func() { run(n) }))/n, 4.1, "allocations for each request")
}

// Middleware allocates nothing: a message through three of them costs as many objects as
// without.
func TestMiddlewareDoesNotAllocate(t *testing.T) {
	t.Setenv("WS_OWN_WAITS", "off") // with them some messages share a hand-over, and its objects
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		reply := []byte("reply")
		require.NoError(t, s.Register("a", func(c *ws.Client, _ *ws.Message) error { return c.SendBytes(reply) }))
		c := s.Dial(w)
		message := []byte(harness.Frame(1, harness.Request("a", "req_1", `{"n":1}`)))
		answer := make([]byte, 2+len(reply))
		run := func(n int) {
			for range n {
				if _, err := c.Write(message); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(c.Conn, answer); err != nil {
					t.Error(err)
				}
			}
		}
		const n = 5000
		run(n)
		without := float64(mallocs(func() { run(n) })) / n
		pass := func(_ *ws.Client, _ *ws.Message, next ws.NextFunc) error { return next() }
		require.NoError(t, s.Use(pass, pass, pass))
		run(n)
		with := float64(mallocs(func() { run(n) })) / n
		assert.InDelta(t, without, with, 0.05, "allocations for each message")
		t.Logf("%.2f without, %.2f with three", without, with)
	})
}

// A fan-out allocates for the message, not for its members.
func TestFanOutDoesNotAllocate(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const members, publishes, length = 1000, 20, 512
		s := harness.Start(t)
		var conns []*harness.Client
		for range members {
			c, sc := s.DialClient(w)
			require.NoError(t, sc.JoinRoom("r"))
			conns = append(conns, c)
		}
		message := make([]byte, length)
		buf := make([]byte, 4+length)
		run := func(n int) {
			for range n {
				if err := s.BroadcastToRoom("r", message, nil); err != nil {
					t.Error(err)
				}
				for _, c := range conns {
					if _, err := io.ReadFull(c.Conn, buf); err != nil {
						t.Error(err)
					}
				}
			}
		}
		run(5)
		assert.Less(t, float64(mallocs(func() { run(publishes) }))/(publishes*members), 0.05, "allocations for each delivery")
	})
}

// An event that nobody subscribed to costs nothing: none is made for a send.
func TestUnwantedEventsDoNotAllocate(t *testing.T) {
	s := harness.Start(t, ws.WithMessageQueueSize(1))
	_, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	payload := []byte("x")
	p := ws.Prepare(ws.OpText, payload)
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = sc.SendPrepared(p) }), "a send that is refused")
}
