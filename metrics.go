package ws

import (
	"hash/maphash"
	"sync"
)

// Metrics receives measurements. Its methods are called on event loops and
// workers, also at the same time: they must be safe for concurrent use and must
// not block. Times are in nanoseconds. The last value that a Set method receives is the true
// one; values between may be left out. No lock is held meanwhile. RoomMetrics has
// more methods.
type Metrics interface {
	IncrementConnections()
	DecrementConnections()
	SetConnectionCount(count int)
	// IncrementMessageCount counts a received message by its event; the event
	// is "" for messages that HandleRaw takes.
	IncrementMessageCount(event string)
	// RecordMessageLatency records the running time of a handler.
	RecordMessageLatency(event string, ns int64)
	// IncrementMessageErrors counts handlers that returned an error or
	// panicked.
	IncrementMessageErrors(event string)
	SetRoomCount(count int)
	SetRoomMemberCount(roomID string, count int)
	// RecordBroadcastLatency records the time from publishing to the last member's
	// queue.
	RecordBroadcastLatency(ns int64)
	// IncrementDroppedMessages counts a message that a client did not get, for any
	// reason except a newer message with the same ConflateKey; see Stats.
	IncrementDroppedMessages()
	IncrementReadErrors()
	IncrementWriteErrors()
	IncrementInvalidMessages()
}

// RoomMetrics is a second interface that a Metrics may implement. The same rules hold for
// it.
type RoomMetrics interface {
	// RoomEnded reports that there is no room of that ID any more, so that state
	// kept for it, such as a label, can be given up. It comes behind the last
	// SetRoomMemberCount of the room, and may come twice. It may be left out if a new
	// room of the same ID is there already.
	RoomEnded(roomID string)
}

// NoopMetrics measures nothing. Safe for concurrent use.
type NoopMetrics struct{}

// The methods of NoopMetrics do nothing.

// IncrementConnections does nothing.
func (NoopMetrics) IncrementConnections() {}

// DecrementConnections does nothing.
func (NoopMetrics) DecrementConnections() {}

// SetConnectionCount does nothing.
func (NoopMetrics) SetConnectionCount(int) {}

// IncrementMessageCount does nothing.
func (NoopMetrics) IncrementMessageCount(string) {}

// RecordMessageLatency does nothing.
func (NoopMetrics) RecordMessageLatency(string, int64) {}

// IncrementMessageErrors does nothing.
func (NoopMetrics) IncrementMessageErrors(string) {}

// SetRoomCount does nothing.
func (NoopMetrics) SetRoomCount(int) {}

// SetRoomMemberCount does nothing.
func (NoopMetrics) SetRoomMemberCount(string, int) {}

// RecordBroadcastLatency does nothing.
func (NoopMetrics) RecordBroadcastLatency(int64) {}

// IncrementDroppedMessages does nothing.
func (NoopMetrics) IncrementDroppedMessages() {}

// IncrementReadErrors does nothing.
func (NoopMetrics) IncrementReadErrors() {}

// IncrementWriteErrors does nothing.
func (NoopMetrics) IncrementWriteErrors() {}

// IncrementInvalidMessages does nothing.
func (NoopMetrics) IncrementInvalidMessages() {}

// guardedMetrics calls an application's Metrics and reports its panics, which end there: the
// callers end connections and write, and must not stop halfway. Safe for concurrent use.
type guardedMetrics struct {
	metrics Metrics
	report  func(recovered any)
}

// IncrementConnections calls the application's.
func (g *guardedMetrics) IncrementConnections() {
	defer protect(nil, g.report)
	g.metrics.IncrementConnections()
}

// DecrementConnections calls the application's.
func (g *guardedMetrics) DecrementConnections() {
	defer protect(nil, g.report)
	g.metrics.DecrementConnections()
}

// SetConnectionCount calls the application's.
func (g *guardedMetrics) SetConnectionCount(count int) {
	defer protect(nil, g.report)
	g.metrics.SetConnectionCount(count)
}

// IncrementMessageCount calls the application's.
func (g *guardedMetrics) IncrementMessageCount(event string) {
	defer protect(nil, g.report)
	g.metrics.IncrementMessageCount(event)
}

// RecordMessageLatency calls the application's.
func (g *guardedMetrics) RecordMessageLatency(event string, ns int64) {
	defer protect(nil, g.report)
	g.metrics.RecordMessageLatency(event, ns)
}

// IncrementMessageErrors calls the application's.
func (g *guardedMetrics) IncrementMessageErrors(event string) {
	defer protect(nil, g.report)
	g.metrics.IncrementMessageErrors(event)
}

// SetRoomCount calls the application's.
func (g *guardedMetrics) SetRoomCount(count int) {
	defer protect(nil, g.report)
	g.metrics.SetRoomCount(count)
}

// SetRoomMemberCount calls the application's.
func (g *guardedMetrics) SetRoomMemberCount(roomID string, count int) {
	defer protect(nil, g.report)
	g.metrics.SetRoomMemberCount(roomID, count)
}

