//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

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

// never is a time that does not come.
const never = math.MaxInt64

// wakeIndex stands for the loop's eventfd among the connections' indices.
const wakeIndex = -1

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

// traffic is what a command does with its connections. Its methods run on the
// connection's loop.
type traffic interface {
	// frame handles one data message.
	frame(l *loop, c *clientConn, f *frame, now int64)
	// done runs when what one read brought has been handled.
	done(l *loop, c *clientConn, now int64)
}

// loop is one epoll loop of the load generator, on a goroutine of its own.
// Loop-confined, but for what says otherwise.
type loop struct {
	epoll, wake int
	addr        unix.SockaddrInet4
	extensions  string // lines of the upgrade request
	path        func(index int) string
	traffic     traffic

	conns   []clientConn
	pending map[int32][]byte // by index: handshake read so far, or bytes unsent; rarely any
	toOpen  int
	opening int

	maxOpening int       // how many connections may be in the handshake at once
	retry      bool      // try again when refused, and count it
	refused    uint64    // since the last reset, as what follows
	openTimes  []int64   // when each connection opened
	connects   histogram // how long that took

	mayEnd     bool // the server may close connections, and the following is noted
	endTimes   []int64
	closeTimes []int64 // of close frames that say that the server goes away

	number  func(index int) int  // of a connection among all of the generator
	stalls  func(index int) bool // which connections will stall; see generator.chooseStalled
	in, out []byte
	whole   bool             // traffic needs all of a payload ...
	partial map[int32][]byte // ... and this is the begin of frames, by index; rarely any
	rtt     histogram        // of every message
	last    histogram        // of each publish's last member
	late    histogram        // how long after its time each message was sent that had one

	// tick runs when due has come, and says when to run it again, or never.
	tick func(now int64) int64
	due  int64

	from, until int64 // record into the histograms what was due in this time

	// Written by the loop, read by anyone.
	opened, ended, messages, lost, disordered, reads, writes atomic.Uint64

	mu      sync.Mutex
	todo    []func() // guarded by mu; a nil ends the loop
	failure error    // guarded by mu; the first
}

// newLoop returns a loop for at most n connections to addr; run serves it.
func newLoop(addr unix.SockaddrInet4, n int, deflate bool) (*loop, error) {
	var extensions string
	if deflate {
		extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeIndex}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &event); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return &loop{
		epoll: epoll, wake: wake, addr: addr,
		path:       func(int) string { return "/ws" },
		maxOpening: 128,
		extensions: extensions,
		conns:      make([]clientConn, 0, n), pending: make(map[int32][]byte), partial: make(map[int32][]byte), in: make([]byte, 256<<10),
		number: func(index int) int { return index },
		stalls: func(int) bool { return false }, rtt: newHistogram(), last: newHistogram(), late: newHistogram(), connects: newHistogram(),
		due: never,
	}, nil
}

// upgradeRequest is the opening handshake for path, with the lines of headers in it.
func upgradeRequest(path, headers string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + headers +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

// acceptKey answers the request's fixed key (the example of RFC 6455 section 1.3).
var acceptKey = []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

// measures reports whether a message that was due at this time counts.
func (l *loop) measures(due int64) bool { return l.from <= due && due < l.until }

// do runs f on the loop. Safe for concurrent use.
func (l *loop) do(f func()) {
	l.mu.Lock()
	l.todo = append(l.todo, f)
	l.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(l.wake, one[:])
}

// fail keeps the first error.
func (l *loop) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		l.failure = err
	}
}

// err returns the first error. Safe for concurrent use.
func (l *loop) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// run serves the loop until do(nil).
func (l *loop) run() {
	events := make([]unix.EpollEvent, 4096)
	for {
		n := pollNow(l.epoll, events)
		if n == 0 {
			var err error
			if n, err = pollUntil(l.epoll, events, l.due); err != nil && !errors.Is(err, unix.EINTR) {
				l.fail(os.NewSyscallError("epoll_pwait2", err))
				return
			}
		}
		for i := range max(n, 0) {
			if events[i].Fd != wakeIndex {
				l.serve(events[i].Fd, events[i].Events)
			} else if !l.runTodo() {
				l.close()
				return
			}
		}
		if l.due != never {
			if now := control.Now(); now >= l.due {
				l.due = l.tick(now)
			}
		}
		for l.toOpen > 0 && l.opening < l.maxOpening && l.err() == nil {
			l.open()
		}
	}
}

