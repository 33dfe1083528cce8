package ws_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// recorder is a Metrics that counts. Safe for concurrent use.
type recorder struct {
	mu     sync.Mutex
	counts map[string]int // calls, or the last value of a Set method
}

func newRecorder() *recorder { return &recorder{counts: make(map[string]int)} }

func (r *recorder) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[key]++
}

func (r *recorder) set(key string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[key] = n
}

func (r *recorder) get(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[key]
}

func (r *recorder) took(key string, ns int64) {
	if ns < 0 || ns > int64(time.Minute) {
		key += " of a time that is not in nanoseconds"
	}
	r.add(key)
}

func (r *recorder) IncrementConnections()               { r.add("connections") }
func (r *recorder) DecrementConnections()               { r.add("disconnections") }
func (r *recorder) SetConnectionCount(n int)            { r.set("connected", n) }
func (r *recorder) IncrementMessageCount(event string)  { r.add("messages " + event) }
func (r *recorder) IncrementMessageErrors(event string) { r.add("errors " + event) }
func (r *recorder) SetRoomCount(n int)                  { r.set("rooms", n) }
func (r *recorder) SetRoomMemberCount(id string, n int) { r.set("members "+id, n) }
func (r *recorder) RecordBroadcastLatency(ns int64)     { r.took("broadcasts", ns) }
func (r *recorder) IncrementDroppedMessages()           { r.add("dropped") }
func (r *recorder) IncrementReadErrors()                { r.add("read errors") }
func (r *recorder) IncrementWriteErrors()               { r.add("write errors") }
func (r *recorder) IncrementInvalidMessages()           { r.add("invalid") }
func (r *recorder) RecordMessageLatency(event string, ns int64) {
	r.took("latency "+event, ns)
}

func TestMetrics(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		r := newRecorder()
		s := start(t, mode, ws.WithMetrics(r), ws.WithMessageQueueSize(3), withDeepQueue)
		registerGreetings(t, s.Manager)
		check := func(key string, want int) {
			t.Helper()
			eventually(t, func() bool { return r.get(key) == want }, "%s: %d, want %d", key, r.get(key), want)
		}
		c, sc := s.dialClient(w)
		other, otherClient := s.dialClient(w)
		check("connections", 2)
		check("connected", 2)

		for _, message := range []string{
			request("greet", "1", `{"name":"Ann"}`), request("greet", "2", `{"name":"forbidden"}`),
			request("greet", "3", `{"name":"panic"}`), request("only", "4", ""), request("nobody", "5", ""), "no JSON",
		} {
			c.send(message)
			c.read()
		}
		check("messages greet", 3)
		check("messages only", 1)
		check("errors greet", 2)
		check("errors only", 0)
		eventually(t, func() bool { return r.get("latency greet") >= 2 }, "no latency")
		check("latency only", 1)
		check("invalid", 1)

		require.NoError(t, sc.JoinRoom("r"))
		require.NoError(t, otherClient.JoinRoom("r"))
		check("rooms", 1)
		check("members r", 2)
		require.NoError(t, s.BroadcastToRoom("r", []byte("x"), nil))
		c.expect("x")
		other.expect("x")
		check("broadcasts", 1)
		s.BroadcastAll([]byte("y"))
		check("broadcasts", 2)
		other.expect("y")
		otherClient.LeaveRoom("r")
		check("members r", 1)
		s.DeleteRoom("r")
		check("members r", 0)
		check("rooms", 0)

		require.NoError(t, sc.JoinRoom("r"))
		check("members r", 1)
		c.expect("y")
		s.stall(sc)
		require.NoError(t, sc.SendBytes(nil))
		require.NoError(t, sc.SendBytes(nil))
		require.ErrorIs(t, sc.SendBytes(nil), ws.ErrChannelFull)
		check("dropped", 1)
		require.NoError(t, s.BroadcastToRoom("r", []byte("z"), nil))
		check("dropped", 2)

		other.raw("\xff\xff") // no frame
		check("invalid", 2)
		other.expectClose(1002)
		_ = other.Close()
		check("disconnections", 1)
		check("connected", 1)
		c.abort()
		check("disconnections", 2)
		check("connected", 0)
		check("members r", 0)
		eventually(t, func() bool { return r.get("read errors")+r.get("write errors") >= 1 }, "a reset is an error")

		r.mu.Lock()
		defer r.mu.Unlock()
		for key := range r.counts {
			assert.NotContains(t, key, "not in nanoseconds")
			assert.False(t, strings.HasPrefix(key, "messages nobody"), "an event without a handler")
		}
	})
}

// Clients choose the names of unknown events: as labels of a metric they would
// grow without bound.
func TestUnknownEventsAreNoLabels(t *testing.T) {
	r := newRecorder()
	s := start(t, ws.WithMetrics(r))
	c := s.dial(native)
	c.send(request("made up by the client", "1", ""))
	c.expectReply("1", 404, "")
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.counts {
		assert.NotContains(t, key, "made up")
	}
}

// HandleRaw's messages have no event.
func TestMetricsOfRawMessages(t *testing.T) {
	r := newRecorder()
	s := start(t, ws.WithMetrics(r))
	s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	c := s.dial(native)
	c.send("x")
	c.expect("x")
	eventually(t, func() bool { return r.get("messages ") == 1 && r.get("latency ") == 1 }, "not counted")
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
	s := start(t, ws.WithLoops(3))
	registerGreetings(t, s.Manager)
	var conns []*client
	for i := range 9 {
		c, sc := s.dialClient([]way{native, overNet}[i%2])
		require.NoError(t, sc.JoinRoom("r"))
		conns = append(conns, c)
	}
	require.NoError(t, s.BroadcastToRoom("r", []byte("hello"), nil))
	for _, c := range conns {
		c.expect("hello")
		c.send(request("only", "1", ""))
		c.expectReply("1", 200, "")
	}
	conns[0].sendClose(1000, "")
	conns[0].expectEOF()
	eventually(t, func() bool {
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
	s := start(t, ws.WithMetrics(&metrics), ws.WithWorkers(1))
	require.NoError(t, ws.Handle0(s.Manager, "e", func(*ws.Client, *struct{}) error { return nil }))
	c := s.dial(native)
	metrics.manager.Store(s.Manager)
	t.Cleanup(func() { metrics.manager.Store(nil) })
	_, err := s.CreateRoom("r", nil)
	require.NoError(t, err)
	eventually(t, func() bool { return metrics.calls.Load() > 200 }, "no worker goes on with the reports")
	for n := range 20 {
		c.send(request("e", fmt.Sprint(n), "{}"))
		c.expectReply(fmt.Sprint(n), 200, "")
	}
}
