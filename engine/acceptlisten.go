package engine

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// loopListener is the listening socket of one loop.
type loopListener struct {
	turn
	shard  *Shard
	fd     int
	index  int           // among the gate's listeners
	credit atomic.Int32  // connections that the loop may accept before it asks again
	state  listenerState // guarded by acceptGate.mu, as what follows
	inLoop bool          // the loop's epoll has it
	seen   int32         // credit at the last look
}

type listenerState uint8

const (
	listenerIdle listenerState = iota
	listenerWaiting
	listenerArmed
	listenerByHand
)

// A loop may accept one connection for each perCredit descriptors that are left,
// at least one, before it asks again: asking takes a tenth of the time of an
// accept.
const (
	perCredit = 2048
	maxCredit = 64
)

// arm lets the loop accept credit connections. The gate's mu is held.
func (l *loopListener) arm(credit int) error {
	l.state, l.seen = listenerArmed, int32(credit)
	l.credit.Store(int32(credit))
	if l.inLoop {
		return nil
	}
	l.inLoop = true
	return l.shard.ready.Load().resume(l.fd)
}

// disarm takes the listener out of the loop's epoll. The gate's mu is held. At
// most one connection is accepted after it, if the loop is about to.
func (l *loopListener) disarm() {
	l.credit.Store(0)
	if l.inLoop {
		l.inLoop = false
		_ = l.shard.ready.Load().pause(l.fd) // fails for a closed descriptor only
	}
}

// adopt takes the listeners out of the loops' epolls and watches them itself.
// It is called once, when the epolls are known.
func (g *acceptGate) adopt() {
	g.mu.Lock()
	defer g.unlock()
	if g.watch == nil || g.closed {
		return
	}
	for _, s := range g.eng.shards {
		for _, fd := range s.ready.Load().listeners {
			l := &loopListener{shard: s, fd: fd, index: len(g.listeners)}
			l.listener = l
			err := s.ready.Load().pause(fd)
			if err == nil {
				err = g.watch.add(fd, l.index)
			}
			if err != nil {
				g.logLocked(slog.LevelWarn, "ws: a listener cannot be paused", slog.Any("error", err))
				_ = s.ready.Load().resume(fd)
				continue
			}
			s.listener.Store(l)
			g.listeners = append(g.listeners, l)
		}
	}
}

// accepted is called on a loop that has accepted a connection. It reports
// whether the gate has let it in.
func (g *acceptGate) accepted(s *Shard) bool {
	l := s.listener.Load()
	if l == nil {
		return false
	}
	if l.credit.Add(-1) > 0 {
		return true
	}
	more := readable(l.fd)
	g.mu.Lock()
	defer g.unlock()
	if g.closed || l.state != listenerArmed {
		return true // it was about to be accepted when l was disarmed
	}
	g.armed--
	if !more {
		g.idleLocked(l)
		return true
	}
	l.state = listenerWaiting
	g.enqueueLocked(&l.turn, turnAccept)
	g.serveLocked(time.Now())
	if l.state != listenerArmed {
		l.disarm()
	}
	return true
}

// idleLocked watches l for the next connection.
func (g *acceptGate) idleLocked(l *loopListener) {
	l.disarm()
	l.state = listenerIdle
	if err := g.watch.arm(l.fd, l.index); err != nil {
		g.logLocked(slog.LevelError, "ws: watching a listener", slog.Any("error", err))
	}
}

// outstandingLocked returns how many connections the loops may still accept.
func (g *acceptGate) outstandingLocked() (n int) {
	if g.armed == 0 {
		return 0
	}
	for _, l := range g.listeners {
		if l.state == listenerArmed {
			n += int(max(l.credit.Load(), 0))
		}
	}
	return n
}

// checkArmedLocked disarms the listeners on which the loops accept nothing at the
// time, and all if the descriptors have run out since they were armed.
func (g *acceptGate) checkArmedLocked(now time.Time) {
	if g.armed == 0 {
		return
	}
	exhausted := g.usage.exhausted(now, g.outstandingLocked())
	for _, l := range g.listeners {
		if l.state != listenerArmed {
			continue
		}
		credit := l.credit.Load()
		switch {
		case exhausted:
			g.armed--
			l.disarm()
			l.state = listenerWaiting
			g.enqueueLocked(&l.turn, turnAccept)
		case credit == l.seen && !readable(l.fd):
			g.armed--
			g.idleLocked(l)
		}
		l.seen = credit
	}
}

// giveUp stops accepting for good: who is in the backlog is refused, who comes
// later cannot connect. It waits for the loops, or until ctx ends.
func (g *acceptGate) giveUp(ctx context.Context) {
	listeners := g.removeListeners()
	for _, l := range listeners {
		if !g.eng.awaitRound(ctx, l.shard) {
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending {
		return // the sockets may be closed
	}
	for _, l := range listeners {
		g.eng.refuseBacklog(l.fd)
	}
}

// removeListeners takes the listeners out of all epolls and returns them. Calls
// after the first return none.
func (g *acceptGate) removeListeners() []*loopListener {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closeLocked()
	for _, l := range g.listeners {
		_ = l.shard.ready.Load().remove(l.fd)
		g.watch.remove(l.fd)
	}
	return g.listeners
}

// awaitRound waits until the loop of s has acted on all events that its epoll had
// reported: until then it may accept from a listener that was removed, and gnet
// ends all loops if that has been shut down meanwhile. It returns false if ctx or
// the engine ends first.
func (e *Engine) awaitRound(ctx context.Context, s *Shard) bool {
	done := make(chan struct{})
	e.gate.RLock()
	// gnet runs tasks behind the events of a round.
	if !e.halting.Load() {
		_ = s.loop.Execute(ctx, gnet.RunnableFunc(func(context.Context) error {
			close(done)
			return nil
		}))
	}
	e.gate.RUnlock()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-e.closing:
	case <-e.stopped:
	}
	return false
}

// maxBacklog bounds how many connections are refused when a listener is given
// up.
const maxBacklog = 1 << 14

// refuseBacklog refuses those who wait on a listening socket, and makes sure
// that nobody connects to it any more.
func (e *Engine) refuseBacklog(listener int) {
	for range maxBacklog {
		fd, _, err := unix.Accept(listener)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			break
		}
		_ = unix.SetNonblock(fd, true)
		e.refuseSocket(fd)
		_ = unix.Close(fd)
	}
	_ = unix.Shutdown(listener, unix.SHUT_RD)
}

// refuseSocket answers the peer of a socket that is not on a loop with the reason why it is
// refused. A TLS peer could not read it.
func (e *Engine) refuseSocket(fd int) {
	if e.cfg.TLS == nil {
		_, _ = unix.Write(fd, renderRefusal(errStopping))
	}
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	drainDescriptor(fd)
}
