package engine

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// eventPoll is the system call of a loopWait.
type eventPoll struct{ events [16]unix.EpollEvent }

// wait waits for events, or for a signal, for maxWait at most. It returns the number of
// descriptors that have some, and whether the eventfd has one, which is edge-triggered
// and not reported again.
func (p *eventPoll) wait(r *readiness) (others int, kicked bool) {
	n, err := unix.EpollWait(r.epfd, p.events[:], int(maxWait/time.Millisecond))
	if err != nil {
		return 0, false
	}
	for _, ev := range p.events[:n] {
		if int(ev.Fd) == r.eventFD {
			kicked = true
		} else {
			others++
		}
	}
	return others, kicked
}

// canKick reports whether kick has an effect.
func (r *readiness) canKick() bool { return r.eventFD >= 0 }

// oneEvent is the number 1, for an eventfd.
var oneEvent = binary.NativeEndian.AppendUint64(nil, 1)

// kick makes the epoll report the loop's eventfd. It may count on and on: gnet reads it
// when it is full.
func (r *readiness) kick() error {
	_, err := unix.Write(r.eventFD, oneEvent)
	return os.NewSyscallError("write", err)
}

// kickAgain makes the epoll report the eventfd once more.
func (r *readiness) kickAgain() { _ = r.control(unix.EPOLL_CTL_MOD, r.eventFD, r.eventFDEvents) }
