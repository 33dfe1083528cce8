package ws_test

import (
	"net/http"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// histogram returns the histogram of that name and event.
func histogram(t *testing.T, m *ws.Manager, name, event string) ws.Histogram {
	t.Helper()
	st := m.Stats()
	for h := range st.Histograms() {
		if h.Name == name && h.Event == event {
			return h
		}
	}
	require.Fail(t, "no such histogram", "%s %q", name, event)
	return ws.Histogram{}
}

// awaitCount waits until the histogram has n values, and returns it.
func awaitCount(t *testing.T, m *ws.Manager, name, event string, n uint64) (h ws.Histogram) {
	t.Helper()
	harness.Eventually(t, func() bool {
		h = histogram(t, m, name, event)
		return h.Count() >= n
	}, "%s %q has %d values", name, event, h.Count())
	assert.Equal(t, n, h.Count(), "%s %q", name, event)
	return h
}

func TestHistograms(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		const pause = 20 * time.Millisecond
		require.NoError(t, ws.Handle0(s.Manager, "pause", func(*ws.Client, *struct{}) error {
			time.Sleep(pause) //nolint:forbidigo // the time that is to be measured
			return nil
		}))
		c, sc := s.DialClient(w)
		handshake := awaitCount(t, s.Manager, "handshake_seconds", "", 1)
		assert.Positive(t, handshake.Sum)

		for _, request := range []string{
			harness.Request("pause", "1", "{}"), harness.Request("pause", "2", "{}"),
			harness.Request("only", "3", ""), harness.Request("made up", "4", ""), "no JSON",
		} {
			c.Send(request)
			c.Next()
		}
		paused := awaitCount(t, s.Manager, "handler_seconds", "pause", 2)
		assert.GreaterOrEqual(t, paused.Sum, 2*pause.Seconds())
		assert.Zero(t, paused.Counts[0], "a pause is no fast call")
		awaitCount(t, s.Manager, "handler_seconds", "only", 1)
		awaitCount(t, s.Manager, "handler_seconds", "other", 2)
		awaitCount(t, s.Manager, "handler_seconds", "greet", 0)
		waits := histogram(t, s.Manager, "mailbox_wait_seconds", "")
		assert.Contains(t, []uint64{0, 5}, waits.Count(), "5 pooled messages, or none")

		require.NoError(t, sc.JoinRoom("r"))
		require.NoError(t, s.BroadcastToRoom("r", []byte("x"), nil))
		c.Expect("x")
		published := awaitCount(t, s.Manager, "publish_seconds", "", 1)
		assert.Positive(t, published.Sum)
		assert.Less(t, published.Sum, time.Minute.Seconds())
	})
}

// A mailbox wait lasts as long as the handlers before it.
func TestMailboxWait(t *testing.T) {
	s := harness.Start(t, ws.WithWorkers(1))
	release := make(chan struct{})
	require.NoError(t, ws.Handle0(s.Manager, "e", func(*ws.Client, *struct{}) error {
		<-release
		return nil
	}))
	c, sc := s.DialClient(harness.Native)
	c.Send(harness.Request("e", "1", "{}"))
	awaitCount(t, s.Manager, "mailbox_wait_seconds", "", 1)
	c.Send(harness.Request("e", "2", "{}"))
	harness.Eventually(t, func() bool { return sc.Info().Unhandled == 1 }, "not received")
	time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the time that is to be measured
	close(release)
	h := awaitCount(t, s.Manager, "mailbox_wait_seconds", "", 2)
	assert.GreaterOrEqual(t, h.Sum, 0.05)
}

// The messages of raw handlers have histograms of their own.
func TestHandlerTimesOfRawMessages(t *testing.T) {
	s := harness.Start(t)
	s.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBytes(payload) })
	c := s.Dial(harness.Native)
	c.WriteRaw(harness.Frame(gobwas.OpBinary, "x"))
	c.Expect("x")
	awaitCount(t, s.Manager, "handler_seconds", "binary", 1)
	s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	c.Send("y")
	c.Expect("y")
	awaitCount(t, s.Manager, "handler_seconds", "raw", 1)
}

// Clients choose the names of unknown events, and none becomes a histogram.
func TestUnknownEventsAreNoHistograms(t *testing.T) {
	s := harness.Start(t)
	require.NoError(t, ws.Handle0(s.Manager, "other", func(*ws.Client, *struct{}) error { return nil }))
	c := s.Dial(harness.Native)
	c.Send(harness.Request("made up", "1", "{}"))
	c.ExpectReply("1", 404, "")
	c.Send(harness.Request("other", "2", "{}"))
	c.ExpectReply("2", 200, "")
	awaitCount(t, s.Manager, "handler_seconds", "other", 2)
	st := s.Stats()
	require.Len(t, st.Routes, 1)
	for range st.Histograms() {
		break // ends the sequence
	}
}

