package engine

import (
	"math"
	"sync/atomic"
	"time"
)

// DrainPlan is the plan of a drain with a pace. Immutable.
type DrainPlan struct {
	Retirement
	Grace  time.Duration // from the announcement until new connections are refused and the others retire
	Window time.Duration // the time in which they begin to retire; not positive is at once
}

// DrainPhase is the state of a drain with a pace.
type DrainPhase uint32

// The phases, in order.
const (
	DrainNone  DrainPhase = iota // there is no drain
	DrainGrace                   // it is announced; new connections are still accepted
	DrainPaced                   // new connections are refused, and the others retire
)

// drainTick is the time between two looks at the pace. A tick of the timers, 250 ms, would
// make each reconnect of a quarter of a second come at once.
const drainTick = 10 * time.Millisecond

// pacedDrain is the drain of an engine with a pace. Each shard retires its own connections at
// its share of the pace; see shardDrain. Safe for concurrent use.
type pacedDrain struct {
	// Immutable.
	plan  DrainPlan
	begin time.Duration // time of the engine at the end of the grace

	phase  atomic.Uint32 // DrainPhase
	pace   atomic.Uint64 // connections each second, a float64
	forced atomic.Bool   // the rest closes at once
}

// BeginDrain begins a drain with a pace, unless there is one. Before the loops run, no
// connection is accepted any more.
func (e *Engine) BeginDrain(plan DrainPlan) {
	d := &pacedDrain{plan: plan}
	select {
	case <-e.started:
		d.begin = e.elapsed() + plan.Grace
		d.phase.Store(uint32(DrainGrace))
	default:
		d.phase.Store(uint32(DrainPaced))
	}
	if e.paced.CompareAndSwap(nil, d) {
		d.advance(e)
	}
}

// ForceDrain ends the grace and the pace: all connections that are left close at once, each with
// the code and a reason of the plan. BeginDrain comes first.
func (e *Engine) ForceDrain() {
	d := e.paced.Load()
	d.forced.Store(true)
	d.phase.Store(uint32(DrainPaced))
}

// DrainPhase returns the phase of the drain.
func (e *Engine) DrainPhase() DrainPhase {
	if d := e.paced.Load(); d != nil {
		return DrainPhase(d.phase.Load())
	}
	return DrainNone
}

// DrainPace returns the number of connections that begin to retire each second, 0 before they
// do.
func (e *Engine) DrainPace() float64 {
	if d := e.paced.Load(); d != nil {
		return math.Float64frombits(d.pace.Load())
	}
	return 0
}

// advance ends the grace when its time is over. It runs at every tick.
func (d *pacedDrain) advance(e *Engine) {
	if d.phase.Load() != uint32(DrainGrace) || e.elapsed() < d.begin {
		return
	}
	var open int
	for _, s := range e.shards {
		open += s.openConns()
	}
	if d.plan.Window > 0 {
		d.pace.Store(math.Float64bits(float64(open) / d.plan.Window.Seconds()))
	}
	d.phase.Store(uint32(DrainPaced))
}

// tickInterval returns the time between two ticks.
func (e *Engine) tickInterval() time.Duration {
	if e.DrainPhase() == DrainNone {
		return e.tickTime
	}
	return min(e.tickTime, drainTick)
}

// retirement returns the way in which connections retire now.
func (e *Engine) retirement() *Retirement {
	if d := e.paced.Load(); d != nil {
		return &d.plan.Retirement
	}
	return &e.cfg.Retirement
}

// openConns returns the number of connections that are past the handshake. Safe for concurrent use.
func (s *Shard) openConns() int { return int(s.stats.opened.Load() - s.stats.closed.Load()) }

// shardDrain is a shard's part of a pacedDrain. The connections begin to retire on a schedule,
// which those that end by themselves, or take long to close, do not change. After an absence
// of the loop it catches up at twice the pace.
//
// Loop-confined: use only on the event loop that owns the connections.
type shardDrain struct {
	drain
	pace   float64       // connections each second; +Inf is at once
	begin  time.Duration // of the schedule
	end    time.Duration // of the schedule; connections that come later retire when they are found
	ahead  float64       // connections ahead of the schedule, below 1, so that the shards do not act together
	looked time.Duration // time of the last look
	credit float64       // connections that may retire before the next look, if the schedule allows them
	rest   time.Duration // none was left at a look; the next one is after this time
	forced bool          // the pace has ended
}

// paceDrain retires the connections that are due. It runs in each turn.
func (s *Shard) paceDrain() {
	d := s.eng.paced.Load()
	if d == nil || d.phase.Load() != uint32(DrainPaced) || s.eng.draining.Load() {
		return
	}
	defer s.eng.guard("drain")
	now := s.eng.elapsed()
	if s.paced == nil {
		s.paced = s.newShardDrain(&d.plan, now)
	}
	if d.forced.Load() {
		s.paced.force(&d.plan.Retirement)
	}
	s.paced.advance(s, now)
}

func (s *Shard) newShardDrain(plan *DrainPlan, now time.Duration) *shardDrain {
	p := &shardDrain{
		drain: drain{wants: (*Conn).mayRetire, take: func(c *Conn) { c.retire(&plan.Retirement) }},
		pace:  math.Inf(1), begin: now, end: now + plan.Window, looked: now, credit: 1,
		ahead: (float64(s.index) + 0.5) / float64(len(s.eng.shards)),
	}
	if plan.Window > 0 {
		p.pace = float64(s.openConns()) / plan.Window.Seconds()
	}
	return p
}

// force ends the pace: all connections close at once, those that have time to move included.
func (p *shardDrain) force(r *Retirement) {
	if p.forced {
		return
	}
	p.forced, p.pace, p.rest = true, math.Inf(1), 0
	p.wants = (*Conn).isLeft
	p.take = func(c *Conn) {
		c.set(forced)
		c.closeRetired(r)
	}
	p.restart()
}

// advance retires the connections that are due at now.
func (p *shardDrain) advance(s *Shard, now time.Duration) {
	due := p.due(now, s.eng.tickTime)
	if due <= 0 || now < p.rest {
		return
	}
	before := p.count
	if p.step(s, due) {
		p.rest = now + s.eng.tickTime
		p.restart()
	}
	p.credit -= float64(p.count - before)
}

// due returns the number of connections to retire at now: those of the schedule, and no more
// at once than the share of a tick.
func (p *shardDrain) due(now, tick time.Duration) int {
	if math.IsInf(p.pace, 1) {
		return math.MaxInt
	}
	share := p.pace * tick.Seconds()
	p.credit = min(p.credit+2*p.pace*(now-p.looked).Seconds(), share+1)
	p.looked = now
	if now > p.end {
		return max(1, int(p.credit))
	}
	scheduled := p.pace*(now-p.begin).Seconds() + p.ahead
	return min(int(scheduled)-p.count, int(p.credit))
}
