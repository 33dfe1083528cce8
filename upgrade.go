package ws

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// HandleUpgrade answers the upgrade request r and hands its connection to an
// event loop; no goroutine stays behind. It waits until Run has started. If it
// refuses, it has written the HTTP error and returns the cause: ErrTooManyConnections (503;
// also while the process has no descriptors to spare), ErrClientIDExists (409),
// ErrManagerStopped (503), or a *HandshakeError; any other error is the network's.
//
// OnConnect may still run when it returns nil: the client is answered after that.
//
// With WithAdmission it waits for its turn, within HandshakeTimeout; if that ends
// first, it refuses with a *HandshakeError of status 503, and with 429 at the limits of the
// request's RemoteAddr. A client that it refuses politely, see Admission.Polite, reads a close
// frame in place of the HTTP error; the call waits up to a second for the client's end.
//
// opts are the options of the client; the options that Authenticate returns are applied after
// them. The answer that accepts has only the Set-Cookie lines of w.Header(); see
// WithResponseHeader. A refusal has all lines.
//
// The http.Server bounds the request's size and the time that a client takes to send it: set
// its ReadHeaderTimeout. Its parser accepts heads that ListenAddr refuses, and leaves no
// trace of it: it joins folded lines, ends a line at a lone LF and merges equal
// Content-Lengths of 0.
//
// The connection must be TCP or a Unix socket, plain or with the TLS of net/http, over which
// the client must speak HTTP/1.1: a WebSocket over HTTP/2 is refused with 505. w must be an
// http.Hijacker, or have an Unwrap method that leads to one (see http.ResponseController):
// http.TimeoutHandler and some middleware give no such writer (500), and the adaptors of
// fasthttp and fiber wrap the connection (501); the error names the type and the remedy.
func (m *Manager) HandleUpgrade(w http.ResponseWriter, r *http.Request, opts ...ClientOption) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), m.cfg.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)() // Shutdown
	c, shake, err := m.accept(r.WithContext(ctx), opts)
	if err != nil {
		h := asHandshakeError(err)
		m.refusals[h.why].Add(1)
		m.refuseOverHTTP(w, r, h)
		return err
	}
	shake.began = began
	if err := m.hijack(ctx, c, w, r, &shake); err != nil {
		m.refusals[asHandshakeError(err).why].Add(1)
		if !c.conn.Opened() {
			m.clients.abandon(c)
		}
		return err
	}
	return nil
}

// accept decides on r, a copy of the application's request, once the event loops run. It returns
// the client that it makes, and the decision.
func (m *Manager) accept(r *http.Request, opts []ClientOption) (c *Client, h handshake, err error) {
	if err := m.awaitRun(r.Context()); err != nil {
		return nil, h, err
	}
	from := m.cfg.forwardedAddr(r)
	if from.IsValid() {
		r.RemoteAddr = from.String() // r is a copy
	}
	addr, err := m.admitAddress(r)
	if err != nil {
		return nil, h, err
	}
	defer func() {
		switch {
		case !addr.IsValid():
		case err != nil:
			m.engine.LeaveAddress(addr.Addr())
		default:
			c.conn.SetCounted(addr)
		}
	}()
	if err := codec.CheckHead(r); err != nil { // as the native path does
		return nil, h, asHandshakeError(err)
	}
	if h, err = m.decide(r, overHTTP, opts); err != nil {
		return nil, h, err
	}
	c = m.newClient()
	if from.IsValid() {
		c.conn.SetRemoteAddr(from)
	}
	return c, h, m.admit(c, r, &h)
}

// awaitRun waits until the event loops run.
func (m *Manager) awaitRun(ctx context.Context) error {
	if err := m.stopped(); err != nil {
		return err
	}
	select {
	case <-m.engine.Started():
		return nil
	case <-m.engine.Stopped():
	case <-m.stopping:
	case <-ctx.Done():
	}
	return ErrManagerStopped
}

// hijack takes the connection from net/http and enrolls it.
func (m *Manager) hijack(
	ctx context.Context, c *Client, w http.ResponseWriter, r *http.Request, shake *handshake,
) error {
	nc, rw, err := takeConn(w)
	if err != nil {
		m.engine.Uncount(&c.conn)
		return err
	}
	accept := shake.accept
	addCookies(&accept, w.Header())
	early := make([]byte, rw.Reader.Buffered())
	_, _ = rw.Read(early) // all of it is in the buffer
	d := engine.Decision{
		Response: codec.AppendAccept(nil, r, accept), Accepted: true, Placement: shake.client.place, Began: shake.began,
	}
	if err := m.engine.Enroll(ctx, &c.conn, nc, d, early); err != nil {
		return fmt.Errorf("ws: enroll: %w", err)
	}
	return nil
}

// takeConn takes the connection from net/http, if an event loop can take it.
func takeConn(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "connection cannot be upgraded", http.StatusInternalServerError)
		return nil, nil, hijackError(w, err)
	}
	if err := engine.CheckEnroll(nc); err != nil {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second)) // a pipe, perhaps, that nobody reads
		_, _ = nc.Write(codec.AppendRefusal(nil, http.StatusNotImplemented, "unsupported connection", nil))
		_ = nc.Close()
		return nil, nil, fmt.Errorf("ws: hijack %T: %w; the native path needs no net/http: see WithListenAddr", w, err)
	}
	return nc, rw, nil
}

// hijackError returns the error of a w without a connection to hijack, with the remedy.
func hijackError(w http.ResponseWriter, err error) error {
	if !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("ws: hijack %T: %w", w, err)
	}
	return fmt.Errorf("ws: hijack: a %T is no http.Hijacker and has no Unwrap method that returns one; register"+
		" HandleUpgrade outside of http.TimeoutHandler and of middleware that wraps the ResponseWriter: %w", w, err)
}

// addCookies adds to accept the cookies that middleware has set before HandleUpgrade.
func addCookies(accept *codec.Accept, h http.Header) {
	cookies := h["Set-Cookie"]
	if len(cookies) == 0 {
		return
	}
	if accept.Header == nil {
		accept.Header = make(http.Header, 1)
	}
	accept.Header["Set-Cookie"] = slices.Concat(cookies, accept.Header["Set-Cookie"])
}

// awaitAdmission waits until one more connection may be let in.
func (m *Manager) awaitAdmission(ctx context.Context) error {
	err := m.engine.AwaitAdmission(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrStopped):
		return ErrManagerStopped
	case errors.Is(err, engine.ErrNoDescriptors):
		return ErrTooManyConnections
	}
	return refuse(refusedFull, http.StatusServiceUnavailable, "too many connections at once", err)
}