// RoomEnded calls the application's, if there is one.
func (g *guardedMetrics) RoomEnded(roomID string) {
	defer protect(nil, g.report)
	if rooms, ok := g.metrics.(RoomMetrics); ok {
		rooms.RoomEnded(roomID)
	}
}

// RecordBroadcastLatency calls the application's.
func (g *guardedMetrics) RecordBroadcastLatency(ns int64) {
	defer protect(nil, g.report)
	g.metrics.RecordBroadcastLatency(ns)
}

// IncrementDroppedMessages calls the application's.
func (g *guardedMetrics) IncrementDroppedMessages() {
	defer protect(nil, g.report)
	g.metrics.IncrementDroppedMessages()
}

// IncrementReadErrors calls the application's.
func (g *guardedMetrics) IncrementReadErrors() {
	defer protect(nil, g.report)
	g.metrics.IncrementReadErrors()
}

// IncrementWriteErrors calls the application's.
func (g *guardedMetrics) IncrementWriteErrors() {
	defer protect(nil, g.report)
	g.metrics.IncrementWriteErrors()
}

// IncrementInvalidMessages calls the application's.
func (g *guardedMetrics) IncrementInvalidMessages() {
	defer protect(nil, g.report)
	g.metrics.IncrementInvalidMessages()
}

// gauges reports values to Metrics. Two goroutines that change a value at the same time
// would report it in any order, so only one goroutine at a time reports a value, and reads
// it again as long as it has changed meanwhile. The last report is the true value. No lock
// is held while Metrics is called. Safe for concurrent use.
type gauges struct {
	manager *Manager
	metrics *guardedMetrics
	seed    maphash.Seed
	shards  [16]gaugeShard
}

// gaugeShard is the set of values that are being reported.
type gaugeShard struct {
	mu sync.Mutex
	// running has an entry for each value that is being reported: true if the value has
	// changed since it was read. Guarded by mu.
	running map[gauge]bool
}

// gauge is the name of a value.
type gauge struct {
	kind   gaugeKind
	roomID string // of roomMembers
}

type gaugeKind uint8

const (
	connectionCount gaugeKind = iota
	roomCount
	roomMembers
)

func newGauges(m *Manager, metrics *guardedMetrics) *gauges {
	g := &gauges{manager: m, metrics: metrics, seed: maphash.MakeSeed()}
	for i := range g.shards {
		g.shards[i].running = make(map[gauge]bool)
	}
	return g
}

// changed reports a changed value. The caller must hold no lock.
func (m *Manager) changed(kind gaugeKind, roomID string) {
	if m.gauges != nil {
		m.gauges.changed(gauge{kind, roomID})
	}
}

// maxReports bounds the reports of one value by one caller, which may be an event loop.
const maxReports = 16

func (g *gauges) changed(v gauge) {
	if g.begin(v) {
		g.reportSome(v)
	}
}

// reportSome reports v until it does not change meanwhile. After maxReports a worker
// continues, behind the tasks that wait.
func (g *gauges) reportSome(v gauge) {
	returned := false
	defer func() {
		if !returned { // Metrics has ended the goroutine (runtime.Goexit)
			g.forget(v)
		}
	}()
	done := false
	for n := 0; n < maxReports && !done; n++ {
		g.report(v)
		done = g.done(v)
	}
	if !done && !g.manager.workers.Submit(&gaugeTask{g, v}) { // the manager stops
		for !done {
			g.report(v)
			done = g.done(v)
		}
	}
	returned = true
}

// gaugeTask continues the reports of a value on a worker.
type gaugeTask struct {
	gauges *gauges
	value  gauge
}

// Run implements pool.Task.
func (t *gaugeTask) Run() { t.gauges.reportSome(t.value) }

func (g *gauges) shard(v gauge) *gaugeShard {
	return &g.shards[(maphash.String(g.seed, v.roomID)+uint64(v.kind))%uint64(len(g.shards))]
}

// begin reports whether the caller must report v. Otherwise another goroutine reports v,
// and does so once more.
func (g *gauges) begin(v gauge) bool {
	s := g.shard(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, running := s.running[v]; running {
		s.running[v] = true
		return false
	}
	s.running[v] = false
	return true
}

// done ends the report of v, unless v has changed meanwhile.
func (g *gauges) done(v gauge) bool {
	s := g.shard(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[v] {
		s.running[v] = false
		return false
	}
	delete(s.running, v)
	return true
}

// forget ends the report of v.
func (g *gauges) forget(v gauge) {
	s := g.shard(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, v)
}

// report passes the present value of v to Metrics.
func (g *gauges) report(v gauge) {
	m := g.manager
	switch v.kind {
	case connectionCount:
		g.metrics.SetConnectionCount(m.GetClientCount())
	case roomCount:
		g.metrics.SetRoomCount(m.rooms.Len())
	case roomMembers:
		if r, ok := m.rooms.Get(v.roomID); ok {
			g.metrics.SetRoomMemberCount(v.roomID, r.Len())
			return
		}
		g.metrics.SetRoomMemberCount(v.roomID, 0)
		g.metrics.RoomEnded(v.roomID)
	}
}