// runTodo runs what do was given. It returns false at the end.
func (l *loop) runTodo() bool {
	var b [8]byte
	_, _ = unix.Read(l.wake, b[:])
	l.mu.Lock()
	todo := l.todo
	l.todo = nil
	l.mu.Unlock()
	for _, f := range todo {
		if f == nil {
			return false
		}
		f()
	}
	return true
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
	l.conns, l.openTimes = l.conns[:0], l.openTimes[:0]
	l.opening, l.toOpen, l.refused, l.connects = 0, 0, 0, newHistogram()
}

func resetConn(fd int32) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(int(fd))
}

// close ends the loop and its connections.
func (l *loop) close() {
	l.reset()
	_ = unix.Close(l.epoll)
	_ = unix.Close(l.wake)
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
	l.conns[index] = clientConn{fd: int32(fd), began: control.Now()}
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

// serve handles the readiness of one connection.
func (l *loop) serve(index int32, events uint32) {
	if int(index) >= len(l.conns) {
		return // fetched before a reset
	}
	c := &l.conns[index]
	switch {
	case c.phase == phaseConnecting:
		if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			l.drop(index, fmt.Errorf("connect: %w", unix.Errno(code)))
			return
		}
		c.phase = phaseUpgrading
		l.send(index, []byte(upgradeRequest(l.path(int(index)), l.extensions)))
		l.watch(unix.EPOLL_CTL_MOD, index, unix.EPOLLIN)
		return
	case c.phase == phaseClosed:
		return
	case c.phase == phaseStalled:
		// What epoll tells unasked; or this event was fetched before the stall.
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			l.drop(index, errors.New("a stalled connection was ended by the server"))
		}
		return
	case events&unix.EPOLLOUT != 0:
		unsent := l.pending[index]
		delete(l.pending, index)
		l.watch(unix.EPOLL_CTL_MOD, index, unix.EPOLLIN)
		l.send(index, unsent)
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
	case c.phase == phaseUpgrading:
		l.upgrade(index, l.in[:n])
	default:
		l.receive(index, l.in[:n])
	}
}

// upgrade reads the server's answer to the upgrade request.
func (l *loop) upgrade(index int32, b []byte) {
	if before := l.pending[index]; before != nil {
		b = append(before, b...)
		delete(l.pending, index)
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		l.pending[index] = bytes.Clone(b)
		return
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) || !bytes.Contains(b[:end], acceptKey) {
		l.drop(index, fmt.Errorf("upgrade refused: %q", b))
		return
	}
	l.conns[index].phase = phaseOpen
	l.opening--
	l.opened.Add(1)
	now := control.Now()
	l.openTimes = append(l.openTimes, now)
	l.connects.record(now - l.conns[index].began)
	if b = b[end+4:]; len(b) > 0 {
		l.receive(index, b)
	}
}

// receive handles what the server sent.
func (l *loop) receive(index int32, b []byte) {
	c := &l.conns[index]
	now := control.Now()
	next := c.parser.next
	if l.whole {
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
			if l.whole {
				l.partial[index], b = bytes.Clone(b), nil
			}
		case f.op < opClose:
			messages++
			l.traffic.frame(l, c, &f, now)
		case f.op == opClose:
			if !l.mayEnd {
				l.drop(index, fmt.Errorf("close frame from the server: %x", f.head))
				return
			}
			l.goodbye(index, f.head)
		case f.op == opPing:
			l.send(index, maskedFrame(opPong, f.head))
		}
	}
	count(&l.messages, messages)
	count(&l.reads, 1)
	l.traffic.done(l, c, now)
	l.flush(index)
}

// flush sends what the traffic has put into out.
func (l *loop) flush(index int32) {
	if len(l.out) > 0 {
		l.send(index, l.out)
		l.out = l.out[:0]
	}
}

// count adds to a counter that only its loop writes.
func count(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// send writes b; what the socket does not take is kept and sent later.
func (l *loop) send(index int32, b []byte) {
	c := &l.conns[index]
	if c.phase == phaseClosed {
		return
	}
	if unsent := l.pending[index]; unsent != nil && c.phase == phaseOpen {
		l.pending[index] = append(unsent, b...)
		return
	}
	count(&l.writes, 1)
	n, errno := rawIO(unix.SYS_WRITE, c.fd, b)
	if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
		l.drop(index, os.NewSyscallError("write", errno))
		return
	}
	if n < len(b) {
		l.pending[index] = bytes.Clone(b[n:])
		l.watch(unix.EPOLL_CTL_MOD, index, unix.EPOLLIN|unix.EPOLLOUT)
	}
}

// rawIO reads or writes a non-blocking descriptor without telling the
// scheduler, which need not know of what cannot wait.
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
	if due == never {
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
