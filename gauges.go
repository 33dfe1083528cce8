package ws

import (
	"hash/maphash"
	"sync"
)

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
