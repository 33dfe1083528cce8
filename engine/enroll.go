package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// enrolling is the part of a connection of net/http that its loop needs to open
// it. It is kept apart from gnet's context, which would hold it for the
// connection's life. The loop and Enroll's deadline both try to take it out of
// Engine.enrolling: who succeeds decides.
type enrolling struct {
	response []byte // the handshake's answer
	early    []byte // what net/http had read behind the request
}

// Enroll hands nc, a *net.TCPConn, *net.UnixConn, or a *tls.Conn on one of them
// whose handshake is done (see CheckEnroll), to the loop with the fewest
// connections. It writes response there first, then takes early as the
// first bytes received; both are owned. When Enroll returns without an error
// the connection is open, nc is closed in favor of a duplicate, and no
// goroutine stays. On an error nc is closed. If ctx ends before the loop has taken
// the connection, the peer is refused with 503, and Enroll returns the error of ctx.
func (e *Engine) Enroll(ctx context.Context, c *Conn, nc net.Conn, response, early []byte) error {
	if !e.beginEnroll() {
		_ = nc.Close()
		return ErrStopped
	}
	_ = nc.SetDeadline(time.Time{})
	client := nc
	if tc, ok := nc.(*tls.Conn); ok {
		nc = c.adopt(tc)
	}
	e.enrolling.Store(c, &enrolling{response: response, early: early})
	s := e.reserveShard()
	result, err := s.loop.Enroll(gnet.NewContext(ctx, c), nc)
	if err != nil {
		s.enrolled()
	} else {
		err = s.awaitEnroll(result, ctx.Done())
	}
	_, untaken := e.enrolling.LoadAndDelete(c)
	switch {
	case errors.Is(err, errLoopHeld) && !untaken:
		return nil // the loop is opening it
	case errors.Is(err, errLoopHeld):
		refuseHeld(client, nc)
		return ctx.Err()
	case err == nil && !c.Opened():
		err = ErrClosed // no descriptors left, or the loop could not take it
	}
	if err != nil {
		_ = nc.Close()
	}
	return err
}

// errLoopHeld is the error of a connection that its loop has not taken in time.
var errLoopHeld = errors.New("ws: the event loop does not take the connection")

// refuseHeld refuses the peer of client, whose socket is nc, while a loop that is
// held has a duplicate of that socket.
func refuseHeld(client, nc net.Conn) {
	_ = client.SetWriteDeadline(time.Now().Add(time.Second))
	if _, ok := client.(*tls.Conn); !ok { // that is the loop's by now
		_, _ = client.Write(codec.AppendRefusal(nil, 503, "server is busy", nil))
	}
	if raw, err := nc.(syscall.Conn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	_ = nc.Close()
}

// awaitEnroll waits until the loop of s has taken a connection, whose place is
// reserved. It returns errLoopHeld if held comes first; the result is then waited
// for by a goroutine, which ends with the loop at the latest. result never comes if
// the loop ends meanwhile.
func (s *Shard) awaitEnroll(result <-chan gnet.RegisteredResult, held <-chan struct{}) error {
	select {
	case r, ok := <-result:
		s.enrolled()
		if !ok {
			return ErrClosed // gnet has panicked
		}
		return r.Err
	case <-s.eng.stopped:
		s.enrolled()
		return ErrStopped
	case <-held:
		go func() {
			defer s.enrolled()
			select {
			case <-result:
			case <-s.eng.stopped:
			}
		}()
		return errLoopHeld
	}
}

// enrolled ends what beginEnroll and reserveShard began.
func (s *Shard) enrolled() {
	s.enrolls.Add(-1)
	s.eng.enrolls.Done()
}

// beginEnroll counts one call of a loop's Enroll: its end must call
// Shard.enrolled. It reports false once the engine is draining.
func (e *Engine) beginEnroll() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Load() {
		return false
	}
	e.enrolls.Add(1)
	return true
}

// reserveShard chooses the shard with the fewest connections for one more, which
// counts from here on: of many that come at once, each shard gets its part, and a
// loop that is held gets no more than the others have.
func (e *Engine) reserveShard() *Shard {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.shards[0]
	for _, t := range e.shards[1:] {
		if t.load() < s.load() {
			s = t
		}
	}
	s.enrolls.Add(1)
	return s
}

// load is the number of connections of s, with those on their way to it.
func (s *Shard) load() int { return int(s.stats.conns.Load()) + int(s.enrolls.Load()) }
