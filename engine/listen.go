package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reserve checks that nothing else listens on addr, and picks a port if addr
// asks for port 0. gnet's listeners share one address (SO_REUSEPORT), so
// without this a second process would silently take half of the connections,
// and port 0 would give each loop its own port. release frees the socket that
// holds the port meanwhile.
//
// The families are those of package net: only tcp on an unspecified address
// listens on both. gnet opens the listeners of all loops except the first with
// the network tcp, so the IP of the resolved address decides the family.
func (e *Engine) reserve(addr string) (resolved string, release func(), err error) {
	network, address, ok := strings.Cut(addr, "://")
	if !ok {
		return "", nil, fmt.Errorf("no scheme in %q", addr)
	}
	asked, err := net.ResolveTCPAddr(network, address)
	if err != nil {
		return "", nil, err
	}
	tcp, err := probe(network, asked)
	if err != nil {
		return "", nil, err
	}
	host := tcp.IP.String()
	if network == "tcp" && tcp.IP.Equal(net.IPv6unspecified) {
		host = "" // both families, for gnet
	} else if tcp.Zone != "" {
		host += "%" + tcp.Zone
	}
	release = func() {}
	if asked.Port == 0 {
		if release, err = holdPort(tcp, host == ""); err != nil {
			return "", nil, err
		}
	}
	e.setAddr(tcp)
	return "tcp://" + net.JoinHostPort(host, strconv.Itoa(tcp.Port)), release, nil
}

func (e *Engine) setAddr(addr net.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addr = addr
}

// probe binds the address exclusively for a moment, which fails if it is in
// use. It returns the address as package net binds it, with the name of the
// zone.
func probe(network string, addr *net.TCPAddr) (*net.TCPAddr, error) {
	l, err := net.ListenTCP(network, addr)
	if err != nil {
		return nil, err
	}
	bound := l.Addr().(*net.TCPAddr)
	bound.Zone = addr.Zone // Addr may lack it
	if number, err := strconv.Atoi(addr.Zone); err == nil {
		if iface, err := net.InterfaceByIndex(number); err == nil {
			bound.Zone = iface.Name // gnet does not take numbers
		}
	}
	return bound, l.Close()
}

// holdPort binds a socket that does not listen to a free port, which it writes
// to addr. both requests both families. The port stays ours until release
// closes that socket.
func holdPort(addr *net.TCPAddr, both bool) (release func(), err error) {
	var sa unix.Sockaddr
	family := unix.AF_INET
	if ip4 := addr.IP.To4(); ip4 != nil {
		sa = &unix.SockaddrInet4{Addr: [4]byte(ip4)}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(addr.IP), ZoneId: zoneID(addr.Zone)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	release = func() { _ = unix.Close(fd) }
	unix.CloseOnExec(fd)
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil && family == unix.AF_INET6 && !both {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if err != nil {
		release()
		return nil, os.NewSyscallError("bind", err)
	}
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		addr.Port = b.Port
	case *unix.SockaddrInet6:
		addr.Port = b.Port
	}
	return release, nil
}

// zoneID returns the number of the named interface; 0 is none.
func zoneID(zone string) uint32 {
	iface, err := net.InterfaceByName(zone)
	if err != nil {
		return 0
	}
	return uint32(iface.Index)
}

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