// The pong to a ping of the heartbeat measures the round trip, once.
func TestRoundTripHistogram(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		s := start(ws.WithHeartbeatInterval(time.Second), ws.WithHeartbeatTimeout(2*time.Minute))
		c := s.Connect()
		c.WriteRaw(harness.Frame(gobwas.OpPong, "junk") + harness.Frame(gobwas.OpPong, ""))
		f := c.ReadFrame()
		require.Equal(t, gobwas.OpPing, f.Header.OpCode)
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the time that is to be measured
		pong := harness.Frame(gobwas.OpPong, string(f.Payload))
		c.WriteRaw(harness.Frame(gobwas.OpPong, "junk") + pong + pong)
		h := awaitCount(t, s.Manager, "round_trip_seconds", "", 1)
		assert.GreaterOrEqual(t, h.Sum, 0.02)
		assert.Less(t, h.Sum, time.Minute.Seconds())
	})
}

// A close counts by the code of its frame, and 1006 without one.
func TestClosesByCode(t *testing.T) {
	for _, w := range []harness.Way{harness.Native, harness.NetHTTP} {
		s := harness.Start(t)
		for _, code := range []int{1000, 1001, 3333, 4409} {
			c := s.Dial(w)
			c.SendClose(code, "")
			c.ExpectEOF()
		}
		c, sc := s.DialClient(w)
		sc.CloseWithCode(4000, "")
		c.ExpectClose(4000)
		_ = c.Close()
		c = s.Dial(w)
		c.WriteRaw("\x81\x01x") // not masked
		c.ExpectClose(1002)
		_ = c.Close()
		s.Dial(w).Abort()
		want := ws.CloseCounts{Code1000: 1, Code1001: 1, Code1002: 1, Code1006: 1, Code3xxx: 1, Code4xxx: 2}
		harness.Eventually(t, func() bool { return s.Stats().Total.Closes == want }, "%+v", s.Stats().Total.Closes)
		assert.EqualValues(t, 7, s.Stats().Total.Closed)
	}
}

// The queues of blocked clients are counted in bytes.
func TestQueuedBytesOfBlockedClients(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue)
	_, sc := s.DialClient(harness.Native)
	s.Stall(sc)
	require.NoError(t, sc.SendBytes(make([]byte, 100<<10)))
	harness.Eventually(t, func() bool {
		h := histogram(t, s.Manager, "queued_bytes", "")
		return h.Count() > 0 && h.Sum/float64(h.Count()) > 0
	}, "no queue is counted")
}

// A stalled member is not waited for: the others have the message.
func TestPublishTimeWithoutStalledMembers(t *testing.T) {
	s := harness.Start(t, harness.WithDeepQueue)
	_, stalled := s.DialClient(harness.Native)
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, stalled.JoinRoom("r"))
	require.NoError(t, sc.JoinRoom("r"))
	s.Stall(stalled)
	before := histogram(t, s.Manager, "publish_seconds", "")
	require.NoError(t, s.BroadcastToRoom("r", []byte("x"), nil))
	c.Expect("x")
	awaitCount(t, s.Manager, "publish_seconds", "", before.Count()+1)
}

// A connection that moves to the loop of its placement counts once, with the time of both loops.
func TestHandshakeTimeOfPlacedClients(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const delay = 5 * time.Millisecond
		s := harness.Start(t, ws.WithLoops(4), ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) {
			time.Sleep(delay) //nolint:forbidigo // the time that is to be measured
			return []ws.ClientOption{ws.WithPlacement("room")}, nil
		}))
		for range 8 {
			s.Dial(w)
		}
		h := awaitCount(t, s.Manager, "handshake_seconds", "", 8)
		assert.GreaterOrEqual(t, h.Sum, 8*delay.Seconds())
		s.Status(w, "Origin: https://elsewhere.example\r\n")
		awaitCount(t, s.Manager, "handshake_seconds", "", 8)
	})
}

// On a simulated network the times are those of its clock.
func TestHistogramsOnANetwork(t *testing.T) {
	network := wstest.NewNetwork(t)
	m, err := ws.NewManager(network.Option(), ws.WithHandlerMode(ws.Inline))
	require.NoError(t, err)
	require.NoError(t, ws.Handle0(m, "e", func(*ws.Client, *struct{}) error { return nil }))
	c := network.Start(m).Dial(nil)
	c.Request("e", struct{}{})
	for range 30 {
		network.Advance(time.Second)
	}
	assert.EqualValues(t, 1, awaitCount(t, m, "handshake_seconds", "", 1).Counts[0])
	assert.EqualValues(t, 1, awaitCount(t, m, "round_trip_seconds", "", 1).Counts[0])
	awaitCount(t, m, "handler_seconds", "e", 1)
}
