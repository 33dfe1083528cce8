//go:build linux

package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

// The phases of a client connection.
const (
	phaseConnecting = iota
	phaseUpgrading
	PhaseOpen
	PhaseStalled // open, and not read until Resume
	PhaseClosed
)

// Conn is one connection of the load generator, 72 bytes: there is
// no goroutine and no buffer behind it. Loop-confined: use only on the loop
// that owns the connection.
type Conn struct {
	fd      int32
	Room    int32 // that it joins, if any
	Phase   uint8
	State   uint8 // the traffic's
	Closing bool  // the traffic has sent a close frame
	parser  Parser
	Next    uint64 // sequence number expected next
	Sent    uint64 // sequence number to send next
	began   int64  // when it was opened
}

// reset ends all connections with a reset, so that none lingers in TIME_WAIT,
// and forgets them.
func (l *Loop) reset() {
	for i := range l.Conns {
		if l.Conns[i].Phase != PhaseClosed {
			resetConn(l.Conns[i].fd)
		}
	}
	clear(l.Pending)
	clear(l.partial)
	l.Conns, l.openTimes, l.beginTimes = l.Conns[:0], l.openTimes[:0], l.beginTimes[:0]
	if len(l.later) > 0 {
		l.later, l.Due, l.Tick = nil, Never, nil
	}
	l.opening, l.toOpen, l.refused, l.connects = 0, 0, 0, result.NewHistogram()
}

func resetConn(fd int32) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(int(fd))
}

// open starts one connection.
func (l *Loop) open() {
	l.toOpen--
	l.Conns = append(l.Conns, Conn{Phase: PhaseClosed})
	l.Reopen(int32(len(l.Conns) - 1))
}

// Reopen starts a connection in the place of one that is closed. It must not run
// while events of that one may be under way.
func (l *Loop) Reopen(index int32) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.fail(os.NewSyscallError("socket", err))
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if l.Stalls(int(index)) {
		HoldLittle(fd)
	}
	if err := bindSource(fd, l.Number(int(index))); err != nil {
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
	l.Conns[index] = Conn{fd: int32(fd), began: now}
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

// HoldLittle makes a connection that nobody reads stall soon: its receive
// buffer is small, and so is the segment size that it announces, by which the
// kernel sizes the server's send buffer. With the segments of the loopback
// interface it would be 2.6 MB, with Ethernet segments it is 87 KB.
func HoldLittle(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1460)
}

// Stall makes the connection read no more. Its end is still noticed.
func (l *Loop) Stall(index int) {
	l.Conns[index].Phase = PhaseStalled
	l.watch(unix.EPOLL_CTL_MOD, int32(index), 0)
}

// A trickling connection reads sipBytes every sipInterval.
const (
	sipBytes    = 64
	sipInterval = 100 * time.Millisecond
)

// sip reads a few bytes of each connection and discards them. It returns the
// time of the next call.
func (l *Loop) sip(trickling []int32, now int64) int64 {
	for _, index := range trickling {
		if c := &l.Conns[index]; c.Phase == PhaseStalled {
			_, _ = rawIO(unix.SYS_READ, c.fd, l.in[:sipBytes]) // epoll reports its end
		}
	}
	return now + int64(sipInterval)
}

// Resume lets a stalled connection read again, and hold as much as others.
func (l *Loop) Resume(index int) {
	c := &l.Conns[index]
	_ = unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 256<<10)
	c.Phase = PhaseOpen
	l.watch(unix.EPOLL_CTL_MOD, int32(index), unix.EPOLLIN)
}

// Abort ends an open connection with a reset.
func (l *Loop) Abort(index int32) {
	c := &l.Conns[index]
	c.Phase = PhaseClosed
	resetConn(c.fd)
	delete(l.Pending, index)
	delete(l.partial, index)
}

// goodbye answers a close frame; then the server ends the connection.
func (l *Loop) goodbye(index int32, body []byte) {
	code := uint16(1005) // RFC 6455, section 7.1.5: there was none
	if len(body) >= 2 {
		code = binary.BigEndian.Uint16(body)
	}
	if code == goingAway || code == serviceRestart {
		l.closeTimes = append(l.closeTimes, control.Now())
	}
	if l.OnClose != nil {
		l.OnClose(index, code, body)
	}
	if !l.Conns[index].Closing {
		l.Send(index, MaskedFrame(OpClose, body))
	}
}

func (l *Loop) watch(op int, index int32, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: index}
	if err := unix.EpollCtl(l.epoll, op, int(l.Conns[index].fd), &event); err != nil {
		l.fail(os.NewSyscallError("epoll_ctl", err))
	}
}

// drop ends a connection that failed.
func (l *Loop) drop(index int32, err error) {
	c := &l.Conns[index]
	if l.MayEnd && c.Phase >= PhaseOpen {
		c.Phase = PhaseClosed
		resetConn(c.fd)
		delete(l.Pending, index)
		l.endTimes = append(l.endTimes, control.Now())
		Count(&l.ended, 1)
		return
	}
	delete(l.partial, index)
	opening := c.Phase < PhaseOpen
	c.Phase = PhaseClosed
	_ = unix.Close(int(c.fd))
	delete(l.Pending, index)
	if opening {
		l.opening--
	}
	if opening && (l.Retry || l.MayRefuse) {
		l.refused++
		if l.Retry {
			l.toOpen++
		}
		return
	}
	l.fail(fmt.Errorf("connection %d: %w", index, err))
}

// comeLater lets a connection that was refused come again after the time that the answer
// names, if it names one, and not at once.
func (l *Loop) comeLater(head []byte) {
	_, rest, found := bytes.Cut(head, []byte("\r\nRetry-After: "))
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	seconds, err := strconv.Atoi(string(value))
	if !found || err != nil || !l.Retry || (l.Tick != nil && len(l.later) == 0) {
		return
	}
	l.toOpen--
	at := control.Now() + int64(seconds)*int64(time.Second)
	i, _ := slices.BinarySearch(l.later, at)
	l.later = slices.Insert(l.later, i, at)
	l.Due, l.Tick = l.later[0], l.comeBack
}

// comeBack opens the connections that are due.
func (l *Loop) comeBack(now int64) int64 {
	n, _ := slices.BinarySearch(l.later, now+1)
	l.toOpen += n
	if l.later = slices.Delete(l.later, 0, n); len(l.later) == 0 {
		l.Tick = nil
		return Never
	}
	return l.later[0]
}

// The close codes of a server that ends.
const (
	goingAway      = 1001
	serviceRestart = 1012
)
