package engine

import (
	"context"
	"net"
	"syscall"
)

// acceptedByUs is gnet's context of a connection that gnet has not accepted.
type acceptedByUs struct{ place *place }

// acceptFrom accepts from l, which is not gnet's, and hands each connection to the
// loop with the fewest. A connection waits here for its turn. When nobody is let in
// any more it returns nil; l must be closed then.
func (e *Engine) acceptFrom(l net.Listener) error {
	for {
		nc, err := l.Accept()
		switch {
		case e.accept.isOver():
			if err == nil {
				e.refuse(nc)
			}
			return nil
		case isExhausted(err):
			e.accept.exhausted(err)
		case err != nil:
			return err
		default:
			e.letIn(nc)
		}
	}
}

// letIn waits for the connection's turn and hands it to a loop.
func (e *Engine) letIn(nc net.Conn) {
	if e.accept.await(context.Background(), turnAccept) != nil {
		e.refuse(nc)
		return
	}
	_ = withDescriptor(nc, func(fd int) { e.accept.enroll(fd, e.choosePlace) })
	_ = nc.Close()
}

// refuse refuses a connection that is not on a loop.
func (e *Engine) refuse(nc net.Conn) {
	_ = withDescriptor(nc, e.refuseSocket)
	_ = nc.Close()
}

// withDescriptor calls fn with the descriptor of nc.
func withDescriptor(nc net.Conn, fn func(fd int)) error {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}
