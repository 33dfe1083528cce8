package engine

import (
	"encoding/binary"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// writablePoller notifies the blocked connections of one loop when their sockets
// are writable again. gnet does not: it arms EPOLLOUT only for its own buffer,
// which is unbounded and copies. The poller is a second epoll, with a goroutine
// from the first blocked connection on. Each wait is one-shot, and an event for
// a descriptor that was reused since does not match the generation of its wait.
//
// The loop's own epoll cannot take its place: gnet would handle the event and
// call none of our callbacks. One goroutine could wait for the epolls of all
// loops through a further epoll, but then the kernel takes a mutex of the whole
// machine (epnested_mutex) for each socket that is added.
//
// Loop-confined: use only on the event loop that owns the connection.
type writablePoller struct {
	epfd  int
	endFD int // eventfd that ends the goroutine
	ended chan struct{}

	running bool // since the loop's first blocked connection; loop-confined

	mu    sync.Mutex
	conns map[int32]*Conn // blocked connections by descriptor; guarded by mu
}

func newWritablePoller() (*writablePoller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	endFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &writablePoller{epfd: epfd, endFD: endFD, ended: make(chan struct{}), conns: make(map[int32]*Conn)}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(endFD)}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, endFD, &ev); err != nil {
		_, _ = unix.Close(epfd), unix.Close(endFD)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

// arm requests one writableTask for c.
func (p *writablePoller) arm(c *Conn) error {
	ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLONESHOT, Fd: c.fd, Pad: int32(c.generation)}
	if !p.running {
		p.running = true
		go p.run() // owned by the engine: close ends it and waits
	}
	p.mu.Lock()
	p.conns[c.fd] = c
	p.mu.Unlock()
	err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, int(c.fd), &ev)
	if err == unix.ENOENT {
		err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, int(c.fd), &ev)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// disarm forgets c, whose descriptor is still open.
func (p *writablePoller) disarm(c *Conn) {
	p.mu.Lock()
	armed := p.conns[c.fd] == c
	if armed {
		delete(p.conns, c.fd)
	}
	p.mu.Unlock()
	if armed {
		_ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
}

// take returns the connection of an event, or nil if the event is stale. Safe
// for concurrent use.
func (p *writablePoller) take(fd int32, generation uint32) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[fd]
	if c == nil || c.generation != generation {
		return nil
	}
	delete(p.conns, fd)
	return c
}

func (p *writablePoller) run() {
	defer close(p.ended)
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(p.epfd, events, -1)
		if err != nil && err != unix.EINTR {
			return // the descriptor was closed
		}
		for _, ev := range events[:max(n, 0)] {
			if int(ev.Fd) == p.endFD {
				return
			}
			if c := p.take(ev.Fd, uint32(ev.Pad)); c != nil {
				c.shard.postUrgent((*writableTask)(c))
			}
		}
	}
}

// close ends the goroutine. The loop has ended.
func (p *writablePoller) close() {
	if p.running {
		_, _ = unix.Write(p.endFD, binary.NativeEndian.AppendUint64(nil, 1))
		<-p.ended
	}
	_, _ = unix.Close(p.epfd), unix.Close(p.endFD)
}
