package engine

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// readEvents are the events for which gnet waits on a connection or a
	// listening socket.
	readEvents = unix.EPOLLIN | unix.EPOLLPRI
	// alwaysEvents are the events that the kernel adds to every registration.
	alwaysEvents = unix.EPOLLERR | unix.EPOLLHUP
)

// pause stops the loop from reading fd, or from accepting if it listens. The
// kernel still reports a reset.
func (r *readiness) pause(fd int) error { return r.control(unix.EPOLL_CTL_MOD, fd, 0) }

// resume takes pause back.
func (r *readiness) resume(fd int) error { return r.control(unix.EPOLL_CTL_MOD, fd, readEvents) }

// remove removes a listening socket from the epoll.
func (r *readiness) remove(fd int) error { return r.control(unix.EPOLL_CTL_DEL, fd, 0) }

func (r *readiness) control(op, fd int, events uint32) error {
	if !r.known() {
		return errNoReadiness
	}
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epfd, op, fd, &ev))
}

// findReadiness finds for each of fds the one epoll of this process that waits
// for it as gnet does, in the registrations that /proc/self/fdinfo shows for
// each epoll. fds are connections, one of each loop. It returns an error if it
// finds none or several for one of them, or if gnet registers descriptors in
// another way.
func findReadiness(fds []int) ([]readiness, error) {
	found := make([]readiness, len(fds))
	for i := range found {
		found[i] = noReadiness
	}
	epolls, err := listEpolls()
	if err != nil {
		return nil, err
	}
	for _, epfd := range epolls {
		targets, err := epollTargets(epfd)
		if err != nil {
			return nil, err
		}
		for i, fd := range fds {
			events, ok := targets[fd]
			if !ok {
				continue
			}
			if found[i].known() || events != readEvents|alwaysEvents {
				return nil, fmt.Errorf("%w: descriptor %d is registered several times or with events %#x",
					errNoReadiness, fd, events)
			}
			found[i] = readiness{epfd: epfd, listeners: listening(targets)}
			found[i].findEventFD(targets)
		}
	}
	for i, fd := range fds {
		if !found[i].known() {
			return nil, fmt.Errorf("%w: no epoll waits for descriptor %d", errNoReadiness, fd)
		}
	}
	return found, nil
}

// listEpolls returns the epoll descriptors of this process.
func listEpolls() (epolls []int, err error) {
	const dir = "/proc/self/fd"
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoReadiness, err)
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		// An error means that the descriptor was closed meanwhile.
		if link, err := os.Readlink(dir + "/" + name.Name()); err == nil && link == "anon_inode:[eventpoll]" {
			epolls = append(epolls, fd)
		}
	}
	return epolls, nil
}

// epollTargets returns the events for which an epoll waits, by descriptor. It
// skips registrations whose data is not the descriptor, because they are not
// gnet's.
func epollTargets(epfd int) (map[int]uint32, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", epfd))
	if os.IsNotExist(err) {
		return nil, nil // closed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoReadiness, err)
	}
	targets := make(map[int]uint32)
	for line := range bytes.Lines(info) {
		var fd int
		var events uint32
		var data uint64
		n, _ := fmt.Sscanf(string(line), "tfd: %d events: %x data: %x", &fd, &events, &data)
		if n == 3 && data == uint64(fd) {
			targets[fd] = events
		}
	}
	return targets, nil
}

// listening returns the listening sockets among targets.
func listening(targets map[int]uint32) (fds []int) {
	for fd := range targets {
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// findEventFD finds the one eventfd among targets: gnet registers it edge-triggered.
func (r *readiness) findEventFD(targets map[int]uint32) {
	r.eventFD = -1
	for fd, events := range targets {
		if events&unix.EPOLLET == 0 {
			continue
		}
		if r.eventFD >= 0 {
			r.eventFD = -1
			return
		}
		r.eventFD, r.eventFDEvents = fd, events
	}
}
