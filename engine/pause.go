package engine

import (
	"errors"
	"log/slog"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/pool"
)

// Pausing a connection makes its peer wait: the loop's epoll stops waiting for
// its bytes, they fill the socket's buffers, and TCP's flow control reaches the
// peer. A connection is paused for one or more reasons, each a flag; it is
// resumed when the last one ends.
//
// The rest of the read that caused the pause is held undecoded, at most one
// read of gnet, so the owner gets no message while the connection is paused.

// pausedFlags are the reasons for which a connection is paused.
const pausedFlags = pausedByOwner | pausedByTasks | pausedByQueue | pausedEarly | pausedByBudget | pausedByShare

var errHeldBytes = errors.New("ws: client sends faster than its messages are handled")

// pauseState is the part of a Shard that paused connections use.
//
// Loop-confined: use only on the event loop that owns the connections.
type pauseState struct {
	held    map[*Conn]*held // nil before the first
	resumed []*Conn         // to continue with, oldest first
}

// PauseInLoop stops reading from the connection until Resume is called. The
// owner calls it within OnMessage, which is not called again until then. It has
// no effect on a connection that is closing.
func (c *Conn) PauseInLoop() { c.pause(pausedByOwner) }

// Resume ends PauseInLoop. It never waits. Safe for concurrent use.
func (c *Conn) Resume() { c.shard.postUrgent((*resumeTask)(c)) }

// ResumeInOrder is Resume behind everything that the caller has sent, so the
// peer's close frame is answered behind its requests. It may wait for space in
// the ring of the connection's loop.
func (c *Conn) ResumeInOrder() { c.shard.Post((*resumeTask)(c)) }

// resumeTask brings Resume to the loop.
type resumeTask Conn

func (t *resumeTask) RunInLoop(s *Shard) { (*Conn)(t).unpause(pausedByOwner) }

// pause stops reading from c for one reason.
func (c *Conn) pause(why connFlags) {
	s := c.shard
	s.mustBeInLoop()
	if (c.end() != nil && !c.is(retired)) || c.state.Load() == stateClosed {
		return // the peer's close frame must be read
	}
	if !c.is(pausedFlags) {
		s.stats.paused.add(1)
		s.stats.pausedTotal.add(1)
	}
	c.set(why)
	c.unwatch()
}

// unpause ends reasons of c's pause. If no other is left, a turn continues with
// c's held bytes, behind the connections that were resumed before.
func (c *Conn) unpause(why connFlags) {
	s := c.shard
	s.mustBeInLoop()
	if !c.is(why & pausedFlags) {
		return
	}
	c.unset(why)
	if c.is(pausedFlags) {
		return
	}
	s.stats.paused.add(^uint64(0))
	s.resumed = append(s.resumed, c)
	s.wakeUp()
}

// continueReading continues with the resumed connections until the turn's time
// is over.
func (s *Shard) continueReading() {
	for n := 0; len(s.resumed) > 0; n++ {
		if n > 0 && (s.clock.outOfTime() || (n%4 == 3 && s.clock.look())) {
			return
		}
		c := s.resumed[0]
		s.resumed[0] = nil
		s.resumed = s.resumed[1:]
		c.continueConn()
	}
	s.resumed = nil
}

// continueConn decodes the held bytes of c, and lets the loop read from c
// again.
func (c *Conn) continueConn() {
	defer c.recoverRead()
	if c.is(pausedFlags) || c.state.Load() == stateClosed {
		return // it is on the list again, or will be
	}
	c.noteLife()
	c.decodeHeld()
	if c.is(pausedFlags) || c.state.Load() == stateClosed {
		return
	}
	c.transport().proceed(c)
	if !c.is(pausedFlags) && c.state.Load() != stateClosed {
		c.watch()
	}
}

// held contains the undecoded bytes of a paused connection.
type held struct {
	buf  *pool.Buffer
	from int        // bytes before it are decoded
	end  *CloseInfo // the peer's close frame or violation, which came before buf; or of the retirement
}

// holds reports whether bytes of c are held.
func (s *Shard) holds(c *Conn) bool { return len(s.held) > 0 && s.held[c] != nil }

// hold keeps b, which is borrowed, until c is resumed.
func (c *Conn) hold(b []byte) {
	s := c.shard
	if c.is(lingering | gotClose | pendingClose) {
		return
	}
	h := s.needHeld(c)
	h.buf.B = append(h.buf.B, b...)
	s.stats.heldBytes.add(uint64(len(b)))
	if !c.is(unwatched) && int64(len(h.buf.B)-h.from) > s.eng.cfg.MailboxBytes {
		c.closeLingering(codec.ClosePolicyViolation, errHeldBytes)
	}
}

