package ws_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestMetrics(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		r := harness.NewRecorder()
		s := harness.Start(t, mode, ws.WithMetrics(r), ws.WithMessageQueueSize(3), harness.WithDeepQueue)
		harness.RegisterGreetings(t, s.Manager)
		check := func(key string, want int) {
			t.Helper()
			harness.Eventually(t, func() bool { return r.Get(key) == want }, "%s: %d, want %d", key, r.Get(key), want)
		}
		c, sc := s.DialClient(w)
		other, otherClient := s.DialClient(w)
		check("connections", 2)
		check("connected", 2)

		for _, message := range []string{
			harness.Request("greet", "1", `{"name":"Ann"}`), harness.Request("greet", "2", `{"name":"forbidden"}`),
			harness.Request("greet", "3", `{"name":"panic"}`), harness.Request("only", "4", ""),
			harness.Request("nobody", "5", ""), "no JSON",
		} {
			c.Send(message)
			c.Next()
		}
		check("messages greet", 3)
		check("messages only", 1)
		check("errors greet", 2)
		check("errors only", 0)
		harness.Eventually(t, func() bool { return r.Get("latency greet") >= 2 }, "no latency")
		check("latency only", 1)
		check("invalid", 1)

		require.NoError(t, sc.JoinRoom("r"))
		require.NoError(t, otherClient.JoinRoom("r"))
		check("rooms", 1)
		check("members r", 2)
		require.NoError(t, s.BroadcastToRoom("r", []byte("x"), nil))
		c.Expect("x")
		other.Expect("x")
		check("broadcasts", 1)
		s.BroadcastAll([]byte("y"))
		check("broadcasts", 2)
		other.Expect("y")
		otherClient.LeaveRoom("r")
		check("members r", 1)
		s.DeleteRoom("r")
		check("members r", 0)
		check("rooms", 0)

		require.NoError(t, sc.JoinRoom("r"))
		check("members r", 1)
		c.Expect("y")
		s.Stall(sc)
		require.NoError(t, sc.SendBytes(nil))
		require.NoError(t, sc.SendBytes(nil))
		require.ErrorIs(t, sc.SendBytes(nil), ws.ErrChannelFull)
		check("dropped", 1)
		require.NoError(t, s.BroadcastToRoom("r", []byte("z"), nil))
		check("dropped", 2)

		other.WriteRaw("\xff\xff") // no frame
		check("invalid", 2)
		other.ExpectClose(1002)
		_ = other.Close()
		check("disconnections", 1)
		check("connected", 1)
		c.Abort()
		check("disconnections", 2)
		check("connected", 0)
		check("members r", 0)
		harness.Eventually(t, func() bool { return r.Get("read errors")+r.Get("write errors") >= 1 }, "a reset is an error")

		for _, key := range r.Keys() {
			assert.NotContains(t, key, "not in nanoseconds")
			assert.False(t, strings.HasPrefix(key, "messages nobody"), "an event without a handler")
		}
	})
}

// Clients choose the names of unknown events: as labels of a metric they would
// grow without bound.
func TestUnknownEventsAreNoLabels(t *testing.T) {
	r := harness.NewRecorder()
	s := harness.Start(t, ws.WithMetrics(r))
	c := s.Dial(harness.Native)
	c.Send(harness.Request("made up by the client", "1", ""))
	c.ExpectReply("1", 404, "")
	for _, key := range r.Keys() {
		assert.NotContains(t, key, "made up")
	}
}

// HandleRaw's messages have no event.
func TestMetricsOfRawMessages(t *testing.T) {
	r := harness.NewRecorder()
	s := harness.Start(t, ws.WithMetrics(r))
	s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	c := s.Dial(harness.Native)
	c.Send("x")
	c.Expect("x")
	harness.Eventually(t, func() bool { return r.Get("messages ") == 1 && r.Get("latency ") == 1 }, "not counted")
}

// NoopMetrics is a Metrics, to be embedded by those that want some methods.
func TestNoopMetrics(t *testing.T) {
	var m ws.Metrics = ws.NoopMetrics{}
	m.IncrementConnections()
	m.DecrementConnections()
	m.SetConnectionCount(1)
	m.IncrementMessageCount("e")
	m.RecordMessageLatency("e", 1)
	m.IncrementMessageErrors("e")
	m.SetRoomCount(1)
	m.SetRoomMemberCount("r", 1)
	m.RecordBroadcastLatency(1)
	m.IncrementDroppedMessages()
	m.IncrementReadErrors()
	m.IncrementWriteErrors()
	m.IncrementInvalidMessages()
}

