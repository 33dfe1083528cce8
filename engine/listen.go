package engine

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reserve makes sure that nobody else listens on addr, and picks a port if
// addr asks for port 0. gnet's listeners share one address (SO_REUSEPORT), so
// left alone a second process would silently take half of the connections, and
// port 0 would give each loop a port of its own. release frees what holds the
// port meanwhile.
func (e *Engine) reserve(addr string) (resolved string, release func(), err error) {
	network, address, ok := strings.Cut(addr, "://")
	if !ok {
		return "", nil, fmt.Errorf("no scheme in %q", addr)
	}
	tcp, err := net.ResolveTCPAddr(network, address)
	if err != nil {
		return "", nil, err
	}
	release = func() {}
	if tcp.Port == 0 {
		if release, err = holdPort(network, tcp); err != nil {
			return "", nil, err
		}
	} else if err := probe(network, tcp); err != nil {
		return "", nil, err
	}
	e.setAddr(tcp)
	host, _, _ := net.SplitHostPort(address)
	return network + "://" + net.JoinHostPort(host, strconv.Itoa(tcp.Port)), release, nil
}

func (e *Engine) setAddr(addr net.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addr = addr
}

// probe binds the address alone for a moment, which fails if anybody has it.
func probe(network string, addr *net.TCPAddr) error {
	l, err := net.ListenTCP(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// holdPort binds a socket that does not listen to a free port, which it writes
// to addr. The port stays ours until release closes that socket.
func holdPort(network string, addr *net.TCPAddr) (release func(), err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{})
	switch ip4 := addr.IP.To4(); {
	case ip4 != nil || network == "tcp4":
		sa4 := &unix.SockaddrInet4{}
		copy(sa4.Addr[:], ip4)
		family, sa = unix.AF_INET, sa4
	case addr.IP != nil:
		sa6 := &unix.SockaddrInet6{}
		copy(sa6.Addr[:], addr.IP)
		sa = sa6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == unix.EAFNOSUPPORT && addr.IP == nil { // no IPv6 here
		family, sa = unix.AF_INET, &unix.SockaddrInet4{}
		fd, err = unix.Socket(family, unix.SOCK_STREAM, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	release = func() { _ = unix.Close(fd) }
	unix.CloseOnExec(fd)
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err == nil {
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
