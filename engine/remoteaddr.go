package engine

import (
	"net"
	"net/netip"
	"reflect"
	"sync/atomic"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// gnet keeps the peer's address of each connection twice, in 80 bytes and two
// objects: as a unix.Sockaddr, which it uses only for UDP, and as a net.Addr
// that refers to it. An IPv4 address and port take 6 bytes. So attach copies
// the address and clears gnet's fields. It also clears two fields for which
// gnet allocates when a connection is enrolled: the local address, which only a
// TLS handshake needs, in two objects and 64 bytes, and the second copy of the
// context. The fields are found by name and type. In a version of gnet without
// them they stay as they are, and a test fails.

// peerIPv4 is the address of a peer over IPv4; the zero value is none.
type peerIPv4 struct {
	ip   [4]byte
	port uint16
}

// setPeer stores the peer's address, in 6 bytes if it is IPv4, also if that is
// mapped into IPv6. An address before it is forgotten.
func (c *Conn) setPeer(addr netip.AddrPort) {
	var other *netip.AddrPort
	c.peer = peerIPv4{}
	if ip := addr.Addr().Unmap(); ip.Is4() {
		c.peer = peerIPv4{ip.As4(), addr.Port()}
	} else if ip.IsValid() {
		other = new(netip.AddrPort) // addr itself would be moved to the heap for IPv4, too
		*other = addr
	}
	if other != nil || c.lazyState().peer != nil {
		c.updateLazy(func(x *lazyState) { x.peer = other })
	}
}

// setSocketPeer stores the address of the socket's other end. A Unix socket's has
// no name. A TCP socket whose peer is unknown must not pass for one.
func (c *Conn) setSocketPeer(addr net.Addr) {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		c.setPeer(addr.AddrPort())
	case *net.UnixAddr:
	default:
		c.set(unreported)
	}
}

// peerAddr returns the peer's address, the zero value over a Unix socket.
func (c *Conn) peerAddr() netip.AddrPort {
	if c.peer != (peerIPv4{}) {
		return netip.AddrPortFrom(netip.AddrFrom4(c.peer.ip), c.peer.port)
	}
	if addr := c.lazyState().peer; addr != nil {
		return *addr
	}
	return netip.AddrPort{}
}

// RemoteAddr returns the peer's address, or its client's if it is a trusted
// proxy; nil before the connection is open.
func (c *Conn) RemoteAddr() net.Addr {
	addr := c.peerAddr()
	switch {
	case addr.IsValid():
		return net.TCPAddrFromAddrPort(addr)
	case c.shard != nil:
		return unixPeer
	default:
		return nil
	}
}

// unixPeer is the address of a peer whose socket has no name.
var unixPeer = &net.UnixAddr{Net: "unix"}

// connFields holds the offsets of fields of gnet's connections.
type connFields struct {
	typ                           reflect.Type // nil before the first connection
	remote, remoteAddr, localAddr uintptr
	safeContext                   uintptr
	known                         bool
}

// clear clears the fields of gc, except the local address if keepLocal is true.
// gc must be a stream. Loop-confined: use only on the event loop that owns the
// connection.
func (f *connFields) clear(gc netConn, keepLocal bool) {
	v := reflect.ValueOf(gc)
	if f.typ != v.Type() {
		*f = findConnFields(v.Type())
	}
	if !f.known {
		return
	}
	conn := v.UnsafePointer()
	*(*unix.Sockaddr)(unsafe.Add(conn, f.remote)) = nil
	*(*net.Addr)(unsafe.Add(conn, f.remoteAddr)) = nil
	(*atomic.Pointer[any])(unsafe.Add(conn, f.safeContext)).Store(nil)
	if !keepLocal {
		*(*net.Addr)(unsafe.Add(conn, f.localAddr)) = nil
	}
}

func findConnFields(conn reflect.Type) connFields {
	f := connFields{typ: conn}
	if conn.Kind() != reflect.Pointer || conn.Elem().PkgPath() != reflect.TypeFor[gnet.Engine]().PkgPath() {
		return f
	}
	f.known = true
	find := func(name string, typ reflect.Type) uintptr {
		field, ok := conn.Elem().FieldByName(name)
		f.known = f.known && ok && len(field.Index) == 1 && field.Type == typ
		return field.Offset
	}
	f.remote = find("remote", reflect.TypeFor[unix.Sockaddr]())
	f.remoteAddr = find("remoteAddr", reflect.TypeFor[net.Addr]())
	f.localAddr = find("localAddr", reflect.TypeFor[net.Addr]())
	f.safeContext = find("safeCtx", reflect.TypeFor[atomic.Pointer[any]]())
	return f
}
