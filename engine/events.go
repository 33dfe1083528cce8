package engine

import (
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/qi-realtime/ws/codec"
)

// events is the Engine with gnet's callbacks. gnet recovers from no panic, so
// every callback does; see also goexit.go.
type events Engine

// OnBoot runs before the loops start.
func (ev *events) OnBoot(eng gnet.Engine) gnet.Action {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	ev.gnet = eng
	return gnet.None
}

// OnShutdown runs before the loops end.
func (ev *events) OnShutdown(gnet.Engine) { ev.accept.end() }

// OnTick runs on a goroutine of gnet, off the loops. It moves the clock and
// wakes every loop to look at its timers.
func (ev *events) OnTick() (time.Duration, gnet.Action) {
	e := (*Engine)(ev)
	defer e.guard("tick")
	e.tickOnce.Do(func() { close(e.ticking) })
	e.now.Store(uint32(e.elapsed() / e.tickTime))
	if e.handshakes != nil {
		e.handshakes.relieve()
	}
	select {
	case <-e.started:
		for _, s := range e.shards {
			s.wakeUp()
		}
	default:
	}
	return e.tickTime, gnet.None
}

// opened is OnOpen without the guard against Goexit.
func (ev *events) opened(gc gnet.Conn) (out []byte, action gnet.Action) {
	e := (*Engine)(ev)
	s := e.bind(gc.EventLoop())
	switch from := gc.Context().(type) {
	case *wakerEnd:
		if s.wake != nil {
			return nil, gnet.Close
		}
		s.wake = from.waker
		s.wake.loopFD, s.wake.loopEnd = gc.Fd(), gc
		return nil, gnet.None
	case *Conn:
		if gc.Fd() < e.accept.limit() {
			if brought, ok := e.enrolling.LoadAndDelete(from); ok {
				brought := brought.(*enrolling)
				defer brought.place.take()
				return nil, s.attach(gc, from, brought, acceptedByUs{foreign: true})
			}
		}
		gc.SetContext(nil) // Enroll has given up, or will
		return nil, gnet.Close
	}
	ours, byUs := gc.Context().(acceptedByUs)
	if byUs {
		defer ours.place.take()
	}
	if !byUs && !e.accept.accepted(s) && gc.Fd() >= e.accept.limit() {
		e.cfg.Logger.Warn("ws: no descriptors left, connection refused")
		if e.cfg.TLSConfig != nil {
			return nil, gnet.Close
		}
		return codec.AppendRefusal(nil, 503, "too many connections", nil), gnet.Close
	}
	return nil, s.attach(gc, nil, nil, ours)
}

// attach makes c, or a new connection if c is nil, the owner of gc's traffic.
func (s *Shard) attach(gc netConn, c *Conn, from *enrolling, ours acceptedByUs) (action gnet.Action) {
	s.enter()
	defer s.leave()
	defer func() {
		if r := recover(); r != nil {
			s.eng.reportPanic("open", r)
			action = gnet.Close
		}
	}()
	if c == nil {
		c = s.eng.handler.NewConn()
	}
	c.shard, c.gc, c.fd = s, gc, int32(gc.Fd())
	s.tuneSocket(c, ours.foreign)
	if ours.peer != nil {
		c.setPeer(ours.peer)
	} else {
		c.setPeer(gc.RemoteAddr())
	}
	s.peerFields.forget(gc)
	c.generation = s.eng.generations.Add(1)
	c.lastLife = s.presence.ticks
	s.wheel.walk.setVisited(c)
	gc.SetContext(c)
	s.eng.open.Add(1)
	s.stats.connections.add(1)
	if from == nil {
		if s.eng.cfg.TLSConfig != nil {
			c.setTLS(&tlsConn{owner: c})
		}
		s.wheel.schedule(c, s.eng.after(s.eng.cfg.HandshakeTimeout))
		if s.eng.draining.Load() {
			return s.turnAway(c)
		}
		return gnet.None
	}
	s.wheel.schedule(c, s.eng.after(s.eng.cfg.HeartbeatInterval))
	s.open(c, from.response)
	if len(from.early) > 0 {
		s.decode(c, from.early)
	}
	if c.tls() != nil {
		s.openTLS(c, nil) // bytes that crypto/tls has read already
	}
	return gnet.None
}

// traffic is OnTraffic without the guard against Goexit.
func (ev *events) traffic(gc gnet.Conn) (action gnet.Action) {
	e := (*Engine)(ev)
	c, ok := gc.Context().(*Conn)
	if !ok {
		_, _ = gc.Discard(-1)
		if e.halting.Load() {
			return gnet.Shutdown
		}
		e.bind(gc.EventLoop()).turn()
		return gnet.None
	}
	c.shard.traffic(c)
	return gnet.None
}

// closed is OnClose without the guard against Goexit.
func (ev *events) closed(gc gnet.Conn, err error) {
	defer (*Engine)(ev).guard("close")
	switch c := gc.Context().(type) {
	case *wakerEnd: // the loop ends
		(*Engine)(ev).bind(gc.EventLoop()).closeAllHalfClosed()
	case *Conn:
		if !c.shard.keepHalfClosed(c, err) {
			c.shard.detach(c, err)
		}
	}
}
