package engine

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
)

// A peer that has sent a FIN may still read: it gets the answers to the
// messages before the FIN. gnet closes a socket at the end of its stream, so
// the connection continues with a duplicate of the descriptor, only in the
// epoll of the writability poller. It ends like a connection whose peer has
// sent a close frame, after CloseTimeout at the latest. A peer that has closed
// both directions answers the next write with a reset.

// keepHalfClosed keeps c, whose socket gnet is about to close because of err,
// until its pending answers are sent. It returns false if there are none, or if
// the peer does not read them.
func (s *Shard) keepHalfClosed(c *Conn, err error) bool {
	if !errors.Is(err, io.EOF) || c.state.Load() != stateOpen || c.is(pendingClose) || s.eng.halting.Load() {
		return false
	}
	ready := c.owner().OnEnding() && s.rest == nil && s.in.emptyInLoop() && c.out == nil
	if ready || !mayRead(int(c.fd)) {
		return false
	}
	fd, dupErr := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	if dupErr != nil {
		return false
	}
	rearm := c.is(blocked) && !c.is(withheld)
	if rearm {
		s.driver.disarm(c)
	}
	c.gc.SetContext(nil)
	c.gc, c.fd = noConn{}, int32(fd)
	c.set(halfClosed | unwatched)
	s.halfClosed++
	if rearm {
		if err := s.driver.arm(c); err != nil {
			s.closeLater(c, err)
		}
	}
	c.endInOrder(CloseInfo{Code: codec.CloseAbnormal, Err: err})
	return true
}

// mayRead reports whether the peer of a TCP or Unix socket may still read after
// its FIN: it has neither reset the connection nor closed a Unix socket.
func mayRead(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(fds[:], 0)
	for err == unix.EINTR {
		_, err = unix.Poll(fds[:], 0)
	}
	return err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) == 0
}

// closeHalfClosed closes the socket of a connection that has left gnet.
func (s *Shard) closeHalfClosed(c *Conn) {
	defer func() {
		s.halfClosed--
		_ = unix.Close(int(c.fd))
	}()
	s.detach(c, nil)
}

// closeAllHalfClosed closes all half-closed connections at the end of the loop.
func (s *Shard) closeAllHalfClosed() {
	if s.halfClosed == 0 {
		return
	}
	var conns []*Conn
	s.wheel.each(func(c *Conn) {
		if c.is(halfClosed) {
			conns = append(conns, c)
		}
	})
	for _, c := range conns {
		s.closeGuarded(c)
	}
}

// noConn replaces gnet's connection when it yields no more bytes.
type noConn struct{}

func (noConn) Peek(int) ([]byte, error) { return nil, nil }
func (noConn) Discard(int) (int, error) { return 0, nil }
func (noConn) InboundBuffered() int     { return 0 }
func (noConn) Fd() int                  { return -1 }
func (noConn) SetContext(any)           {}
func (noConn) LocalAddr() net.Addr      { return nil }
func (noConn) RemoteAddr() net.Addr     { return nil }
