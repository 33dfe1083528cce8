package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"syscall"

	"github.com/qi-realtime/ws/codec"
)

// arrival describes a peer before it has a Conn. It is gnet's context for a
// connection that gnet has not accepted.
type arrival struct {
	place   *place              // nil if gnet has accepted it
	peer    netip.AddrPort      // in place of the socket's address; the zero value is none
	foreign bool                // the socket has no options of gnet's listeners
	refusal *codec.RequestError // see admitPeer; nil if it comes in
	flags   connFlags           // of its connection: see admitArrival
}

// served is a listener in use by acceptFrom.
type served struct{ net.Listener }

// Serve accepts connections from l, and hands each to the loop with the fewest.
// It waits until the loops run, and closes l before it returns. It returns nil
// after Stop, ErrStopped if Stop or the end of the loops came before it, or the
// error of l or of a connection that cannot be moved to a loop.
func (e *Engine) Serve(l net.Listener) error {
	s := &served{l}
	defer func() { _ = l.Close() }()
	switch {
	case e.cfg.Simnet != nil:
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

var errTLSListener = errors.New("TLS of a tls.Listener: give its configuration to WithTLSConfig, " +
	"and Serve the listener below it")

// beginServe registers a listener for Stop to close. It returns false if the
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

// closeServed closes the listeners of acceptFrom, which ends it. The gate gives
// no permits any more.
func (e *Engine) closeServed() {
	e.mu.Lock()
	serving := e.serving
	e.serving = nil
	e.mu.Unlock()
	for s := range serving {
		_ = s.Close()
	}
}

// acceptFrom accepts from l, which is not gnet's. A connection waits here for
// its permit. It returns nil when the gate gives no permits any more.
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

// isTemporary reports whether Accept may succeed later, by the rule of
// net/http.
func isTemporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// letIn waits for the connection's permit and hands it to a loop. It returns an
// error if connections of that type cannot be moved.
func (e *Engine) letIn(nc net.Conn) error {
	defer func() { _ = nc.Close() }()
	if err := checkServed(nc); err != nil {
		return err
	}
	if e.accept.await(context.Background(), permitAccept) != nil {
		e.refuse(nc)
		return nil
	}
	from := arrival{peer: peerOf(nc), foreign: true}
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

// filer is a connection with a method for a duplicate of its descriptor.
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

// peerOf returns the peer's address of a wrapped connection, such as one of the
// PROXY protocol, or the zero value for the socket's own.
func peerOf(nc net.Conn) (addr netip.AddrPort) {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		return addr
	}
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok && tcp != nil {
		return tcp.AddrPort()
	}
	return addr
}
