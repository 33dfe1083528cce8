package engine

import "errors"

// errNoReadiness means that the epoll of a loop was not found, so that reading
// and accepting cannot be paused in the kernel.
var errNoReadiness = errors.New("the loop's epoll was not found")

// readiness changes the events for which one loop's epoll waits. gnet has no
// call for this. Its default poller registers each descriptor with
// epoll_event{data: fd}, level-triggered, and looks up only the descriptor, so
// the kernel's own call is enough.
//
// Where the epoll is unknown (another system than Linux, gnet's build tag
// poll_opt, no /proc) the methods return errNoReadiness and change nothing.
//
// Immutable. Its methods are safe for concurrent use, as long as the descriptor
// is not closed meanwhile.
type readiness struct {
	epfd      int   // -1 if unknown
	listeners []int // listening sockets registered with epfd

	// eventFD is the eventfd with which gnet wakes its loop, and eventFDEvents are the
	// events for which epfd waits on it. -1 if unknown.
	eventFD       int
	eventFDEvents uint32

	// From this tick on, accepted connections have inherited the bound of
	// unsent bytes from the listeners.
	inherited     bool
	inheritedFrom uint32
}

// noReadiness is the readiness of a loop whose epoll is unknown.
var noReadiness = readiness{epfd: -1, eventFD: -1}

// known reports whether the methods have an effect.
func (r *readiness) known() bool { return r.epfd >= 0 }
