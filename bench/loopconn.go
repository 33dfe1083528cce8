//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
)

// The phases of a client connection.
const (
	phaseConnecting = iota
	phaseUpgrading
	phaseOpen
	phaseStalled // open, and never read again
	phaseClosed
)

// clientConn is one connection of the load generator, 72 bytes: there is
// no goroutine and no buffer behind it. Loop-confined: use only on the loop
// that owns the connection.
type clientConn struct {
	fd     int32
	room   int32 // that it joins, if any
	phase  uint8
	state  uint8 // the traffic's
	parser parser
	next   uint64 // sequence number expected next
	sent   uint64 // sequence number to send next
	began  int64  // when it was opened
}

// reset ends all connections with a reset, so that none lingers in TIME_WAIT,
// and forgets them.
func (l *loop) reset() {
	for i := range l.conns {
		if l.conns[i].phase != phaseClosed {
			resetConn(l.conns[i].fd)
		}
	}
	clear(l.pending)
	clear(l.partial)
	l.conns, l.openTimes, l.beginTimes = l.conns[:0], l.openTimes[:0], l.beginTimes[:0]
	l.opening, l.toOpen, l.refused, l.connects = 0, 0, 0, newHistogram()
}

func resetConn(fd int32) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(int(fd))
}

// open starts one connection.
func (l *loop) open() {
	l.toOpen--
	l.conns = append(l.conns, clientConn{phase: phaseClosed})
	l.reopen(int32(len(l.conns) - 1))
}

// reopen starts a connection in the place of one that is closed. It must not run
// while events of that one may be under way.
func (l *loop) reopen(index int32) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.fail(os.NewSyscallError("socket", err))
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if l.stalls(int(index)) {
		holdLittle(fd)
	}
	if err := bindSource(fd, l.number(int(index))); err != nil {
		_ = unix.Close(fd)
		l.fail(err)
		return
	}
	if err := unix.Connect(fd, &l.addr); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		l.fail(os.NewSyscallError("connect", err))
		return
	}
	now := control.Now()
	l.conns[index] = clientConn{fd: int32(fd), began: now}
	l.beginTimes = append(l.beginTimes, now)
	l.opening++
	l.watch(unix.EPOLL_CTL_ADD, index, unix.EPOLLOUT)
}

// connsPerSource is how many connections have one source address: the ports of
// one reach for 28,000 to one destination.
const connsPerSource = 20_000

// bindSource gives connection n the source address 127.0.0.1 or one of those that
// follow. The port is chosen when it connects.
func bindSource(fd, n int) error {
	source := n/connsPerSource + 1
	if source == 1 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_BIND_ADDRESS_NO_PORT", err)
	}
	address := unix.SockaddrInet4{Addr: [4]byte{127, byte(source >> 16), byte(source >> 8), byte(source)}}
	if err := unix.Bind(fd, &address); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// holdLittle makes a connection that nobody reads stall soon: its receive
// buffer is small, and so is the segment size that it announces, by which the
// kernel sizes the server's send buffer. With the segments of the loopback
// interface that would be 2.6 MB; with those of an Ethernet it is 87 KB.
func holdLittle(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1460)
}

// stall makes the connection read no more. Its end is still noticed.
func (l *loop) stall(index int) {
	l.conns[index].phase = phaseStalled
	l.watch(unix.EPOLL_CTL_MOD, int32(index), 0)
}

// A trickling connection reads sipBytes every sipInterval.
const (
	sipBytes    = 64
	sipInterval = 100 * time.Millisecond
)

// sip reads a little of each connection, and looks at nothing. It returns when
// to do so again.
func (l *loop) sip(trickling []int32, now int64) int64 {
	for _, index := range trickling {
		if c := &l.conns[index]; c.phase == phaseStalled {
			_, _ = rawIO(unix.SYS_READ, c.fd, l.in[:sipBytes]) // its end is noticed as ever
		}
	}
	return now + int64(sipInterval)
}

// resume lets a stalled connection read again, and hold as much as others.
func (l *loop) resume(index int) {
	c := &l.conns[index]
	_ = unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 256<<10)
	c.phase = phaseOpen
	l.watch(unix.EPOLL_CTL_MOD, int32(index), unix.EPOLLIN)
}

// goodbye answers a close frame; then the server ends the connection.
func (l *loop) goodbye(index int32, body []byte) {
	code := uint16(1005) // RFC 6455, section 7.1.5: there was none
	if len(body) >= 2 {
		code = binary.BigEndian.Uint16(body)
	}
	if code == goingAway {
		l.closeTimes = append(l.closeTimes, control.Now())
	}
	if l.conns[index].state != chatClosing {
		l.send(index, maskedFrame(opClose, body))
	}
}

func (l *loop) watch(op int, index int32, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: index}
	if err := unix.EpollCtl(l.epoll, op, int(l.conns[index].fd), &event); err != nil {
		l.fail(os.NewSyscallError("epoll_ctl", err))
	}
}

// drop ends a connection that failed.
func (l *loop) drop(index int32, err error) {
	c := &l.conns[index]
	if l.mayEnd && c.phase >= phaseOpen {
		c.phase = phaseClosed
		resetConn(c.fd)
		delete(l.pending, index)
		l.endTimes = append(l.endTimes, control.Now())
		count(&l.ended, 1)
		return
	}
	delete(l.partial, index)
	opening := c.phase < phaseOpen
	c.phase = phaseClosed
	_ = unix.Close(int(c.fd))
	delete(l.pending, index)
	if opening {
		l.opening--
	}
	if opening && l.retry {
		l.refused++
		l.toOpen++
		return
	}
	l.fail(fmt.Errorf("connection %d: %w", index, err))
}
