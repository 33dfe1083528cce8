package engine

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// tickTime returns the resolution of the timers: a tenth of the shortest one,
// between 5 and 250 ms.
func tickTime(cfg *Config) time.Duration {
	shortest := min(cfg.HandshakeTimeout, cfg.HeartbeatInterval, cfg.CloseTimeout)
	for _, d := range []time.Duration{cfg.MessageTimeout, cfg.WriteTimeout} {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	return min(max(shortest/10, 5*time.Millisecond), 250*time.Millisecond)
}

// ticks converts d to ticks, at least one. The result is small enough that
// deadlines can be compared although the clock wraps around: 62 days with the
// shortest tick.
func (e *Engine) ticks(d time.Duration) uint32 {
	return uint32(min(max(1, d/e.tickTime), 1<<30))
}

// elapsed returns the time since Run.
func (e *Engine) elapsed() time.Duration { return e.cfg.Now().Sub(e.began) }

// Clock returns the time from Run to the last tick. Safe for concurrent use.
func (e *Engine) Clock() time.Duration { return time.Duration(e.now.Load()) * e.tickTime }

// after returns the tick at d from now.
func (e *Engine) after(d time.Duration) uint32 { return e.now.Load() + e.ticks(d) }

// jitter returns a random time within the ping interval.
func (e *Engine) jitter() time.Duration {
	return time.Duration(rand.Int64N(int64(e.cfg.HeartbeatInterval)))
}

// tick moves the clock and wakes every loop to look at its timers. It runs off
// the loops.
func (e *Engine) tick() {
	defer e.guard("tick")
	now := uint32(e.elapsed() / e.tickTime)
	e.now.Store(now)
	e.arrivals.note(e.generations.Load(), now)
	if d := e.paced.Load(); d != nil {
		d.advance(e)
	}
	if e.handshakes != nil {
		e.handshakes.relieve()
	}
	e.allowWaits()
	select {
	case <-e.started:
		for _, s := range e.shards {
			s.wakeUp()
		}
	default:
	}
}

// timerState is the part of a Shard that deadlines, heartbeats and timeouts use.
//
// Loop-confined: use only on the event loop that owns the connections.
type timerState struct {
	wheel    wheel
	due      bool   // deadlines have come that were not acted on
	checked  uint32 // tick of the last checks beside the deadlines
	presence presence
	absence  absence
	overdue  map[*Conn]overduePong // nil until there is one

	unfinished        map[*Conn]unfinishedMessage // nil until there is one
	unfinishedChecked uint32                      // tick of the last check, on the presence clock
}

// tick fires the deadlines that have come, and frees expired frames in queues
// of blocked connections. After an absence the loop first reads the bytes that
// wait in the kernel: the deadlines wait for a tick, but only once. caughtUp
// reports that no absence ended within the last tick.
func (s *Shard) tick(caughtUp bool) {
	now := s.eng.now.Load()
	if now != s.presence.seen {
		late := s.wheel.now != s.presence.seen
		away := s.presence.advance(now, s.eng.silence.part)
		s.due = late || !away
	}
	if !s.due || !caughtUp {
		return
	}
	if s.checked != now {
		s.checked = now
		s.free.trim(now, s.eng.ticks(freeTime))
		for _, c := range s.blocked.conns { // purge may reorder them; the next tick covers the missed ones
			c.purge()
		}
		s.checkAges()
		s.checkUnfinishedMessages()
		s.rotateBudget()
	}
	s.due = !s.wheel.advance(now, s.fire)
}

// fire acts on the deadline of c. It returns false when the turn's time is
// over.
func (s *Shard) fire(c *Conn) (more bool) {
	c.expire()
	s.clock.work += deliveryWork
	return !s.clock.outOfTime()
}

func (c *Conn) expire() {
	s := c.shard
	defer s.eng.guard("timer") // the wheel continues with the other connections
	if c.end() == nil && c.is(opened) {
		switch end := c.heldEnd(); {
		case end != nil:
			c.releaseEnd(end)
		case c.is(retired):
			c.closeRetired(s.eng.retirement())
		case c.is(noticed):
			c.leave(s.eng.retirement())
		case !c.retireOfAge():
			c.heartbeat()
		}
		return
	}
	// In all cases below the connection stays in the wheel.
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.HeartbeatInterval))
	if c.end() != nil {
		s.closeLater(c, nil)
		return
	}
	s.endAdmitting(c)
	c.refuseRequest(&codec.RequestError{Status: 408, Reason: "handshake timeout"})
}

