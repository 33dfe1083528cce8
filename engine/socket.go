package engine

import (
	"context"
	"log/slog"
	"net"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	_ "github.com/qi-realtime/ws/internal/unixonly" // for its error on other systems
)

// The only place where shards meet the network: the needed parts of gnet's loop
// and connection, and the system calls on a connection's descriptor. With a
// Simnet, the shard's simLoop replaces all of them.

// eventLoop is the part of gnet's event loop that a shard uses.
type eventLoop interface {
	Execute(context.Context, gnet.Runnable) error
	Enroll(context.Context, net.Conn) (<-chan gnet.RegisteredResult, error)
}

// netConn is the part of gnet's connection that a Conn uses.
type netConn interface {
	unread
	Fd() int
	SetContext(any)
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// writev writes the buffers of iov to c's socket.
func (s *Shard) writev(c *Conn, iov []unix.Iovec) (int, error) {
	if s.sim != nil {
		return s.sim.writev(c, iov)
	}
	if len(iov) == 1 {
		return write(int(c.fd), unsafe.Slice(iov[0].Base, iov[0].Len)) // cheaper for the kernel
	}
	return writev(int(c.fd), iov)
}

// write writes b, which is borrowed, to c's socket.
func (s *Shard) write(c *Conn, b []byte) (int, error) {
	if s.sim != nil {
		return s.sim.write(c, b)
	}
	return write(int(c.fd), b)
}

// arm requests one writableTask for c.
func (s *Shard) arm(c *Conn) error {
	if s.sim != nil {
		s.sim.arm(c)
		return nil
	}
	return s.eng.writable.arm(c)
}

// disarm takes arm back.
func (s *Shard) disarm(c *Conn) {
	if s.sim != nil {
		s.sim.disarm(c)
		return
	}
	s.eng.writable.disarm(c)
}

// hasUnread reports whether bytes of the peer wait in the kernel.
func (s *Shard) hasUnread(c *Conn) bool { return s.sim == nil && hasUnread(int(c.fd)) }

// progress returns the position up to which the peer has read.
func (s *Shard) progress(c *Conn) progress {
	if s.sim != nil {
		return progress{}
	}
	return readProgress(int(c.fd))
}

// halfClose sends a FIN.
func (s *Shard) halfClose(c *Conn) {
	if s.sim != nil {
		s.sim.halfClose(c)
		return
	}
	_ = unix.Shutdown(int(c.fd), unix.SHUT_WR)
}

// resetOnClose makes the closing of c's socket a reset.
func (s *Shard) resetOnClose(c *Conn) {
	if s.sim == nil {
		_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
}

// drainSocket reads the unread bytes, within a bound, because closing a socket
// with unread bytes resets the connection and can lose our last bytes.
func (s *Shard) drainSocket(c *Conn) {
	if s.sim != nil {
		return // a simulated network has no resets
	}
	drainDescriptor(int(c.fd))
}

func drainDescriptor(fd int) {
	var scratch [4096]byte
	for range 64 {
		if n, err := unix.Read(fd, scratch[:]); n <= 0 || err != nil {
			return
		}
	}
}

// closeSocket closes c's socket. detach runs within it.
func (s *Shard) closeSocket(c *Conn) {
	if s.sim != nil {
		s.sim.end(c, nil)
		return
	}
	if c.is(halfClosed) {
		s.closeHalfClosed(c)
		return
	}
	gc := c.gc.(gnet.Conn)
	if err := gc.EventLoop().Close(gc); err != nil {
		s.eng.cfg.Logger.Warn("ws: closing a connection", slog.Any("error", err))
	}
}
