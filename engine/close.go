package engine

import (
	"github.com/qi-realtime/ws/codec"
)

// closeLater closes c's socket at the end of the running callback or turn. It never
// closes at once, because gnet calls OnClose within the close, and OnClose
// changes lists over which a fan-out iterates.
func (s *Shard) closeLater(c *Conn, err error) {
	s.mustBeInLoop()
	if c.is(pendingClose) {
		return
	}
	c.set(pendingClose)
	if c.end() == nil {
		c.setEnd(&CloseInfo{Code: codec.CloseAbnormal, Err: err})
	}
	s.pendingCloses = append(s.pendingCloses, c)
}

// maxPendingCloses is the number of connections that a callback, or a turn whose time is
// over, closes at its end.
const maxPendingCloses = 64

// closePending begins the close handshake of the disconnected connections and runs the
// pending closes. It returns false if the turn's time is over before all are
// done.
func (s *Shard) closePending() (done bool) {
	for n := 0; len(s.disconnected) > 0 || len(s.pendingCloses) > 0; n++ {
		if n >= maxPendingCloses && s.clock.outOfTime() {
			return false
		}
		s.clock.work += writeWork
		if len(s.disconnected) > 0 {
			s.closeDisconnected(takeFirst(&s.disconnected))
		} else {
			s.closeNow(takeFirst(&s.pendingCloses))
		}
	}
	return true
}

// takeFirst takes the first of conns. It releases the array when conns becomes
// empty.
func takeFirst(conns *[]*Conn) *Conn {
	c := (*conns)[0]
	(*conns)[0] = nil
	if *conns = (*conns)[1:]; len(*conns) == 0 {
		*conns = nil
	}
	return c
}

func (s *Shard) closeDisconnected(c *Conn) {
	if c.state.Load() == stateClosed {
		return
	}
	s.unpause(c, pausedFlags)
	s.noteSpace(c)
	s.pushLast(c, codec.AppendClose(nil, c.end().Code, c.end().Reason))
	c.owner.OnClosing()
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
}

func (s *Shard) closeNow(c *Conn) {
	if c.state.Load() != stateClosed {
		s.closeNotify(c)
		s.closeSocket(c)
	}
}
