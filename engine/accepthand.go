package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

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
		g.enqueueLocked(&l.turn, turnAccept)
		g.serveLocked(time.Now())
	})
}

// handOver accepts one connection from l and enrolls it.
func (g *acceptGate) handOver(l *loopListener) {
	fd, err := g.acceptOne(l)
	if err != nil {
		return
	}
	g.enroll(fd, acceptedByUs{}, l.shard.place)
	_ = unix.Close(fd)
}

const (
	// maxEnrolls bounds the accepted sockets in transit to one loop. A loop
	// with more of them is held.
	maxEnrolls = 64
	// enrollTime is the time after which an accepted socket stays with a slow
	// loop in the background, so that the next socket need not wait.
	enrollTime = 10 * time.Millisecond
)

// enroll hands the accepted socket fd, which stays open, to a loop on which
// choose returns a place; from describes the socket. It waits while no
// descriptor is free for that, or while the loop is held and many sockets
// precede this one. When the gate gives no turns any more, it refuses the peer.
func (g *acceptGate) enroll(fd int, from acceptedByUs, choose func() *place) {
	for g.eng.beginEnroll() {
		p := choose()
		if p.shard.enrolls.Load() > maxEnrolls {
			p.giveUp()
			g.rest()
		} else if err := p.enroll(fd, from); isExhausted(err) {
			g.exhausted(err)
		} else {
			return // it is enrolled, or its peer has gone
		}
		if g.isOver() {
			break
		}
	}
	g.eng.refuseSocket(fd)
}

// isOver reports whether the gate gives no turns any more.
func (g *acceptGate) isOver() bool {
	select {
	case <-g.over:
		return true
	default:
		return false
	}
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

// enroll hands a duplicate of an accepted socket to the loop. fd stays open.
// Without an error the connection is enrolled, or a goroutine enrolls it later.
func (p *place) enroll(fd int, from acceptedByUs) error {
	from.place = p
	nc, err := connOf(fd)
	if err != nil {
		p.giveUp()
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), enrollTime)
	defer cancel()
	result, err := p.shard.loop.Enroll(gnet.NewContext(ctx, from), nc)
	if err != nil {
		p.giveUp()
		_ = nc.Close()
		return err
	}
	if err = p.await(result, ctx.Done()); errors.Is(err, errLoopHeld) {
		return p.enrollLate(result, fd, from)
	}
	return err
}

// enrollLate waits in a goroutine for a loop that has not taken the socket in
// time, and enrolls it once more if gnet finds no descriptor for it.
func (p *place) enrollLate(result <-chan gnet.RegisteredResult, fd int, from acceptedByUs) error {
	kept, err := duplicate(fd)
	if err != nil {
		return p.await(result, nil) // nothing else could be accepted, either
	}
	go func() { // ends with the loop at the latest
		if err := p.await(result, nil); isExhausted(err) {
			g := p.shard.eng.accept
			g.exhausted(err)
			g.enroll(kept, from, p.shard.place)
		}
		_ = unix.Close(kept)
	}()
	return nil
}

// duplicate returns a duplicate of fd.
func duplicate(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return dup, os.NewSyscallError("fcntl", err)
}

// connOf returns a connection on a duplicate of fd.
func connOf(fd int) (net.Conn, error) {
	dup, err := duplicate(fd)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(dup), "accepted")
	nc, err := net.FileConn(file) // one more duplicate
	_ = file.Close()
	if err != nil {
		return nil, err
	}
	if nc.RemoteAddr() == nil { // the peer has gone; gnet would panic and lose a descriptor
		_ = nc.Close()
		return nil, net.ErrClosed
	}
	return nc, nil
}
