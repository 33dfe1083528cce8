package engine

import (
	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// TakeWritable returns the connection of an event of the loop's writability
// poller; call it on the loop, after ArmWritable.
func (s *Shard) TakeWritable(fd int32, generation uint32) *Conn {
	return s.driver.(*gnetLoop).writable.take(fd, generation)
}

// ArmWritable arms the poller for c; call it on the loop.
func (s *Shard) ArmWritable(c *Conn) error { return s.driver.arm(c) }

// Pollers are writability pollers, and full sockets that wait for them.
type Pollers struct {
	pollers []*writablePoller
	conns   []*Conn
	peers   []int
}

// NewPollers returns n sockets on that many pollers.
func NewPollers(pollers, n int) (*Pollers, error) {
	p := new(Pollers)
	for range pollers {
		w, err := newWritablePoller()
		if err != nil {
			return p, err
		}
		p.pollers = append(p.pollers, w)
	}
	for range n {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return p, err
		}
		for err == nil {
			_, err = unix.Write(fds[0], make([]byte, 4096))
		}
		p.conns, p.peers = append(p.conns, &Conn{fd: int32(fds[0])}), append(p.peers, fds[1])
	}
	return p, nil
}

// Arm arms a poller for the n-th socket.
func (p *Pollers) Arm(n int) error { return p.pollers[n%len(p.pollers)].arm(p.conns[n]) }

// Close closes the sockets, and ends the pollers.
func (p *Pollers) Close() {
	for i, c := range p.conns {
		p.pollers[i%len(p.pollers)].disarm(c)
		_, _ = unix.Close(int(c.fd)), unix.Close(p.peers[i])
	}
	for _, w := range p.pollers {
		w.close()
	}
}

// FilesLeft reads the content of /proc/sys/fs/file-nr.
func FilesLeft(content string) int { return parseFileNr(content) }

// InheritsUnsent reports whether the loop relies on its listener's bound of
// unsent bytes.
func (s *Shard) InheritsUnsent() bool { return s.driver.(*gnetLoop).inheritsInLoop() }

// WatchedEvents returns the events of c for which the loop's epoll waits.
func (c *Conn) WatchedEvents() (events uint32, err error) {
	targets, err := epollTargets(c.shard.driver.(*gnetLoop).ready.Load().epfd)
	return targets[int(c.fd)], err
}

// EnrollLate enrolls an accepted socket that the loop has not taken in time,
// and for which gnet then returns err.
func (s *Shard) EnrollLate(fd int, err error) error {
	s.eng.beginEnroll()
	result := make(chan gnet.RegisteredResult, 1)
	result <- gnet.RegisteredResult{Err: err}
	return s.place().enrollLate(result, fd, arrival{})
}

// EventFDs returns the eventfd of each loop, -1 for an unknown one.
func (e *Engine) EventFDs() (fds []int) {
	for _, l := range e.loops {
		fds = append(fds, l.ready.Load().eventFD)
	}
	return fds
}
