package engine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
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

// OnTick runs on a goroutine of gnet, off the loops.
func (ev *events) OnTick() (time.Duration, gnet.Action) {
	e := (*Engine)(ev)
	e.tickOnce.Do(func() { close(e.ticking) })
	return e.pulse(), gnet.None
}

// OnOpen takes a new connection: one that the loop accepted, one that Enroll
// hands over, or the loop's waker.
func (ev *events) OnOpen(gc gnet.Conn) (out []byte, action gnet.Action) {
	ended := true
	defer (*Engine)(ev).notice(&ended)
	out, action = ev.opened(gc)
	ended = false
	return out, action
}

// opened is OnOpen without the guard against Goexit.
func (ev *events) opened(gc gnet.Conn) (out []byte, action gnet.Action) {
	e := (*Engine)(ev)
	l := e.bind(gc.EventLoop())
	switch from := gc.Context().(type) {
	case *wakerEnd:
		if l.waker.Load() != nil {
			return nil, gnet.Close
		}
		from.waker.loopFD, from.waker.loopEnd = gc.Fd(), gc
		l.waker.Store(from.waker)
		return nil, gnet.None
	case *Conn:
		if gc.Fd() < e.accept.limit() {
			if brought, ok := e.enrolling.LoadAndDelete(from); ok {
				brought := brought.(*enrolling)
				defer brought.place.take()
				return nil, l.shard.attach(gc, from, brought, brought.arrival)
			}
		}
		gc.SetContext(nil) // Enroll has given up, or will
		return nil, gnet.Close
	}
	a, byUs := gc.Context().(arrival)
	if byUs {
		defer a.place.take()
	}
	a.refusal = e.admitPeer(l, gc.Fd(), byUs)
	switch {
	case a.refusal == nil && !e.admitArrival(gc.Fd(), gc.RemoteAddr(), &a):
		return nil, gnet.Close
	case a.refusal == errTooMany:
		e.cfg.Logger.Warn("ws: no descriptors left, connection refused")
		return e.earlyRefusal(a.refusal), gnet.Close
	}
	return nil, l.shard.attach(gc, nil, nil, a)
}

// OnTraffic processes the bytes that a connection has received.
func (ev *events) OnTraffic(gc gnet.Conn) (action gnet.Action) {
	ended := true
	defer (*Engine)(ev).notice(&ended)
	action = ev.traffic(gc)
	ended = false
	return action
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
		l := e.bind(gc.EventLoop())
		l.shard.turn()
		l.await()
		return gnet.None
	}
	l := c.shard.driver // c may move to another loop
	c.traffic()
	l.await()
	return gnet.None
}

// OnClose ends a connection that either side has closed.
func (ev *events) OnClose(gc gnet.Conn, err error) gnet.Action {
	ended := true
	defer (*Engine)(ev).notice(&ended)
	defer func() {
		if ended {
			_ = unix.Close(gc.Fd()) // gnet would do so after this callback
		}
	}()
	ev.closed(gc, err)
	ended = false
	return gnet.None
}

// closed is OnClose without the guard against Goexit.
func (ev *events) closed(gc gnet.Conn, err error) {
	defer (*Engine)(ev).guard("close")
	switch c := gc.Context().(type) {
	case *wakerEnd: // the loop ends
		(*Engine)(ev).bind(gc.EventLoop()).shard.closeAllHalfClosed()
	case *Conn:
		if !c.shard.keepHalfClosed(c, err) {
			c.shard.detach(c, err)
		}
	}
}

// Run implements gnet.Runnable. It takes one turn at the inbox.
func (s *Shard) Run(context.Context) error {
	ended := true
	defer s.eng.notice(&ended)
	s.guardedTurn()
	ended = false
	return nil
}

// bind returns the driver of a loop. It runs on that loop. The first call for a
// loop takes the next free shard.
func (e *Engine) bind(loop gnet.EventLoop) *gnetLoop {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.loops[:e.bound] {
		if l.eventLoop == loop {
			return l
		}
	}
	l := e.loops[e.bound]
	l.eventLoop = loop
	l.shard.bindInLoop()
	l.shard.batch = newBatch(&e.cfg)
	e.bound++
	return l
}

// options returns gnet's settings. Each loop accepts for itself (SO_REUSEPORT),
// so connections that are refused for lack of descriptors cannot outrun the
// loops that refuse them, and no second goroutine hands connections over.
func (e *Engine) options() []gnet.Option {
	return []gnet.Option{
		gnet.WithSocketRecvBuffer(e.cfg.RecvBuffer), // of the listeners, because the TCP window is negotiated with it
		gnet.WithSocketSendBuffer(e.cfg.SendBuffer),
		gnet.WithNumEventLoop(e.cfg.Loops),
		gnet.WithReusePort(true),
		gnet.WithReuseAddr(true),                      // otherwise a restart fails while old connections are in TIME_WAIT
		gnet.WithLoadBalancing(gnet.LeastConnections), // RoundRobin races with Register
		gnet.WithTicker(true),
		gnet.WithLogger(logger{e.cfg.Logger}),
	}
}

// logger sends gnet's messages to a slog.Logger. gnet logs its own starts and
// stops at the info level; here they are debug messages.
type logger struct{ l *slog.Logger }

// Debugf drops gnet's debug messages.
func (g logger) Debugf(string, ...any) {}

// Infof logs at the debug level.
func (g logger) Infof(format string, args ...any) {
	g.log(slog.LevelDebug, "gnet: info", format, args)
}

// Warnf logs at the debug level. All warnings of gnet concern events for a
// connection that was closed in the same round, one line for each, which is
// normal when many connections break at once.
func (g logger) Warnf(format string, args ...any) {
	g.log(slog.LevelDebug, "gnet: warning", format, args)
}

// Errorf logs at the error level.
func (g logger) Errorf(format string, args ...any) {
	g.log(slog.LevelError, "gnet: error", format, args)
}

// Fatalf does not exit, because that is the application's decision.
func (g logger) Fatalf(format string, args ...any) {
	g.log(slog.LevelError, "gnet: fatal error", format, args)
}

// log logs gnet's text as an attribute, because the messages are counted by
// their text.
func (g logger) log(level slog.Level, message, format string, args []any) {
	ctx := context.Background()
	if g.l.Enabled(ctx, level) {
		g.l.LogAttrs(ctx, level, message, slog.String("text", fmt.Sprintf(format, args...)))
	}
}
