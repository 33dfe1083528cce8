package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// unixListener is the Unix socket of ListenAddr. gnet never gets its path,
// because gnet reads the address as a URL and removes the result recursively.
//
// Safe for concurrent use.
type unixListener struct {
	*net.UnixListener
	eng  *Engine
	path string      // absolute; "" for an abstract socket
	info os.FileInfo // of the socket at path
	once sync.Once
}

const unixScheme = "unix://"

// listensOnUnix reports whether ListenAddr is a Unix socket.
func (e *Engine) listensOnUnix() bool { return strings.HasPrefix(e.cfg.ListenAddr, unixScheme) }

// maxListenBacklog asks for the longest backlog that the system allows.
const maxListenBacklog = 1<<16 - 1

// listenUnix listens at the path of ListenAddr, and replaces a socket on which
// no process listens any more. A name that begins with @ is abstract: it is in
// no file system.
func (e *Engine) listenUnix() (_ *unixListener, err error) {
	l := &unixListener{eng: e}
	name := strings.TrimPrefix(e.cfg.ListenAddr, unixScheme)
	if !strings.HasPrefix(name, "@") {
		if err := removeStale(name); err != nil {
			return nil, err
		}
		if l.path, err = filepath.Abs(name); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), name)
	defer func() { _ = file.Close() }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := l.bound(); err != nil {
		return nil, err
	}
	if err = unix.Listen(fd, maxListenBacklog); err != nil {
		l.removePath()
		return nil, os.NewSyscallError("listen", err)
	}
	nl, err := net.FileListener(file)
	if err != nil {
		l.removePath()
		return nil, err
	}
	l.UnixListener = nl.(*net.UnixListener)
	e.setAddr(l.Addr())
	return l, nil
}

// bound records the file of the socket, and sets its mode. No client can
// connect before the socket listens, so it never has more rights.
func (l *unixListener) bound() (err error) {
	if l.path == "" {
		return nil
	}
	if l.info, err = os.Lstat(l.path); err != nil {
		return err
	}
	if mode := l.eng.cfg.UnixSocketMode; mode != 0 {
		if err := os.Chmod(l.path, mode); err != nil {
			l.removePath()
			return err
		}
	}
	return nil
}

// removePath removes the socket from the file system, unless another file has
// its path.
func (l *unixListener) removePath() {
	if l.path == "" {
		return
	}
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		_ = unix.Unlink(l.path)
	}
}

// Close removes the path first: while the socket listens, no other process
// takes the file for a stale one. Then it refuses the connections in the
// backlog.
func (l *unixListener) Close() (err error) {
	l.once.Do(func() {
		l.removePath()
		if raw, err := l.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { l.eng.refuseBacklog(int(fd)) })
		}
		err = l.UnixListener.Close()
	})
	return err
}

// staleDialTime bounds the wait for a process that may listen on a socket.
const staleDialTime = time.Second

// removeStale removes a socket from path if no process listens on it. It
// returns an error and removes nothing if one does, or if the path is not a
// socket.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("the path exists and is not a socket")
	}
	nc, err := net.DialTimeout("unix", path, staleDialTime)
	switch {
	case err == nil:
		_ = nc.Close()
		return errListening
	case errors.Is(err, unix.EAGAIN): // its backlog is full
		return errListening
	case !errors.Is(err, unix.ECONNREFUSED):
		return err
	}
	// A file system may give the number of a removed file to the next one.
	if now, err := os.Lstat(path); err != nil || !os.SameFile(now, info) || now.ModTime() != info.ModTime() {
		return errListening // it is a new socket
	}
	if err := unix.Unlink(path); err != nil {
		return &os.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}

var errListening = fmt.Errorf("another process is listening: %w", unix.EADDRINUSE)
