package engine

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

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
