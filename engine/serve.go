package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"syscall"
)

// acceptedByUs is gnet's context of a connection that gnet has not accepted.
type acceptedByUs struct {
	place   *place
	peer    net.Addr // in place of the socket's; nil is none
	foreign bool     // the socket has no options of gnet's listeners
}

// served is a listener whose connections are accepted by acceptFrom.
type served struct{ net.Listener }

// Serve accepts connections from l, and hands each to the loop with the fewest.
// It waits until the loops run, and closes l before it returns: nil after Stop,
// ErrStopped if Stop or the end of the loops came before it, or the error of l or
// of a connection that cannot be moved to a loop.
func (e *Engine) Serve(l net.Listener) error {
	s := &served{l}
	defer func() { _ = l.Close() }()
	switch {
	case e.cfg.Memory != nil:
		return errNoSockets
	case reflect.TypeOf(l) == tlsListener:
		return errTLSListener
	}
	select {
	case <-e.started:
	case <-e.closing: // the start failed
		return ErrStopped
	case <-e.stopped:
		return ErrStopped
	}
	if !e.beginServe(s) {
		return ErrStopped
	}
	defer e.endServe(s)
	return e.acceptFrom(l)
}

// tlsListener is the type of the listeners of crypto/tls.
var tlsListener = reflect.TypeOf(tls.NewListener(nil, nil))

var errTLSListener = errors.New("TLS of a tls.Listener: give its configuration to WithTLSConfig, and Serve the listener below it")

// beginServe notes a listener that Stop is to close. It reports false if the
// engine stops.
func (e *Engine) beginServe(s *served) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Load() || e.accept.isOver() {
		return false
	}
	if e.serving == nil {
		e.serving = make(map[*served]struct{})
	}
	e.serving[s] = struct{}{}
	return true
}

func (e *Engine) endServe(s *served) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.serving, s)
}

// closeServed closes the listeners of acceptFrom, which ends it. The gate lets
// nobody in any more.
func (e *Engine) closeServed() {
	e.mu.Lock()
	serving := e.serving
	e.serving = nil
	e.mu.Unlock()
	for s := range serving {
		_ = s.Close()
	}
}

// acceptFrom accepts from l, which is not gnet's. A connection waits here for its
// turn. When nobody is let in any more it returns nil.
func (e *Engine) acceptFrom(l net.Listener) error {
	for {
		nc, err := l.Accept()
		switch {
		case e.accept.isOver():
			if err == nil {
				e.refuse(nc)
			}
			return nil
		case err == nil:
			if err := e.letIn(nc); err != nil {
				return err
			}
		case isExhausted(err):
			e.accept.exhausted(err)
		case isTemporary(err):
			e.cfg.Logger.Warn("ws: accepting", slog.Any("error", err))
			e.accept.rest()
		default:
			return err
		}
	}
}

// isTemporary reports whether Accept may succeed later, as net/http takes it.
func isTemporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// letIn waits for the connection's turn and hands it to a loop. It returns an
// error if connections of that type cannot be moved.
func (e *Engine) letIn(nc net.Conn) error {
	defer func() { _ = nc.Close() }()
	if err := checkServed(nc); err != nil {
		return err
	}
	if e.accept.await(context.Background(), turnAccept) != nil {
		e.refuse(nc)
		return nil
	}
	from := acceptedByUs{peer: peerOf(nc), foreign: true}
	for {
		err := withDescriptor(nc, func(fd int) { e.accept.enroll(fd, from, e.choosePlace) })
		if !isExhausted(err) || e.accept.isOver() {
			return nil // it is enrolled or refused, or its peer has gone
		}
		e.accept.exhausted(err)
	}
}

// refuse refuses a connection that is not on a loop.
func (e *Engine) refuse(nc net.Conn) {
	_ = withDescriptor(nc, e.refuseSocket)
	_ = nc.Close()
}

// filer is a connection that can give a duplicate of its descriptor.
type filer interface{ File() (*os.File, error) }

// checkServed returns an error if nc has no descriptor.
func checkServed(nc net.Conn) error {
	switch nc.(type) {
	case *tls.Conn:
		return errTLSListener
	case syscall.Conn, filer:
		return nil
	}
	return fmt.Errorf("connection is a %T, which has neither SyscallConn nor File", nc)
}

// withDescriptor calls fn with the descriptor of nc.
func withDescriptor(nc net.Conn, fn func(fd int)) error {
	sc, ok := nc.(syscall.Conn)
	if f, isFiler := nc.(filer); !ok && isFiler {
		file, err := f.File()
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		sc = file
	}
	if sc == nil {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}

// peerOf returns the peer's address as a wrapped connection has it, such as that
// of the PROXY protocol; nil is the socket's.
func peerOf(nc net.Conn) net.Addr {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		return nil
	}
	if addr, ok := nc.RemoteAddr().(*net.TCPAddr); ok && addr != nil {
		return addr
	}
	return nil
}
