package engine

import (
	"net"
	"net/netip"
	"reflect"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// gnet keeps the peer's address of each connection twice, in 80 bytes and two
// objects: as a unix.Sockaddr, which it uses only for UDP, and as a net.Addr
// that refers to it. An IPv4 address and port take 6 bytes. So attach copies
// the address and clears gnet's fields, which are found by name and type. In a
// version of gnet without these fields they stay as they are, and a test fails.

// peerIPv4 is the address of a peer over IPv4; the zero value is none.
type peerIPv4 struct {
	ip   [4]byte
	port uint16
}

// setPeer stores the peer's address, in 6 bytes if it is IPv4, also if that is
// mapped into IPv6.
func (c *Conn) setPeer(addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		if ip := tcp.IP.To4(); ip != nil {
			c.peer = peerIPv4{[4]byte(ip), uint16(tcp.Port)}
			return
		}
		c.updateLazy(func(x *lazyState) { x.peer = tcp })
	}
}

// RemoteAddr returns the peer's address, or nil before the connection is open.
func (c *Conn) RemoteAddr() net.Addr {
	switch {
	case c.peer != peerIPv4{}:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(c.peer.ip), c.peer.port))
	case c.lazyState().peer != nil:
		return c.lazyState().peer
	case c.shard != nil:
		return unixPeer
	default:
		return nil
	}
}

// unixPeer is the address of a peer whose socket has no name.
var unixPeer = &net.UnixAddr{Net: "unix"}

// peerFields are the offsets of the peer's addresses in gnet's connections.
type peerFields struct {
	typ                reflect.Type // nil before the first connection
	remote, remoteAddr uintptr
	known              bool
}

// forget clears gc's addresses. gc must be a stream. Loop-confined: use only on
// the event loop that owns the connection.
func (f *peerFields) forget(gc netConn) {
	v := reflect.ValueOf(gc)
	if f.typ != v.Type() {
		*f = findPeerFields(v.Type())
	}
	if f.known {
		*(*unix.Sockaddr)(unsafe.Add(v.UnsafePointer(), f.remote)) = nil
		*(*net.Addr)(unsafe.Add(v.UnsafePointer(), f.remoteAddr)) = nil
	}
}

func findPeerFields(conn reflect.Type) peerFields {
	f := peerFields{typ: conn}
	if conn.Kind() != reflect.Pointer || conn.Elem().PkgPath() != reflect.TypeFor[gnet.Engine]().PkgPath() {
		return f
	}
	find := func(name string, typ reflect.Type) (uintptr, bool) {
		field, ok := conn.Elem().FieldByName(name)
		return field.Offset, ok && len(field.Index) == 1 && field.Type == typ
	}
	remote, ok := find("remote", reflect.TypeFor[unix.Sockaddr]())
	addr, also := find("remoteAddr", reflect.TypeFor[net.Addr]())
	f.remote, f.remoteAddr, f.known = remote, addr, ok && also
	return f
}