// holdEnd keeps the peer's close frame or violation until c is resumed.
func (c *Conn) holdEnd(end *CloseInfo) { c.shard.needHeld(c).end = end }

// heldEnd returns the end that holdEnd keeps, or nil.
func (c *Conn) heldEnd() *CloseInfo {
	if s := c.shard; s.holds(c) {
		return s.held[c].end
	}
	return nil
}

// releaseEnd acts on the held end. The bytes behind the peer's end are dropped.
func (c *Conn) releaseEnd(end *CloseInfo) {
	s := c.shard
	if end.retires {
		s.held[c].end = nil
		c.closeRetired(s.eng.retirement())
		return
	}
	c.actOnEnd(*end)
	s.releaseHeld(c)
}

// needHeld returns the held bytes of c, empty if it had none.
func (s *Shard) needHeld(c *Conn) *held {
	h := s.held[c]
	if h == nil {
		h = &held{buf: pool.GetBuffer()}
		if s.held == nil {
			s.held = make(map[*Conn]*held)
		}
		s.held[c] = h
	}
	return h
}

// decodeHeld decodes the held bytes of c until it is paused again.
func (c *Conn) decodeHeld() {
	s := c.shard
	h := s.held[c]
	if h == nil {
		if s.inflates(c) {
			c.decodeUntilPaused(nil)
		}
		return
	}
	if h.end != nil && !c.endHeld(h.end) {
		return
	}
	rest := c.decodeUntilPaused(h.buf.B[h.from:])
	if s.held[c] != h {
		return // c has been detached
	}
	if (len(rest) == 0 && h.end == nil) || c.is(lingering|gotClose|pendingClose) {
		s.releaseHeld(c)
		return
	}
	s.stats.heldBytes.add(-uint64(len(h.buf.B) - h.from - len(rest)))
	h.from = len(h.buf.B) - len(rest)
}

// endHeld acts on the held end of a resumed connection. It returns true if the
// bytes behind the end are decoded next.
func (c *Conn) endHeld(end *CloseInfo) bool {
	if end.retires && !c.owner().OnEnding() {
		c.pause(pausedByOwner) // it was resumed because its owner can take more messages
		return false
	}
	c.releaseEnd(end)
	return end.retires
}

// releaseHeld forgets the held bytes of c.
func (s *Shard) releaseHeld(c *Conn) {
	if !s.holds(c) {
		return
	}
	h := s.held[c]
	delete(s.held, c)
	s.stats.heldBytes.add(-uint64(len(h.buf.B) - h.from))
	pool.PutBuffer(h.buf)
}

// forgetPaused releases the held state of a connection that has ended.
func (s *Shard) forgetPaused(c *Conn) {
	if c.is(pausedFlags) {
		c.unset(pausedFlags)
		s.stats.paused.add(^uint64(0))
	}
	s.releaseHeld(c)
	s.forgetInflation(c)
	delete(s.beside, c)
	s.noteSpace(c)
}

// unwatch removes c from the loop's readiness.
func (c *Conn) unwatch() {
	s := c.shard
	if c.is(unwatched) || !s.driver.canPause() {
		return
	}
	if err := s.driver.unwatch(c); err != nil {
		s.eng.cfg.Logger.Error("ws: pausing a connection", slog.Any("error", err))
		return // its bytes are held, up to a bound
	}
	c.set(unwatched)
}

// watch takes unwatch back.
func (c *Conn) watch() {
	s := c.shard
	if !c.is(unwatched) || c.is(halfClosed) {
		return
	}
	c.unset(unwatched)
	if err := s.driver.watch(c); err != nil {
		s.closeLater(c, err)
	}
}

// HoldInLoop makes a connection that has just opened wait until Release: no
// message is handed over and nothing is written, not even the answer of the
// handshake. Frames sent meanwhile wait in the queue, as for a peer that does
// not read. The owner calls it within OnOpen.
func (c *Conn) HoldInLoop() {
	c.pause(pausedByOwner)
	c.set(withheld)
	if !c.is(blocked) { // the last bytes of a TLS handshake may wait for the socket
		c.block()
	}
}

// Release ends HoldInLoop, behind everything that the caller has sent. It never
// waits. Safe for concurrent use.
func (c *Conn) Release() { c.shard.Post((*releaseTask)(c)) }

// releaseTask brings Release to the loop.
type releaseTask Conn

func (t *releaseTask) RunInLoop(s *Shard) {
	c := (*Conn)(t)
	if !c.is(withheld) || c.state.Load() == stateClosed {
		return
	}
	c.unset(withheld)
	s.removeBlocked(c)
	c.unblock()
	s.markDirty(c)
	c.unpause(pausedByOwner)
}
