package ws

import (
	"hash/maphash"
	"sync"
)

// gauges reports values to Metrics. Two goroutines that change a value at the same
// time would report it in any order: so one at a time reports a value, which it reads
// anew as long as there were changes meanwhile. The last report is the true value, and
// no lock is held while Metrics is called. Safe for concurrent use.
type gauges struct {
	manager *Manager
	metrics *guardedMetrics
	seed    maphash.Seed
	shards  [16]gaugeShard
}

// gaugeShard holds the values that are being reported.
type gaugeShard struct {
	mu sync.Mutex
	// running has an entry for each value that is being reported, which is true if
	// it has changed since it was read. Guarded by mu.
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

// changed reports a value that has changed. No lock must be held.
func (m *Manager) changed(kind gaugeKind, roomID string) {
	if m.gauges != nil {
		m.gauges.changed(gauge{kind, roomID})
	}
}

// maxReports bounds how often a caller reports one value: it may be an event loop.
const maxReports = 16

func (g *gauges) changed(v gauge) {
	if g.begin(v) {
		g.reportSome(v)
	}
}

// reportSome reports v until it has not changed meanwhile. After maxReports a worker goes
// on, and lets others have their turn before.
func (g *gauges) reportSome(v gauge) {
	returned := false
	defer func() {
		if !returned { // Metrics have ended the goroutine (runtime.Goexit)
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

// gaugeTask reports a value that others change all the time, on a worker.
type gaugeTask struct {
	gauges *gauges
	value  gauge
}

// Run implements pool.Task.
func (t *gaugeTask) Run() { t.gauges.reportSome(t.value) }

func (g *gauges) shard(v gauge) *gaugeShard {
	return &g.shards[(maphash.String(g.seed, v.roomID)+uint64(v.kind))%uint64(len(g.shards))]
}

// begin reports whether the caller is to report v. Otherwise somebody else is at it, and
// reports once more.
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

// report calls Metrics.
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
