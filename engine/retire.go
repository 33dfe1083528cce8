package engine

import (
	"time"

	"github.com/qi-realtime/ws/codec"
)

// A connection retires because a drain empties the server (paceddrain.go), or because its
// lifetime is over (lifetime.go). It retires in these steps, and no message is lost in either direction:
//
//	retire        a peer that understands the notice gets it, and has Settle to move: to open
//	              a new connection and to close this one
//	leave         the connection is paused until the messages of its peer are answered, for
//	              CloseTimeout at most
//	closeRetired  nothing more is accepted; the close frame goes behind everything that was
//	              accepted
//
// The messages that the peer sends before its own close frame are handed over, although they
// come after our close frame and cannot be answered any more: RFC 6455 section 5.5.1 forbids
// sending after a close frame, not receiving.

// Retirement describes the steps. Immutable.
type Retirement struct {
	Settle time.Duration        // the time that a peer has after the notice; not positive sends no notice
	Code   codec.CloseCode      // of the close frame
	Reason func() string        // returns the reason of one close frame
	Notice func(c *Conn) *Frame // returns the notice for c, nil if its peer does not understand one
}

// mayRetire reports whether c can begin to retire. A connection that waits for Release comes
// later.
func (c *Conn) mayRetire() bool {
	return c.isLeft() && !c.is(noticed|withheld) && c.heldEnd() == nil
}

// isLeft reports whether c has yet to close at the end of a drain.
func (c *Conn) isLeft() bool {
	return c.is(opened) && !c.is(pendingClose|lingering) && c.Open() && c.end() == nil
}

// retire begins to end c.
func (c *Conn) retire(r *Retirement) {
	var notice *Frame
	if r.Settle > 0 {
		notice = r.Notice(c)
	}
	if notice == nil {
		c.leave(r)
		return
	}
	c.set(noticed)
	c.shard.wheel.schedule(c, c.shard.eng.after(r.Settle))
	notice = c.variant(notice)
	c.forceReserve(notice) // it has space, because there is one for each connection
	c.pushInLoop(notice)
}

// leave closes c behind the answers to the messages that it has handed over.
func (c *Conn) leave(r *Retirement) {
	s := c.shard
	if c.owner().OnEnding() {
		c.closeRetired(r)
		return
	}
	c.pause(pausedByOwner)
	c.holdEnd(&CloseInfo{retires: true})
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
}

// closeRetired closes c behind everything that was accepted for it.
func (c *Conn) closeRetired(r *Retirement) {
	s := c.shard
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
	if c.is(retired) || c.state.CompareAndSwap(stateOpen, stateClosing) {
		c.set(retired)
		s.Post(&closeTask{conn: c, code: r.Code, reason: r.Reason()})
	}
}

// awaitTransit makes c close a tick later if frames that were accepted for it are not in its
// queue yet, because their sender has reserved the space and has yet to post them. It reports
// whether there are any.
func (c *Conn) awaitTransit() bool {
	if c.end() != nil || c.state.Load() != stateClosing {
		return false
	}
	for lane := range c.queued {
		if queuedFrames(c.queued[lane].Load()) > c.out.counted(Lane(lane)) {
			c.shard.wheel.schedule(c, c.shard.eng.now.Load()+1)
			return true
		}
	}
	return false
}

// countEnd counts the end of c by the part that a drain had in it.
func (s *Shard) countEnd(c *Conn) {
	switch {
	case s.eng.paced.Load() == nil:
	case c.is(forced):
		s.stats.drainForced.add(1)
	case c.is(retired):
		s.stats.drainClosed.add(1)
	case c.is(noticed):
		s.stats.drainMoved.add(1)
	default:
		s.stats.drainLeft.add(1)
	}
}
