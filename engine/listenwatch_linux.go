package engine

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenWatch waits for connections on listening sockets, once for each arm,
// and for a time. It is an epoll for which Go's own poller waits, so it takes
// no thread. add, arm, remove and wakeAt are safe for concurrent use.
type listenWatch struct {
	epfd   int
	file   *os.File // owns epfd
	raw    syscall.RawConn
	events []unix.EpollEvent // scratch of wait
	ready  []int             // the same
}

func newListenWatch() (*listenWatch, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // otherwise os.NewFile does not use the poller
		_ = unix.Close(epfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &listenWatch{epfd: epfd, file: os.NewFile(uintptr(epfd), "listeners"), events: make([]unix.EpollEvent, 64)}
	if w.raw, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	return w, nil
}

// add watches a listening socket; wait returns index for it.
func (w *listenWatch) add(fd, index int) error { return w.control(unix.EPOLL_CTL_ADD, fd, index) }

// arm watches the socket once more.
func (w *listenWatch) arm(fd, index int) error { return w.control(unix.EPOLL_CTL_MOD, fd, index) }

func (w *listenWatch) control(op, fd, index int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(index)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.epfd, op, fd, &ev))
}

// remove stops watching the socket.
func (w *listenWatch) remove(fd int) { _ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, fd, nil) }

// wakeAt makes wait return at a time, in place of the one set before. From then
// on wait returns at once until another time is set. The zero time is none.
func (w *listenWatch) wakeAt(at time.Time) { _ = w.file.SetReadDeadline(at) }

// wait returns the sockets on which connections wait, possibly none when the
// time has come. It returns false after close. One goroutine may call it.
func (w *listenWatch) wait() (ready []int, ok bool) {
	var n int
	err := w.raw.Read(func(uintptr) bool {
		for {
			var err error
			if n, err = unix.EpollWait(w.epfd, w.events, 0); !errors.Is(err, unix.EINTR) {
				return n > 0
			}
		}
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, true
	}
	w.ready = w.ready[:0]
	for _, ev := range w.events[:max(n, 0)] {
		w.ready = append(w.ready, int(ev.Fd))
	}
	return w.ready, err == nil
}

// close makes wait return false.
func (w *listenWatch) close() { _ = w.file.Close() }

// readable reports whether a connection waits on a listening socket.
func readable(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	return err != nil || n > 0
}

// acceptSocket accepts one connection from a listening socket.
func acceptSocket(listener int) (fd int, err error) {
	fd, _, err = unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return fd, err
}