func TestStats(t *testing.T) {
	s := harness.Start(t, ws.WithLoops(3))
	harness.RegisterGreetings(t, s.Manager)
	var conns []*harness.Client
	for i := range 9 {
		c, sc := s.DialClient([]harness.Way{harness.Native, harness.NetHTTP}[i%2])
		require.NoError(t, sc.JoinRoom("r"))
		conns = append(conns, c)
	}
	require.NoError(t, s.BroadcastToRoom("r", []byte("hello"), nil))
	for _, c := range conns {
		c.Expect("hello")
		c.Send(harness.Request("only", "1", ""))
		c.ExpectReply("1", 200, "")
	}
	conns[0].SendClose(1000, "")
	conns[0].ExpectEOF()
	harness.Eventually(t, func() bool {
		st := s.Stats()
		// Messages are counted behind their write, when the client may have read them.
		return st.Total.Closed == 1 && st.Clients == 8 && st.Total.Connections == 8 && st.Total.MessagesOut >= 18
	}, "not closed, or messages are missing")

	st := s.Stats()
	assert.Equal(t, 1, st.Rooms)
	assert.Equal(t, 9, st.Handlers)
	assert.Zero(t, st.DroppedEvents)
	require.Len(t, st.Loops, 3)
	var sum ws.LoopStats
	for _, loop := range st.Loops {
		sum.Add(&loop)
		assert.Positive(t, loop.Opened, "a loop got no connection")
	}
	assert.Equal(t, sum, st.Total)
	assert.EqualValues(t, 9, st.Total.Opened)
	assert.EqualValues(t, 9, st.Total.MessagesIn)
	assert.Positive(t, st.Total.BytesIn)
	assert.Positive(t, st.Total.BytesOut)
}

// changingMetrics change the count of rooms while it is reported.
type changingMetrics struct {
	ws.NoopMetrics
	manager atomic.Pointer[ws.Manager] // nil while it does not
	calls   atomic.Int64
}

func (m *changingMetrics) SetRoomCount(int) {
	m.calls.Add(1)
	if manager := m.manager.Load(); manager != nil {
		_, _ = manager.CreateRoom("changing", nil)
		manager.DeleteRoom("changing")
	}
}

// A value that changes all the time does not keep a worker from handlers.
func TestGaugeThatChangesAllTheTimeTakesTurns(t *testing.T) {
	var metrics changingMetrics
	s := harness.Start(t, ws.WithMetrics(&metrics), ws.WithWorkers(1))
	require.NoError(t, ws.Handle0(s.Manager, "e", func(*ws.Client, *struct{}) error { return nil }))
	c := s.Dial(harness.Native)
	metrics.manager.Store(s.Manager)
	t.Cleanup(func() { metrics.manager.Store(nil) })
	_, err := s.CreateRoom("r", nil)
	require.NoError(t, err)
	harness.Eventually(t, func() bool { return metrics.calls.Load() > 200 }, "no worker goes on with the reports")
	for n := range 20 {
		c.Send(harness.Request("e", fmt.Sprint(n), "{}"))
		c.ExpectReply(fmt.Sprint(n), 200, "")
	}
}

// panickingMetrics is an application's bug in every method.
type panickingMetrics struct{}

func (panickingMetrics) IncrementConnections() { panic("metrics") }

func (panickingMetrics) DecrementConnections() { panic("metrics") }

func (panickingMetrics) SetConnectionCount(int) { panic("metrics") }

func (panickingMetrics) IncrementMessageCount(string) { panic("metrics") }

func (panickingMetrics) RecordMessageLatency(string, int64) { panic("metrics") }

func (panickingMetrics) IncrementMessageErrors(string) { panic("metrics") }

func (panickingMetrics) SetRoomCount(int) { panic("metrics") }

func (panickingMetrics) SetRoomMemberCount(string, int) { panic("metrics") }

func (panickingMetrics) RecordBroadcastLatency(int64) { panic("metrics") }

func (panickingMetrics) IncrementDroppedMessages() { panic("metrics") }

func (panickingMetrics) IncrementReadErrors() { panic("metrics") }

func (panickingMetrics) IncrementWriteErrors() { panic("metrics") }

func (panickingMetrics) IncrementInvalidMessages() { panic("metrics") }

// A panic in Metrics costs a line in the log: messages are handled, and clients that
// break the protocol or hang up leave nothing behind.
func TestMetricsThatPanicHarmNobody(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, ws.WithMetrics(panickingMetrics{}))
		harness.RegisterGreetings(t, s.Manager)
		witness, sw := s.DialClient(w)
		assert.NoError(t, sw.JoinRoom("r"))
		for range 4 {
			c, sc := s.DialClient(w)
			assert.NoError(t, sc.JoinRoom("r"))
			assert.NoError(t, s.BroadcastToRoom("r", []byte("hello"), nil))
			c.Expect("hello")
			witness.Expect("hello")
			c.WriteRaw("\x81\x01x") // not masked
			c.ExpectClose(1002)
			_ = c.Close()
			c, _ = s.DialClient(w)
			c.Abort()
		}
		witness.Send(harness.Request("only", "1", ""))
		witness.ExpectReply("1", 200, "")
		harness.Eventually(t, func() bool { return s.GetClientCount() == 1 && len(s.GetRoomMembers("r")) == 1 },
			"%d clients, %d members", s.GetClientCount(), len(s.GetRoomMembers("r")))
	})
}
