//go:build linux

package integration_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/internal/harness"
)

// clientSwarm is a client for many connections: non-blocking sockets in an
// epoll that one goroutine serves. It answers pings and close frames.
type clientSwarm struct {
	t     testing.TB
	epfd  int
	endFD int
	ended chan struct{}

	mu    sync.Mutex
	conns map[int32]*swarmConn // guarded by mu
}

// swarmConn is one connection of a swarm.
type swarmConn struct {
	swarm *clientSwarm
	buf   []byte // bytes of a frame in parts; the swarm's goroutine only

	// onMessage receives each data message, on the swarm's goroutine. The
	// payload is borrowed.
	onMessage func(payload []byte)
	received  atomic.Int64 // data messages
	closeCode atomic.Int32 // of the close frame that came, 0 before
	orderly   atomic.Bool  // the end was a FIN, not a reset
	over      atomic.Bool  // the connection has ended, by either side

	mu     sync.Mutex
	fd     int  // -1 when closed; guarded by mu
	closed bool // the close frame is sent, nothing may follow it; guarded by mu
}

func newSwarm(t testing.TB) *clientSwarm {
	t.Helper()
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	require.NoError(t, err)
	endFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	require.NoError(t, err)
	require.NoError(t, unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, endFD,
		&unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(endFD)}))
	s := &clientSwarm{t: t, epfd: epfd, endFD: endFD, ended: make(chan struct{}), conns: make(map[int32]*swarmConn)}
	go s.run() // ends in close
	t.Cleanup(s.close)
	return s
}

// close ends the goroutine and all connections.
func (s *clientSwarm) close() {
	_, _ = unix.Write(s.endFD, binary.NativeEndian.AppendUint64(nil, 1))
	<-s.ended
	s.mu.Lock()
	conns := s.conns
	s.conns = make(map[int32]*swarmConn)
	s.mu.Unlock()
	for _, c := range conns {
		c.hangUp()
	}
	_, _ = unix.Close(s.epfd), unix.Close(s.endFD)
}

// dialOptions says how to open one connection.
type dialOptions struct {
	query     string               // of the URL
	onMessage func(payload []byte) // see swarmConn
	mute      bool                 // never read anything behind the handshake
	recvBuf   int                  // SO_RCVBUF; not 0: the server's send buffer is small, too
}

// connectTCP opens a blocking socket to a loopback address.
func connectTCP(addr string, recvBuf int) (fd int, err error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return -1, err
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if recvBuf > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, recvBuf)
		// Loopback's segments of 64 KiB make the server's send buffer 3 MB; with those
		// of Ethernet it takes some 90 KB.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	timeout := unix.NsecToTimeval(int64(harness.Patience))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	sa := &unix.SockaddrInet4{Port: tcp.Port}
	copy(sa.Addr[:], tcp.IP.To4())
	for {
		if err = unix.Connect(fd, sa); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// handshake upgrades on a blocking socket and returns the bytes behind the answer.
func handshake(fd int, query string) (early []byte, err error) {
	if _, err := unix.Write(fd, []byte(harness.UpgradeRequest("/ws?"+query, ""))); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, 1024)
	for {
		if head, rest, ok := bytes.Cut(buf, []byte("\r\n\r\n")); ok {
			if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
				return nil, fmt.Errorf("refused: %q", head)
			}
			return rest, nil
		}
		chunk := make([]byte, 4096)
		n, err := unix.Read(fd, chunk)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return nil, errors.New("the server hung up during the handshake")
		}
		buf = append(buf, chunk[:n]...)
	}
}

// tryDial opens a connection. It blocks, and needs no goroutine.
func (s *clientSwarm) tryDial(addr string, d dialOptions) (*swarmConn, error) {
	fd, err := connectTCP(addr, d.recvBuf)
	if err != nil {
		return nil, err
	}
	early, err := handshake(fd, d.query)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := &swarmConn{swarm: s, fd: fd, onMessage: d.onMessage}
	if d.mute {
		s.mu.Lock()
		s.conns[int32(fd)] = c
		s.mu.Unlock()
		return c, nil
	}
	c.take(early) // nothing else reads this connection yet
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[int32(fd)] = c
	return c, s.watch(fd)
}

func (s *clientSwarm) dial(addr string, d dialOptions) *swarmConn {
	s.t.Helper()
	c, err := s.tryDial(addr, d)
	require.NoError(s.t, err)
	return c
}

