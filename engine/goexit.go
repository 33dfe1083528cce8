package engine

import (
	"errors"

	"github.com/qi-realtime/ws/internal/loglimit"
)

// A handler that calls runtime.Goexit, as FailNow of a test does, ends its
// goroutine. Nothing can stop that; deferred functions run. If the goroutine is
// an event loop, nothing serves its connections any more, so the engine ends:
// Run returns errGoexit. All callbacks of gnet, and so all user code on the
// loops, defer notice.

var errGoexit = errors.New("ws: runtime.Goexit in a handler has ended an event loop")

// notice must be deferred by each callback on a loop. ended is true if the
// callback ends without a return.
func (e *Engine) notice(ended *bool) {
	if *ended {
		if s := e.callersShard(); s != nil {
			s.endLoop()
		}
	}
}

// endLoop ends the engine, and then closes the connections of this loop, whose
// goroutine is about to end. It runs among the deferred functions of that
// goroutine.
func (s *Shard) endLoop() {
	e := s.eng
	if s.ended {
		return // a callback within another one
	}
	s.ended = true
	e.cfg.Logger.Error("ws: runtime.Goexit in a handler has ended an event loop", loglimit.Stack())
	e.mu.Lock()
	if e.failed == nil {
		e.failed = errGoexit
	}
	e.mu.Unlock()
	e.halt()
	s.reading, s.reply = nil, replyBatch{}
	s.driver.ended()
	s.closeAllSockets()
}

// closeAllSockets closes the connections of the loop at once, as gnet would
// when the loop returns.
func (s *Shard) closeAllSockets() {
	conns := make([]*Conn, 0, s.wheel.size)
	s.wheel.each(func(c *Conn) { conns = append(conns, c) })
	defer func() { // some are left if a callback calls Goexit again
		for _, c := range conns {
			if c.state.Load() != stateClosed {
				s.driver.release(c)
			}
		}
	}()
	for len(conns) > 0 {
		c := conns[0]
		conns = conns[1:]
		s.closeGuarded(c)
	}
}

func (s *Shard) closeGuarded(c *Conn) {
	defer s.eng.guard("close")
	if c.state.Load() != stateClosed {
		s.driver.close(c)
	}
}
