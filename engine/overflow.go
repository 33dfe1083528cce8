package engine

import "github.com/qi-realtime/ws/codec"

// conflate puts f in the place of a queued frame with the same key, if there is
// one and f fits there. kept reports whether f is still there, because the
// budget may have dropped it.
func (s *Shard) conflate(c *Conn, f *Frame) (replaced, kept bool) {
	if c.out == nil {
		return false, false
	}
	old := c.out.replace(f, func(old *Frame) bool { return c.reserveGrowth(f.lane, f.Len()-old.Len()) })
	if old == nil {
		return false, false
	}
	s.drop(old, DropConflated)
	if c.is(blocked) {
		s.reweigh(c, f.cost()-old.cost())
		return true, s.keeps(c, f, s.keepBudget)
	}
	return true, true
}

// overflow queues f on a connection whose queue is at a bound, if possible.
//
// First it writes until f fits: a client that reads loses nothing because of a
// batch of fan-outs, or because of messages that are still on their way through
// the inbox. If such messages leave no space for f although everything is
// written, f is sent at once, so a queue holds at most one frame beyond its
// bounds. If the socket is full, the policy decides.
func (s *Shard) overflow(c *Conn, f *Frame) bool {
	s.endReplyOf(c)
	for c.out != nil && !c.is(blocked|pendingClose) && c.takesDataInLoop() {
		s.flushSome(c, maxFlushBytes)
		if !c.is(blocked) && c.takesDataInLoop() && c.reserve(f) {
			return s.pushInLoop(c, f)
		}
	}
	if !c.takesDataInLoop() || c.is(pendingClose) {
		s.drop(f, DropClosed)
		return false
	}
	if !c.is(blocked) {
		c.forceReserve(f)
		s.pushInLoop(c, f)
		return s.keeps(c, f, func() { s.flush(c) })
	}
	s.noteSlow(c)
	s.purge(c)
	if c.reserve(f) || s.reserveReply(c, f) || (s.policyOf(f) == DropOldest && s.makeSpace(c, f)) {
		return s.pushInLoop(c, f)
	}
	s.drop(f, DropFull)
	if s.policyOf(f) == Disconnect {
		s.disconnect(c, DropClosed)
	}
	return false
}

// makeSpace drops the oldest frames of f's lane until f fits, and reserves its
// space. It returns false if f does not fit beside a partly sent frame and the
// protected answers.
func (s *Shard) makeSpace(c *Conn, f *Frame) bool {
	for s.evict(c, f.lane, true, DropFull) != nil {
		if c.reserve(f) {
			return true
		}
	}
	return false
}

// policyOf returns the policy for f at a full queue.
func (s *Shard) policyOf(f *Frame) Policy {
	if f.policy == 0 {
		return s.eng.cfg.OverflowPolicy
	}
	return f.policy
}

// evict drops the oldest or newest frame of a blocked connection's lane, except
// protected answers. It returns nil if there is none.
func (s *Shard) evict(c *Conn, lane Lane, oldest bool, why DropReason) *Frame {
	f := c.out.evict(lane, oldest)
	if f == nil {
		return nil
	}
	s.lost(c, f, why)
	s.reweigh(c, -f.cost())
	return f
}

// lost counts a queued frame as dropped.
func (s *Shard) lost(c *Conn, f *Frame, why DropReason) {
	c.unreserve(f.lane, 1, f.Len())
	s.drop(f, why)
	if c == s.newest.conn && f == s.newest.frame {
		s.newest.lost = true
	}
}

// purge drops the expired frames.
func (s *Shard) purge(c *Conn) {
	if c.out.expires == 0 {
		return
	}
	before := c.out.cost
	expired := false
	c.out.purge(s.eng.elapsed(), func(f *Frame) {
		expired = true
		s.lost(c, f, DropExpired)
	})
	if expired && c.is(blocked) {
		s.noteSlow(c)
		s.reweigh(c, c.out.cost-before)
	}
}

// discard drops all frames of c, including a partly sent one.
func (s *Shard) discard(c *Conn, why DropReason) {
	q := c.out
	before := q.cost
	q.clear(func(f *Frame) { s.lost(c, f, why) })
	q.cost, q.sealed = 0, 0
	if c.tls() != nil {
		c.tls().sealed = nil
	}
	if f := q.current; f != nil {
		q.current = nil
		if !f.exempt {
			s.lost(c, f, why)
		}
	}
	if c.is(blocked) {
		s.reweigh(c, -before)
	}
}

// disconnect closes a client that reads too slowly. Its queued frames are
// dropped, except for the rest of a partly sent one, and the close frame
// follows at the end of the running callback or turn, because disconnect must
// not touch lists over which a fan-out iterates.
func (s *Shard) disconnect(c *Conn, why DropReason) {
	before := c.out.cost
	c.out.clear(func(f *Frame) { s.lost(c, f, why) })
	s.reweigh(c, c.out.cost-before)
	c.state.Store(stateClosing)
	c.setEnd(slowEnd())
	s.disconnected = append(s.disconnected, c)
}

// slowEnd is the close of a client that reads too slowly.
func slowEnd() *CloseInfo {
	return &CloseInfo{Code: codec.CloseTryAgainLater, Reason: "client reads too slowly"}
}

// noteSlow reports once that a blocked connection's queue has reached the
// high-water mark, that its oldest frame has reached the high-water age, or
// that it loses messages.
func (s *Shard) noteSlow(c *Conn) {
	if !c.is(slow) {
		c.set(slow)
		s.stats.slow.add(1)
		s.eng.handler.OnSlow(c, c.QueuedBytes())
	}
}

// noteDrained reports that a slow client's queue is down to the low-water mark,
// and that no frame in it has reached a quarter of the high-water age.
func (s *Shard) noteDrained(c *Conn) {
	if c.is(slow) && c.end() == nil && !c.above(&s.eng.lowMark) && !s.stale(c) {
		c.unset(slow)
		s.stats.slow.add(^uint64(0))
		s.eng.handler.OnDrain(c)
	}
}
