package engine

import (
	"github.com/qi-realtime/ws/codec"
)

// doom closes c's socket at the end of the running callback or turn. It is
// never done at once, because gnet calls OnClose from within, and fan-out
// iterates over what OnClose changes.
func (s *Shard) doom(c *Conn, err error) {
	s.mustBeInLoop()
	if c.is(doomed) {
		return
	}
	c.set(doomed)
	if c.end() == nil {
		c.setEnd(&CloseInfo{Code: codec.CloseAbnormal, Err: err})
	}
	s.doomed = append(s.doomed, c)
}

// reap closes the doomed connections, and begins the close handshake of the
// disconnected ones.
func (s *Shard) reap() {
	for len(s.disconnected) > 0 {
		last := len(s.disconnected) - 1
		c := s.disconnected[last]
		s.disconnected[last] = nil
		s.disconnected = s.disconnected[:last]
		if c.state.Load() != stateClosed {
			s.unpause(c, pausedFlags)
			s.noteSpace(c)
			s.pushLast(c, codec.AppendClose(nil, c.end().Code, c.end().Reason))
			c.owner.OnClosing()
			s.wheel.schedule(c, s.eng.after(s.eng.cfg.CloseTimeout))
		}
	}
	for len(s.doomed) > 0 {
		c := s.doomed[len(s.doomed)-1]
		s.doomed[len(s.doomed)-1] = nil
		s.doomed = s.doomed[:len(s.doomed)-1]
		if c.state.Load() != stateClosed {
			s.closeNotify(c)
			s.closeSocket(c)
		}
	}
}
