//go:build linux

package load

import (
	"errors"
	"math"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/result"
)

// Never is a time that does not come.
const Never = math.MaxInt64

// wakeIndex stands for the loop's eventfd among the connections' indices.
const wakeIndex = -1

// Traffic handles the messages of a command's connections. Its methods run on the
// connection's loop.
type Traffic interface {
	// Frame handles one data message.
	Frame(l *Loop, c *Conn, f *Frame, now int64)
	// Done runs when all frames of one read have been handled.
	Done(l *Loop, c *Conn, now int64)
}

// Loop is one epoll loop of the load generator, on a goroutine of its own.
// Loop-confined, except the fields that are marked otherwise.
type Loop struct {
	epoll, wake int
	addr        unix.SockaddrInet4
	extensions  string // lines of the upgrade request
	path        func(index int) string
	Traffic     Traffic

	Conns   []Conn
	Pending map[int32][]byte // by index: handshake read so far, or bytes unsent; rarely any
	toOpen  int
	opening int

	MaxOpening int              // how many connections may be in the handshake at once
	Retry      bool             // try again when refused, after the time that the answer names, and count it
	later      []int64          // when refused connections come again, in order
	MayRefuse  bool             // a refused connection stays closed, and counts
	refused    uint64           // since the last reset, as the fields below
	beginTimes []int64          // when each attempt to connect began
	openTimes  []int64          // when each connection opened
	connects   result.Histogram // how long that took

	OnOpen  func(index int32)                           // a connection has opened; or nil
	OnClose func(index int32, code uint16, body []byte) // a close frame of the server has come; or nil

	MayEnd     bool // the server may close connections; the loop notes the times below
	endTimes   []int64
	closeTimes []int64 // of close frames with code 1001 or 1012

	Number  func(index int) int  // of a connection among all of the generator
	Stalls  func(index int) bool // which connections will stall; see Generator.ChooseStalled
	in, Out []byte
	Whole   bool             // the traffic needs whole payloads ...
	partial map[int32][]byte // ... and these frames have begun, by index; rarely any
	RTT     result.Histogram // of every message
	Last    result.Histogram // of each publish's last member
	Late    result.Histogram // how long after its time each message was sent that had one

	// Tick runs at the time Due. It returns the next time, or Never.
	Tick func(now int64) int64
	Due  int64

	From, Until int64 // messages due in this time are recorded in the histograms

	// Written by the loop, read by anyone.
	opened, ended, messages, Lost, Disordered, reads, writes atomic.Uint64

	mu      sync.Mutex
	todo    []func() // guarded by mu; a nil ends the loop
	failure error    // guarded by mu; the first
}

// newLoop returns a loop for at most n connections to addr; run serves it.
func newLoop(addr unix.SockaddrInet4, n int, deflate bool) (*Loop, error) {
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
	return &Loop{
		epoll: epoll, wake: wake, addr: addr,
		path:       func(int) string { return "/ws" },
		MaxOpening: 128,
		extensions: extensions,
		Conns:      make([]Conn, 0, n), in: make([]byte, 256<<10),
		Pending: make(map[int32][]byte), partial: make(map[int32][]byte),
		Number: func(index int) int { return index },
		Stalls: func(int) bool { return false }, RTT: result.NewHistogram(), Last: result.NewHistogram(),
		Late: result.NewHistogram(), connects: result.NewHistogram(),
		Due: Never,
	}, nil
}

// Measures reports whether a message that was due at this time counts.
func (l *Loop) Measures(due int64) bool { return l.From <= due && due < l.Until }

// Do runs f on the loop. Safe for concurrent use.
func (l *Loop) Do(f func()) {
	l.mu.Lock()
	l.todo = append(l.todo, f)
	l.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(l.wake, one[:])
}

// fail keeps the first error.
func (l *Loop) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		l.failure = err
	}
}

// err returns the first error. Safe for concurrent use.
func (l *Loop) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// run serves the loop until do(nil).
func (l *Loop) run() {
	events := make([]unix.EpollEvent, 4096)
	for {
		n := pollNow(l.epoll, events)
		if n == 0 {
			var err error
			if n, err = pollUntil(l.epoll, events, l.Due); err != nil && !errors.Is(err, unix.EINTR) {
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
		if l.Due != Never {
			if now := control.Now(); now >= l.Due {
				l.Due = l.Tick(now)
			}
		}
		for l.toOpen > 0 && l.opening < l.MaxOpening && l.err() == nil {
			l.open()
		}
	}
}

// runTodo runs the functions that Do received. It returns false at the end.
func (l *Loop) runTodo() bool {
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

// close ends the loop and its connections.
func (l *Loop) close() {
	l.reset()
	_ = unix.Close(l.epoll)
	_ = unix.Close(l.wake)
}
