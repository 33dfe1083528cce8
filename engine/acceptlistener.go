package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// loopListener is the listening socket of one loop.
type loopListener struct {
	permit
	loop   *gnetLoop
	fd     int
	index  int           // among the gate's listeners
	credit atomic.Int32  // connections that the loop may accept before it asks again
	state  listenerState // guarded by acceptGate.mu, like the fields below
	inLoop bool          // it is in the loop's epoll
	seen   int32         // credit at the last look
}

type listenerState uint8

const (
	listenerIdle listenerState = iota
	listenerWaiting
	listenerArmed
	listenerByHand
)

// A loop may accept one connection for each perCredit free descriptors, but at
// least one and at most maxCredit, before it asks again. Asking takes a tenth
// of the time of an accept.
const (
	perCredit = 2048
	maxCredit = 64
)

// arm lets the loop accept credit connections. The caller holds the gate's mu.
func (l *loopListener) arm(credit int) error {
	l.state, l.seen = listenerArmed, int32(credit)
	l.credit.Store(int32(credit))
	if l.inLoop {
		return nil
	}
	l.inLoop = true
	return l.loop.ready.Load().resume(l.fd)
}

// disarm removes the listener from the loop's epoll. The loop may accept one
// more connection after it. The caller holds the gate's mu.
func (l *loopListener) disarm() {
	l.credit.Store(0)
	if l.inLoop {
		l.inLoop = false
		_ = l.loop.ready.Load().pause(l.fd) // fails only for a closed descriptor
	}
}

// adopt moves the listeners from the loops' epolls to the gate's. It is called
// once, when the epolls are known.
func (g *acceptGate) adopt() {
	g.mu.Lock()
	defer g.unlock()
	if g.watch == nil || g.closed {
		return
	}
	for _, loop := range g.eng.loops {
		for _, fd := range loop.ready.Load().listeners {
			l := &loopListener{loop: loop, fd: fd, index: len(g.listeners)}
			l.listener = l
			err := loop.ready.Load().pause(fd)
			if err == nil {
				err = g.watch.add(fd, l.index)
			}
			if err != nil {
				g.logLocked(slog.LevelWarn, "ws: a listener cannot be paused", slog.Any("error", err))
				_ = loop.ready.Load().resume(fd)
				continue
			}
			loop.listener.Store(l)
			g.listeners = append(g.listeners, l)
		}
	}
}

// accepted is called on a loop that has accepted a connection. It reports
// whether the gate has granted that.
func (g *acceptGate) accepted(loop *gnetLoop) bool {
	l := loop.listener.Load()
	if l == nil {
		return false
	}
	if l.credit.Add(-1) > 0 {
		return true
	}
	g.mu.Lock()
	defer g.unlock()
	if g.closed || l.state != listenerArmed {
		return true // the accept was in progress when l was disarmed
	}
	g.armed--
	if !g.grantsAheadLocked() && !readable(l.fd) {
		g.idleLocked(l)
		return true
	}
	l.state = listenerWaiting
	g.enqueueLocked(&l.permit, permitAccept)
	g.serveLocked(time.Now())
	if l.state != listenerArmed {
		l.disarm()
	}
	return true
}

// grantsAheadLocked reports whether a listener stays armed although no
// connection may wait on it, until checkArmedLocked finds that none has come. So
// a steady stream of connections does not wake the gate for each credit. A
// token of the pace and a scarce descriptor are only for a connection that
// waits.
func (g *acceptGate) grantsAheadLocked() bool {
	return g.pace.perSecond == 0 && g.usage.left-g.usage.granted >= scarceDescriptors
}

// idleLocked watches l for the next connection.
func (g *acceptGate) idleLocked(l *loopListener) {
	l.disarm()
	l.state = listenerIdle
	if err := g.watch.arm(l.fd, l.index); err != nil {
		g.logLocked(slog.LevelError, "ws: watching a listener", slog.Any("error", err))
	}
}

