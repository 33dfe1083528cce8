package engine

import (
	"context"
	"net"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// driver is the network below one shard: a loop that runs it, and the sockets
// of its connections. There are two: gnetLoop, and simLoop of a Simnet.
//
// Execute, Enroll, wake and yield are safe for concurrent use. Loop-confined
// otherwise: use only on the event loop that owns the connection.
type driver interface {
	eventLoop
	sockets
	// wake makes the loop take a turn at the shard's inbox.
	wake()
	// yield requests another turn of the shard, after the connections that are
	// ready are served.
	yield()
	// await may wait for events of the loop, at the end of a callback.
	await()
	// canPause reports whether unwatch has an effect.
	canPause() bool
	// unwatch stops the loop from reading c, and watch takes it back.
	unwatch(c *Conn) error
	watch(c *Conn) error
	// ended releases the loop, because its goroutine is about to end.
	ended()
}

// eventLoop is the part of gnet's event loop that a shard uses.
type eventLoop interface {
	Execute(context.Context, gnet.Runnable) error
	Enroll(context.Context, net.Conn) (<-chan gnet.RegisteredResult, error)
}

// sockets are the operations on the sockets of a loop's connections.
type sockets interface {
	// adopt prepares the socket of a new connection. foreign is true if it does
	// not come from a listener of gnet.
	adopt(c *Conn, foreign bool)
	// writev writes the buffers of iov, and write b, which is borrowed.
	writev(c *Conn, iov []unix.Iovec) (int, error)
	write(c *Conn, b []byte) (int, error)
	// boundUnsent sets the bound of unsent bytes; 0 is none. It reports whether
	// the socket may have one.
	boundUnsent(c *Conn, bytes int) bool
	// arm requests one writableTask for c, and disarm takes it back.
	arm(c *Conn) error
	disarm(c *Conn)
	// hasUnread reports whether bytes of the peer wait in the kernel.
	hasUnread(c *Conn) bool
	// progress returns the position up to which the peer has read.
	progress(c *Conn) progress
	// halfClose sends a FIN.
	halfClose(c *Conn)
	// resetOnClose makes the closing of the socket a reset.
	resetOnClose(c *Conn)
	// drain reads the unread bytes, within a bound, because closing a socket
	// with unread bytes resets the connection and can lose our last bytes.
	drain(c *Conn)
	// close closes the socket. detach runs within it.
	close(c *Conn)
	// handOver closes c's socket without detach, in favor of a duplicate of the
	// descriptor. On an error nothing has changed.
	handOver(c *Conn) (fd int, err error)
	// release closes the socket without detach.
	release(c *Conn)
}

// netConn is the part of gnet's connection that a Conn uses.
type netConn interface {
	unread
	Fd() int
	SetContext(any)
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}