// Two timeouts besides the one of silence (heartbeat.go). They use the presence clock,
// too, so the time in which the loop was away does not count:
//
//   - Config.MessageTimeout bounds the time between the first and the last byte of a
//     message. Pings between its fragments do not extend it.
//   - Config.WriteTimeout bounds the time in which a peer takes no byte of the data
//     that waits for it. Such a peer may be alive: it does not answer pings because
//     it does not read them.

var (
	errMessageTimeout = errors.New("ws: message not received in time")
	errWriteTimeout   = errors.New("ws: write timeout")
)

// noteUnfinished records after a read whether a message of c is unfinished.
// ended reports that the read has finished an earlier one.
func (s *Shard) noteUnfinished(c *Conn, ended bool) {
	switch {
	case !c.in.Pending():
		s.forgetUnfinished(c)
	case s.eng.messageTicks > 0 || s.eng.cfg.InboundBudget > 0:
		m, known := s.unfinished[c]
		if known && !ended && s.eng.cfg.InboundBudget == 0 {
			return
		}
		if !known || ended {
			m.since = s.presence.ticks
		}
		if s.unfinished == nil {
			s.unfinished = make(map[*Conn]unfinishedMessage)
		}
		c.set(unfinished)
		s.weighUnfinished(c, &m)
		s.unfinished[c] = m
	}
}

// unfinishedMessage is a message without its end.
type unfinishedMessage struct {
	since   uint32 // on the presence clock
	excused uint32 // ticks that pausedByBudget has added to since, from the last favor on
	bytes   int64  // counted in Engine.inbound; 0 without a budget
}

func (s *Shard) forgetUnfinished(c *Conn) {
	if c.is(unfinished) {
		c.unset(unfinished)
		s.forgetWeight(s.unfinished[c])
		delete(s.unfinished, c)
	}
}

// checkUnfinishedMessages fails the connections whose message takes too long.
// It excuses the time of pauses, and bytes that wait for the loop.
func (s *Shard) checkUnfinishedMessages() {
	now := s.presence.ticks
	passed := now - s.unfinishedChecked
	s.unfinishedChecked = now
	for c, m := range s.unfinished {
		switch {
		case c.end() != nil:
			s.forgetUnfinished(c)
		case c.is(pausedFlags | unwatched):
			before := m.since
			m.since = min(m.since+passed, now)
			if c.is(pausedByBudget) {
				m.excused += m.since - before
			}
			s.unfinished[c] = m
		default:
			c.failLate(m)
		}
	}
}

// failLate fails c if its unfinished message m takes too long, and reports
// whether it does.
func (c *Conn) failLate(m unfinishedMessage) bool {
	s := c.shard
	if s.eng.messageTicks == 0 || s.presence.ticks-m.since < s.eng.messageTicks || s.driver.hasUnread(c) {
		return false
	}
	s.forgetUnfinished(c)
	c.fail(codec.ClosePolicyViolation, errMessageTimeout)
	return true
}

// stall is the time in which the peer of a blocked connection has taken no
// byte.
type stall struct {
	since  uint32   // on the presence clock
	looked uint32   // time of the last look at the progress
	base   progress // at the first look, or when the peer was last seen to read
}

// beginStall begins the stall of a connection that becomes blocked.
func (c *Conn) beginStall() {
	s := c.shard
	c.out.stall = stall{since: s.presence.ticks, looked: s.presence.ticks}
}

// checkStall ends a blocked connection whose peer has taken no byte for
// WriteTimeout. It looks at the peer's progress eight times in that time,
// because a peer that reads slowly does not make the socket writable for long.
func (c *Conn) checkStall() {
	s := c.shard
	now, limit, st := s.presence.ticks, s.eng.writeTicks, &c.out.stall
	if limit == 0 || now-st.looked < max(1, limit/8) {
		return
	}
	st.looked = now
	p := s.driver.progress(c)
	switch {
	case p.since(st.base, 0):
		st.base, st.since = p, now
	case !st.base.known || p.edge < st.base.edge: // more was sent on a Unix socket
		st.base = p
	}
	if now-st.since >= limit {
		s.closeLater(c, errWriteTimeout)
		s.eng.observer.OnWriteError()
	}
}
