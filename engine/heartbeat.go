package engine

import (
	"errors"
	"time"
)

// Silence is the time since a connection's last sign of life. A connection that
// is silent for Config.HeartbeatTimeout is closed. The signs of life are:
//
//   - A byte from the peer, whether the loop has read it or it waits in the kernel.
//   - A full socket that becomes writable again.
//   - Progress: the peer's application reads bytes that it has received.
//
// The last two are needed because a ping waits behind the data that the peer has
// yet to read. A slow reader answers late although it is alive.

// presence is the clock of a shard on which silence is measured. It counts the
// ticks in which the loop was there to read. A process that was stopped, a
// machine that was suspended and a handler that held the loop all show as a
// jump of Engine.now. The clock counts a small part of a jump, because no peer
// could show a sign of life meanwhile.
//
// Loop-confined: use only on the event loop that owns the connection.
type presence struct {
	ticks uint32
	seen  uint32 // Engine.now at the last call of advance
}

// advance counts the ticks up to now, but no more than most. It reports whether
// the loop was away for longer than that.
func (p *presence) advance(now, most uint32) (away bool) {
	passed := now - p.seen
	p.seen = now
	p.ticks += min(passed, most)
	return passed > most
}

// absence records that a loop comes back after a handler held it or the process
// was stopped. A turn may come before the loop reads the bytes that have
// arrived meanwhile, and deadlines of handshakes and close handshakes expire
// regardless of unread bytes. So all deadlines wait for a tick then.
//
// Loop-confined: use only on the event loop that owns the connection.
type absence struct {
	turn time.Duration // start of the last turn; see monotonic
	back time.Duration // end of the absence; 0 from a tick after it
}

// over reports, at the beginning of a turn, that there was no absence or that
// it ended at least a tick ago. A loop that is away again and again is over its
// absence every second time.
func (a *absence) over(now, tick time.Duration) bool {
	away := a.turn > 0 && now-a.turn > 2*tick
	a.turn = now
	switch {
	case a.back == 0 && away:
		a.back = now
	case now-a.back >= tick:
		a.back = 0
	}
	return a.back == 0
}

// silence holds the limits of silence, in ticks. Immutable.
type silence struct {
	interval uint32 // between pings
	limit    uint32 // silence after which a connection is dead
	overdue  uint32 // silence after which the pong to the last ping is overdue
	// part is an eighth of limit. It is the most that a jump of Engine.now adds to
	// a silence, and the longest time between probes. A connection is closed
	// this long after its first probe at the earliest.
	part uint32
}

func newSilence(interval, limit uint32) silence {
	return silence{
		interval: interval, limit: limit,
		overdue: min(limit, interval+max(1, interval/8)), part: max(1, limit/8),
	}
}

// overduePong is the state of a connection whose pong is overdue.
type overduePong struct {
	base  progress // at the first probe, or when the peer was last seen to read
	since uint32   // time of base, on the presence clock
	pings uint32   // sent since then
}

// progress is the position up to which a peer's application has read. On TCP it
// is the right edge of the peer's receive window: the acknowledged bytes plus
// the size of the window. The edge moves only as the application reads, or
// while the peer's kernel still fills or enlarges its buffer. On a Unix socket
// it is the number of unread bytes, negated.
type progress struct {
	edge  int64
	known bool
}

const (
	// minProgress is the least progress, in bytes, that is a sign of life.
	minProgress = 1 << 10
	// pingProgress exceeds the move of the edge by a ping while the application
	// hangs. A ping takes 6 bytes, and 24 more with TLS.
	pingProgress = 32
)

// since reports whether the peer has read since base, after which it was sent
// the given number of pings.
func (p progress) since(base progress, pings uint32) bool {
	return p.known && base.known && p.edge-base.edge >= minProgress+pingProgress*int64(pings)
}

// noteLife records that bytes have come from c's peer.
func (c *Conn) noteLife() {
	c.noteTaking()
	c.shard.forgetOverdue(c)
}

// noteTaking records that c's peer takes bytes. Its pong may still be overdue.
func (c *Conn) noteTaking() {
	s := c.shard
	if c.lastLife != s.presence.ticks {
		c.lastLife, c.controls = s.presence.ticks, 0
	}
}

// forgetOverdue forgets that c's pong is overdue.
func (s *Shard) forgetOverdue(c *Conn) {
	if c.is(overdue) {
		c.unset(overdue)
		delete(s.overdue, c)
	}
}

// excused reports whether our side causes the silence of c: bytes of it are
// unread, because the loop has yet to reach them, or because c is paused. A
// peer that is paused because it does not read its answers is not excused; it
// has to take bytes.
func (c *Conn) excused() bool {
	if c.is(pausedFlags | unwatched) {
		return !c.is(blocked)
	}
	return c.shard.driver.hasUnread(c)
}

// heartbeat sends a ping to c, or closes c after too long a silence. c has just
// left the wheel.
func (c *Conn) heartbeat() {
	s := c.shard
	now, limits := s.eng.now.Load(), &s.eng.silence
	late := now - c.deadline // more than a tick if the loop was away
	silent := s.presence.ticks - c.lastLife
	if c.is(overdue) || silent >= limits.limit || silent >= limits.overdue+min(late, limits.part) {
		if !c.excused() {
			c.probe()
			return
		}
		c.noteLife()
		silent = 0
	}
	// A late ping does not move the time of the next one: otherwise the pings of
	// all connections would come together after a pause.
	s.wheel.schedule(c, c.beforeEnd(now+min(limits.interval-late%limits.interval, limits.limit-silent)))
	c.set(awaitsPong)
	c.pushControl(s.pingFrame())
}

// probe looks for progress on a connection whose pong is overdue, and closes it
// if its silence has reached the limit. Otherwise it sends one more ping, whose
// acknowledgment brings the size of the peer's window.
func (c *Conn) probe() {
	s := c.shard
	now, limits := s.presence.ticks, &s.eng.silence
	o := c.look()
	remaining := max(int32(limits.limit-(now-c.lastLife)), int32(limits.part-(now-o.since)))
	s.wheel.schedule(c, s.eng.now.Load()+min(limits.interval, limits.part, uint32(max(1, remaining))))
	if remaining <= 0 {
		s.closeLater(c, errSilent)
		s.eng.observer.OnReadError()
		return
	}
	o.pings++
	s.overdue[c] = o
	c.set(awaitsPong)
	c.pushControl(s.pingFrame())
}

// look compares the progress of c's peer with the last base, and records a sign
// of life.
func (c *Conn) look() overduePong {
	s := c.shard
	p := s.driver.progress(c)
	o, known := s.overdue[c]
	switch {
	case !known:
		if s.overdue == nil {
			s.overdue = make(map[*Conn]overduePong)
		}
		c.set(overdue)
	case p.since(o.base, o.pings):
		c.noteTaking()
	case p.edge < o.base.edge: // more was sent on a Unix socket
		o.base = p
		return o
	default:
		return o
	}
	return overduePong{base: p, since: s.presence.ticks}
}

var errSilent = errors.New("ws: heartbeat timeout")
