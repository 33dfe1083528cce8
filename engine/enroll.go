package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// enrolling is the part of a net/http connection that its loop needs to open
// it. It is kept apart from gnet's context, which would hold it for the
// connection's life. The loop and Enroll's deadline both try to take it out of
// Engine.enrolling; the first one decides.
type enrolling struct {
	arrival
	response []byte    // to the handshake
	early    []byte    // bytes that net/http had read behind the request
	began    time.Time // start of the handshake
}

// Enroll hands nc to the loop of the decision's Placement, or to the loop with
// the fewest connections. nc is a *net.TCPConn, *net.UnixConn, or a *tls.Conn on
// one of them with a finished handshake (see CheckEnroll). The loop writes the
// response of the decision first, then takes early as the first received bytes;
// both are owned. When Enroll returns without an
// error, the connection is open, nc is closed in favor of a duplicate, and no
// goroutine stays. On an error nc is closed. If ctx ends before the loop has
// taken the connection, the peer is refused with 503, and Enroll returns the
// error of ctx.
func (e *Engine) Enroll(ctx context.Context, c *Conn, nc net.Conn, d Decision, early []byte) error {
	if !e.beginEnroll() {
		e.Uncount(c)
		_ = nc.Close()
		return ErrStopped
	}
	_ = nc.SetDeadline(time.Time{})
	if tc, ok := nc.(*tls.Conn); ok {
		nc = c.adopt(tc)
	}
	from := arrival{place: e.placeFor(d.Placement), peer: c.peerAddr(), foreign: true}
	return e.hand(ctx, c, nc, &enrolling{from, d.Response, early, d.Began})
}

// hand hands nc to the loop of a place, and waits until it has taken c; see
// Enroll. The call is counted by beginEnroll.
func (e *Engine) hand(ctx context.Context, c *Conn, nc net.Conn, brought *enrolling) error {
	p := brought.place
	e.enrolling.Store(c, brought)
	result, err := p.shard.driver.Enroll(gnet.NewContext(ctx, c), nc)
	if err != nil {
		p.giveUp()
	} else {
		err = p.await(result, ctx.Done())
	}
	_, untaken := e.enrolling.LoadAndDelete(c)
	if untaken {
		e.Uncount(c)
	}
	held := errors.Is(err, errLoopHeld)
	if held {
		go func() { _ = p.await(result, nil) }() // ends with the loop at the latest
	}
	switch {
	case held && !untaken:
		return nil // the loop is opening it
	case held:
		refuseHeld(nc, c.tls() == nil)
		return ctx.Err()
	case err == nil && !c.Opened():
		err = ErrClosed // no descriptors left, or the loop could not take it
	}
	if err != nil {
		_ = nc.Close()
	}
	return err
}

// errLoopHeld is the error for a connection that its loop has not taken in
// time.
var errLoopHeld = errors.New("ws: the event loop does not take the connection")

// refuseHeld refuses the peer of nc while a held loop has a duplicate of the
// socket. With TLS it writes no answer, because the TLS state belongs to the loop
// by now.
func refuseHeld(nc net.Conn, plain bool) {
	_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
	if plain {
		_, _ = nc.Write(codec.AppendRefusal(nil, 503, "server is busy", nil))
	}
	if raw, err := nc.(syscall.Conn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	_ = nc.Close()
}

// place counts one connection on its way to a loop, from the choice of the loop
// until the loop has taken the connection.
type place struct {
	shard *Shard
	taken atomic.Bool
}

// take ends the place: the loop counts the connection itself, or there is none.
func (p *place) take() {
	if !p.taken.Swap(true) {
		p.shard.enrolls.Add(-1)
	}
}

// giveUp ends the place of a connection that was not handed over.
func (p *place) giveUp() {
	p.take()
	p.shard.eng.enrolls.Done()
}

// await waits until the loop has taken the connection or has ended, and ends
// the place. If held comes first, it returns errLoopHeld, and must be called
// again without held, if necessary on its own goroutine.
func (p *place) await(result <-chan gnet.RegisteredResult, held <-chan struct{}) error {
	select {
	case r, ok := <-result:
		p.giveUp()
		if !ok {
			return ErrClosed // gnet has panicked
		}
		return r.Err
	case <-p.shard.eng.stopped:
		p.giveUp()
		return ErrStopped
	case <-held:
		return errLoopHeld
	}
}

// beginEnroll counts one call of a loop's Enroll, which must end with
// place.await or giveUp. It returns false once the engine is draining.
func (e *Engine) beginEnroll() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Load() {
		return false
	}
	e.enrolls.Add(1)
	return true
}

// choosePlace takes a place on the shard with the fewest connections. So a
// burst is spread over the shards, and a held loop gets no more than the others
// have.
func (e *Engine) choosePlace() *place {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.shards[0]
	for _, t := range e.shards[1:] {
		if t.load() < s.load() {
			s = t
		}
	}
	return s.place()
}

// place takes a place on s.
func (s *Shard) place() *place {
	s.enrolls.Add(1)
	return &place{shard: s}
}

// load returns the number of connections of s, with those on their way to it.
func (s *Shard) load() int { return int(s.stats.connections.Load()) + int(s.enrolls.Load()) }

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
// precede this one. When the gate gives no permits any more, it refuses the peer.
func (g *acceptGate) enroll(fd int, from arrival, choose func() *place) {
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

// enroll hands a duplicate of an accepted socket to the loop. fd stays open.
// Without an error the connection is enrolled, or a goroutine enrolls it later.
func (p *place) enroll(fd int, from arrival) error {
	from.place = p
	nc, err := connOf(fd)
	if err != nil {
		p.giveUp()
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), enrollTime)
	defer cancel()
	result, err := p.shard.driver.Enroll(gnet.NewContext(ctx, from), nc)
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
func (p *place) enrollLate(result <-chan gnet.RegisteredResult, fd int, from arrival) error {
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
