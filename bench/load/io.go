//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
)

// UpgradeRequest is the opening handshake for path, with the lines of headers
// in it.
func UpgradeRequest(path, headers string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + headers +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

// acceptKey answers the request's fixed key (the example of RFC 6455 section 1.3).
var acceptKey = []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

// serve handles the readiness of one connection.
func (l *Loop) serve(index int32, events uint32) {
	if int(index) >= len(l.Conns) {
		return // fetched before a reset
	}
	c := &l.Conns[index]
	switch {
	case c.Phase == phaseConnecting:
		if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			l.drop(index, fmt.Errorf("connect: %w", unix.Errno(code)))
			return
		}
		c.Phase = phaseUpgrading
		l.Send(index, []byte(UpgradeRequest(l.path(int(index)), l.extensions)))
		l.watch(unix.EPOLL_CTL_MOD, index, unix.EPOLLIN)
		return
	case c.Phase == PhaseClosed:
		return
	case c.Phase == PhaseStalled:
		// epoll reports these events always; others were fetched before the stall.
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			l.drop(index, errors.New("a stalled connection was ended by the server"))
		}
		return
	case events&unix.EPOLLOUT != 0:
		unsent := l.Pending[index]
		delete(l.Pending, index)
		l.watch(unix.EPOLL_CTL_MOD, index, unix.EPOLLIN)
		l.Send(index, unsent)
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	n, errno := rawIO(unix.SYS_READ, c.fd, l.in)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
	case errno != 0:
		l.drop(index, os.NewSyscallError("read", errno))
	case n == 0:
		l.drop(index, errors.New("closed by the server"))
	case c.Phase == phaseUpgrading:
		l.upgrade(index, l.in[:n])
	default:
		l.receive(index, l.in[:n])
	}
}

// upgrade reads the server's answer to the upgrade request.
func (l *Loop) upgrade(index int32, b []byte) {
	if before := l.Pending[index]; before != nil {
		b = append(before, b...)
		delete(l.Pending, index)
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		l.Pending[index] = bytes.Clone(b)
		return
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) || !bytes.Contains(b[:end], acceptKey) {
		l.drop(index, fmt.Errorf("upgrade refused: %q", b))
		l.comeLater(b[:end])
		return
	}
	l.Conns[index].Phase = PhaseOpen
	l.opening--
	l.opened.Add(1)
	now := control.Now()
	l.openTimes = append(l.openTimes, now)
	l.connects.Record(now - l.Conns[index].began)
	if l.OnOpen != nil {
		l.OnOpen(index)
	}
	if b = b[end+4:]; len(b) > 0 {
		l.receive(index, b)
	}
}

// receive handles bytes from the server.
func (l *Loop) receive(index int32, b []byte) {
	c := &l.Conns[index]
	now := control.Now()
	next := c.parser.Next
	if l.Whole {
		if before := l.partial[index]; before != nil {
			b = append(before, b...)
			delete(l.partial, index)
		}
		next = wholeFrame
	}
	var messages uint64
	for len(b) > 0 {
		rest, f, ok, err := next(b)
		switch b = rest; {
		case err != nil:
			l.drop(index, err)
			return
		case !ok:
			if l.Whole {
				l.partial[index], b = bytes.Clone(b), nil
			}
		case f.Op < OpClose:
			messages++
			l.Traffic.Frame(l, c, &f, now)
		case f.Op == OpClose:
			if !l.MayEnd {
				l.drop(index, fmt.Errorf("close frame from the server: %x", f.Head))
				return
			}
			l.goodbye(index, f.Head)
		case f.Op == OpPing:
			l.Send(index, MaskedFrame(OpPong, f.Head))
		}
	}
	Count(&l.messages, messages)
	Count(&l.reads, 1)
	l.Traffic.Done(l, c, now)
	l.Flush(index)
}

// Flush sends the bytes that the traffic has put into Out.
func (l *Loop) Flush(index int32) {
	if len(l.Out) > 0 {
		l.Send(index, l.Out)
		l.Out = l.Out[:0]
	}
}

// Count adds to a counter that only its loop writes.
func Count(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// Send writes b. The bytes that the socket does not take are kept and sent later.
func (l *Loop) Send(index int32, b []byte) {
	c := &l.Conns[index]
	if c.Phase == PhaseClosed {
		return
	}
	if unsent := l.Pending[index]; unsent != nil && c.Phase == PhaseOpen {
		l.Pending[index] = append(unsent, b...)
		return
	}
	Count(&l.writes, 1)
	n, errno := rawIO(unix.SYS_WRITE, c.fd, b)
	if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
		l.drop(index, os.NewSyscallError("write", errno))
		return
	}
	if n < len(b) {
		l.Pending[index] = bytes.Clone(b[n:])
		l.watch(unix.EPOLL_CTL_MOD, index, unix.EPOLLIN|unix.EPOLLOUT)
	}
}

// rawIO reads or writes a non-blocking descriptor without a notice to the
// scheduler, because the call cannot block.
func rawIO(trap uintptr, fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// pollNow is epoll_wait with no wait, in the same way.
func pollNow(epoll int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// pollUntil is epoll_wait until a time of control.Now, exact to less than a
// millisecond where the kernel can (Linux 5.11).
func pollUntil(epoll int, events []unix.EpollEvent, due int64) (int, error) {
	if due == Never {
		return unix.EpollWait(epoll, events, -1)
	}
	wait := max(due-control.Now(), 0)
	ts := unix.NsecToTimespec(wait)
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno == 0 {
		return int(n), nil
	}
	if errno == unix.ENOSYS {
		return unix.EpollWait(epoll, events, int(min((wait+999_999)/1e6, math.MaxInt32)))
	}
	return 0, errno
}
