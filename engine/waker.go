package engine

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// waker is a socket pair with one end in the shard's loop, as a connection. A
// byte written to the other end comes as traffic: after the loop has served the
// ready connections. In this way a loop with work left yields to them, and
// learns that it must end.
type waker struct {
	fd      int       // the end we write to
	loopFD  int       // the end that the loop reads; set when the loop has it
	loopEnd gnet.Conn // that end's connection; loop-confined
}

// yield requests another turn of the loop. Safe for concurrent use.
func (w *waker) yield() {
	// A full socket means that enough requests are waiting.
	_, _ = unix.Write(w.fd, []byte{0})
}

// yield requests another turn of s after its connections are served.
func (s *Shard) yield() {
	switch {
	case s.wake != nil:
		s.wake.yield()
	case s.sim != nil: // its loop handles all events in one order
		_ = s.loop.Execute(context.Background(), s)
	default:
		go func() { // ends at once; only while the engine boots
			_ = s.loop.Execute(context.Background(), s)
		}()
	}
}

// wakerEnd is the context of a waker's connection on its loop.
type wakerEnd struct{ waker *waker }

// enrollWaker makes a socket pair and enrolls one end with enroll. The shard
// that gets the connection keeps the pair if it has none.
func (e *Engine) enrollWaker(enroll func(context.Context, net.Conn) error) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	file := os.NewFile(uintptr(fds[0]), "waker")
	conn, err := net.FileConn(file) // a duplicate
	_ = file.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return fmt.Errorf("wake-up connection: %w", err)
	}
	w := &waker{fd: fds[1]}
	if err := unix.SetNonblock(w.fd, true); err != nil {
		return os.NewSyscallError("setnonblock", err)
	}
	e.mu.Lock()
	e.wakers = append(e.wakers, w)
	e.mu.Unlock()
	ctx := gnet.NewContext(context.Background(), &wakerEnd{w})
	if err := enroll(ctx, conn); err != nil {
		return fmt.Errorf("wake-up connection: %w", err)
	}
	return nil
}

// closeWakers closes our ends of the pairs, after the loops have ended.
func (e *Engine) closeWakers() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wakers {
		_ = unix.Close(w.fd)
	}
	e.wakers = nil
}