// outstandingLocked returns the number of connections that the loops may still
// accept.
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

// checkArmedLocked disarms the listeners on which the loops accept nothing now,
// and all if the descriptors have run out since they were armed.
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
			g.enqueueLocked(&l.permit, permitAccept)
		case credit == l.seen && !readable(l.fd):
			g.armed--
			g.idleLocked(l)
		}
		l.seen = credit
	}
}

// scarceDescriptors is the number of free descriptors below which gnet does not
// accept. gnet ends all loops when an accept finds no descriptor, and others
// could use up the last ones between the look and the accept. The gate then
// accepts itself, where a failure ends nothing, and enrolls the connection,
// which takes about twice the time.
const scarceDescriptors = 4096

// acceptByHand accepts one connection from l and hands it to l's loop. The
// caller holds the gate's mu.
func (g *acceptGate) acceptByHand(l *loopListener) {
	l.disarm()
	l.state = listenerByHand
	g.usage.granted++
	g.hands.Go(func() { // owned by the gate: stop waits for it
		g.handOver(l)
		g.mu.Lock()
		defer g.unlock()
		if g.closed {
			return
		}
		if !readable(l.fd) {
			g.idleLocked(l)
			return
		}
		l.state = listenerWaiting
		g.enqueueLocked(&l.permit, permitAccept)
		g.serveLocked(time.Now())
	})
}

// handOver accepts one connection from l and enrolls it.
func (g *acceptGate) handOver(l *loopListener) {
	fd, err := g.acceptOne(l)
	if err != nil {
		return
	}
	g.enroll(fd, arrival{}, l.loop.shard.place)
	_ = unix.Close(fd)
}

// acceptOne accepts one connection. It returns an error if none waits or the
// gate is closed.
func (g *acceptGate) acceptOne(l *loopListener) (fd int, err error) {
	for !g.isOver() {
		fd, err = acceptSocket(l.fd)
		switch {
		case err == nil:
			return fd, nil
		case isExhausted(err):
			g.exhausted(err)
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
			return -1, err
		}
	}
	return -1, ErrStopped
}

// isExhausted reports whether err means that descriptors or memory have run
// out.
func isExhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) ||
		errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// isOver reports whether the gate gives no permits any more.
func (g *acceptGate) isOver() bool {
	select {
	case <-g.over:
		return true
	default:
		return false
	}
}

// giveUp stops accepting for good: connections in the backlog are refused, and
// later ones cannot connect. It waits for the loops, or until ctx ends.
func (g *acceptGate) giveUp(ctx context.Context) {
	listeners := g.removeListeners()
	for _, l := range listeners {
		if !g.eng.awaitRound(ctx, l.loop) {
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

// removeListeners removes the listeners from all epolls and returns them. Calls
// after the first return none.
func (g *acceptGate) removeListeners() []*loopListener {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closeLocked()
	for _, l := range g.listeners {
		_ = l.loop.ready.Load().remove(l.fd)
		g.watch.remove(l.fd)
	}
	return g.listeners
}

// awaitRound waits until loop has handled all events that its epoll
// had reported. Until then the loop may accept from a removed listener, and
// gnet ends all loops if that listener has been shut down meanwhile. It returns
// false if ctx or the engine ends first.
func (e *Engine) awaitRound(ctx context.Context, loop *gnetLoop) bool {
	done := make(chan struct{})
	e.gate.RLock()
	// gnet runs tasks after the events of a round.
	if !e.halting.Load() {
		_ = loop.Execute(ctx, gnet.RunnableFunc(func(context.Context) error {
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

// maxBacklog bounds the connections that are refused when a listener is given
// up.
const maxBacklog = 1 << 14

// refuseBacklog refuses the connections in a listener's backlog and prevents
// new ones.
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

// refuseSocket answers the peer of a socket that is on no loop with the reason
// of its refusal.
func (e *Engine) refuseSocket(fd int) {
	endSocket(fd, e.earlyRefusal(errStopping))
}