// run serves the connections.
func (s *clientSwarm) run() {
	defer close(s.ended)
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(s.epfd, events, -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, ev := range events[:max(n, 0)] {
			if int(ev.Fd) == s.endFD {
				return
			}
			s.mu.Lock()
			c := s.conns[ev.Fd]
			s.mu.Unlock()
			if c != nil {
				c.read(buf)
			}
		}
	}
}

// read takes the received bytes. It runs on the swarm's goroutine.
func (c *swarmConn) read(buf []byte) {
	c.mu.Lock()
	if c.fd < 0 {
		c.mu.Unlock()
		return
	}
	n, err := unix.Read(c.fd, buf)
	c.mu.Unlock()
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		c.hangUp()
	case n == 0:
		c.orderly.Store(true)
		c.hangUp()
	default:
		c.take(buf[:n])
	}
}

// take decodes received bytes.
func (c *swarmConn) take(b []byte) {
	if len(c.buf) > 0 {
		c.buf = append(c.buf, b...)
		b = c.buf
	}
	came := len(b)
	for {
		op, payload, rest, ok := cutFrame(b)
		if !ok {
			break
		}
		b = rest
		c.handle(op, payload)
	}
	if len(b) == came && len(c.buf) > 0 {
		return // it is in the buffer already
	}
	c.buf = append(c.buf[:0], b...)
	if len(c.buf) == 0 {
		c.buf = nil
	}
}

func (c *swarmConn) handle(op gobwas.OpCode, payload []byte) {
	switch op {
	case gobwas.OpPing:
		_ = c.send(gobwas.OpPong, payload)
	case gobwas.OpPong:
	case gobwas.OpClose:
		code := int32(gobwas.StatusNoStatusRcvd)
		if len(payload) >= 2 {
			code = int32(binary.BigEndian.Uint16(payload))
		}
		c.closeCode.Store(code)
		_ = c.send(gobwas.OpClose, payload[:min(2, len(payload))])
	default:
		if c.onMessage != nil {
			c.onMessage(payload)
		}
		c.received.Add(1)
	}
}

// cutFrame takes one of the server's frames, which are neither masked nor
// fragmented, from the front of b.
func cutFrame(b []byte) (op gobwas.OpCode, payload, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, b, false
	}
	size, head := int(b[1]), 2
	switch size {
	case 126:
		if head = 4; len(b) >= head {
			size = int(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if head = 10; len(b) >= head {
			size = int(binary.BigEndian.Uint64(b[2:]))
		}
	}
	if len(b) < head+size {
		return 0, nil, b, false
	}
	return gobwas.OpCode(b[0] & 0xf), b[head : head+size], b[head+size:], true
}

// maskedFrame encodes a client's frame.
func maskedFrame(op gobwas.OpCode, payload []byte) []byte {
	var b bytes.Buffer
	if err := gobwas.WriteFrame(&b, gobwas.MaskFrame(gobwas.NewFrame(op, true, payload))); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// send writes one frame. Nothing is sent behind a close frame.
func (c *swarmConn) send(op gobwas.OpCode, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = op == gobwas.OpClose
	return c.writeLocked(maskedFrame(op, payload))
}

// raw writes bytes as they are.
func (c *swarmConn) raw(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeLocked(b)
}

// writeLocked writes b, and waits while the socket is full.
func (c *swarmConn) writeLocked(b []byte) error {
	for len(b) > 0 {
		if c.fd < 0 {
			return net.ErrClosed
		}
		n, err := unix.Write(c.fd, b)
		switch {
		case err == unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}, 1000)
		case err == unix.EINTR:
		case err != nil:
			return err
		default:
			b = b[n:]
		}
	}
	return nil
}

// hangUp closes the socket.
func (c *swarmConn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return
	}
	c.swarm.mu.Lock()
	delete(c.swarm.conns, int32(c.fd))
	c.swarm.mu.Unlock()
	_ = unix.Close(c.fd)
	c.fd = -1
	c.over.Store(true)
}

// abort closes the socket with a reset.
func (c *swarmConn) abort() {
	c.mu.Lock()
	if c.fd >= 0 {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	c.mu.Unlock()
	c.hangUp()
}

// stall makes the client stop reading: the swarm does not look at its socket
// any more, until resume.
func (c *swarmConn) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, unix.EpollCtl(c.swarm.epfd, unix.EPOLL_CTL_DEL, c.fd, nil))
	}
}

// resume makes the client read again.
func (c *swarmConn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, c.swarm.watch(c.fd))
	}
}

// watch puts a socket into the swarm's epoll.
func (s *clientSwarm) watch(fd int) error {
	return unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)})
}
