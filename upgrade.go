package ws

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/qi-realtime/ws/codec"
)

// HandleUpgrade answers the upgrade request r and hands its connection to an
// event loop; no goroutine stays behind. It waits until Run has started. If it
// refuses, it has written the HTTP error and returns why: ErrTooManyConnections
// (503; also while the process has no descriptors to spare), ErrClientIDExists (409), ErrManagerStopped (503), or a *HandshakeError;
// any other error is the network's.
//
// OnConnect may still run when it returns nil: the client is answered after that.
//
// With WithAdmission it waits for its turn, within HandshakeTimeout; if that ends
// first, it refuses with a *HandshakeError of status 503.
//
// opts are the options of the client; those that Authenticate returns are
// applied after them. Of the lines of w.Header() only Set-Cookie is in the answer
// that accepts, see WithResponseHeader; a refusal has all of it.
//
// The http.Server bounds the request's size and the time that a client takes to send
// it: set its ReadHeaderTimeout. Its parser joins folded lines, ends a line at a lone LF and
// merges equal Content-Lengths of 0, which ListenAddr refuses; after it there is
// nothing left to see of them. The
// connection must be TCP or a Unix socket, plain or with the TLS of net/http,
// over which the client must speak HTTP/1.1: a WebSocket over HTTP/2 is refused
// with 505. w must be an http.Hijacker, or have an Unwrap method that leads to one
// (see http.ResponseController): http.TimeoutHandler and some middleware give no such
// writer (500), and the adaptors of fasthttp and fiber wrap the connection (501); the
// error names the type and the remedy.
func (m *Manager) HandleUpgrade(w http.ResponseWriter, r *http.Request, opts ...ClientOption) error {
	err := m.upgrade(w, r, opts)
	if err != nil {
		m.refusals[asHandshakeError(err).why].Add(1)
	}
	return err
}

// upgrade is HandleUpgrade without the count of refusals.
func (m *Manager) upgrade(w http.ResponseWriter, r *http.Request, opts []ClientOption) error {
	ctx, cancel := context.WithTimeout(r.Context(), m.cfg.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)() // Shutdown
	c := m.newClient()
	var accept codec.Accept
	err := m.awaitRun(ctx)
	if err == nil {
		err = checkHead(r)
	}
	if err == nil {
		accept, err = m.admit(c, r.WithContext(ctx), opts, overHTTP)
	}
	if err != nil {
		h := asHandshakeError(err)
		maps.Copy(w.Header(), h.Header)
		http.Error(w, h.Reason, h.Status)
		return err
	}
	if err := m.hijack(ctx, c, w, r, accept); err != nil {
		if !c.conn.Opened() {
			m.clients.abandon(c)
		}
		return err
	}
	return nil
}

// checkHead refuses the requests that the native path refuses.
func checkHead(r *http.Request) error {
	if err := codec.CheckHead(r); err != nil {
		return asHandshakeError(err)
	}
	return nil
}

// awaitRun waits until the event loops run.
func (m *Manager) awaitRun(ctx context.Context) error {
	if m.isStopping() {
		return ErrManagerStopped
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

// newClient returns a client that is not connected yet.
func (m *Manager) newClient() *Client {
	if m.limits != nil {
		l := &limitedClient{clientOwner: clientOwner{manager: m}}
		l.conn.Init(l)
		return l.client()
	}
	c := &Client{manager: m}
	c.conn.Init((*clientOwner)(c))
	return c
}

// requestPath is the way of an upgrade request.
type requestPath uint8

const (
	overLoop requestPath = iota // an event loop has parsed it, and a worker decides on it if user code takes part
	overHTTP                    // net/http has parsed it, and its goroutine waits for the decision
)

// admit decides on an upgrade request, registers the client, and returns what
// the answer says.
func (m *Manager) admit(
	c *Client, r *http.Request, opts []ClientOption, from requestPath,
) (accept codec.Accept, err error) {
	if m.isStopping() {
		return accept, ErrManagerStopped
	}
	if err := codec.CheckUpgrade(r); err != nil {
		return accept, asHandshakeError(err)
	}
	if err := m.guarded(r, from, m.cfg.CheckOrigin != nil, func() error { return m.checkOrigin(r) }); err != nil {
		return accept, err
	}
	if m.clients.admitted.Load() >= int64(m.cfg.MaxConnections) && m.cfg.DuplicateID != ReplaceOld {
		return accept, ErrTooManyConnections // before Authenticate, which may be costly
	}
	if m.EventBus.isBehind() {
		m.cfg.Logger.Warn("ws: the subscribers of events are too slow, connection refused")
		return accept, ErrTooManyConnections
	}
	if from == overHTTP {
		if err := m.awaitAdmission(r.Context()); err != nil {
			return accept, err
		}
	}
	o, err := m.clientOptions(r, from, opts)
	if err != nil {
		return accept, err
	}
	if err = m.answer(&accept, c, r, &o); err != nil {
		return accept, err
	}
	c.ID, c.UserID = strings.Clone(o.id), o.user.id // not a part of the request's head
	if c.ID == "" {
		c.ID = newClientID()
	}
	if o.meta != nil || o.rooms != nil || o.user.name != "" {
		c.mu.Lock()
		x := c.needExtraLocked()
		x.meta, x.first, x.user = o.meta, o.rooms, strings.Clone(o.user.name)
		c.mu.Unlock()
	}
	return accept, m.register(r.Context(), c)
}

// newClientID returns 132 random bits in the 22 letters that fit into 24 bytes,
// which is what the allocator gives.
func newClientID() string {
	var b [17]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])[:22]
}

// clientOptions applies opts, and those that Authenticate returns for r.
func (m *Manager) clientOptions(r *http.Request, from requestPath, opts []ClientOption) (o clientOptions, err error) {
	for _, opt := range opts {
		opt(&o)
	}
	if m.cfg.Authenticate != nil {
		var more []ClientOption
		err := m.guarded(r, from, true, func() (err error) {
			more, err = m.cfg.Authenticate(r)
			return authError(err)
		})
		if late := r.Context().Err(); late != nil && (err == nil || errors.Is(err, late)) {
			return o, m.lateError(late)
		}
		if err != nil {
			return o, err
		}
		for _, opt := range more {
			opt(&o)
		}
	}
	return o, nil
}

// authError makes a refusal of the error that Authenticate returned. The client reads the
// text of a HandshakeError only.
func authError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*HandshakeError](err); ok {
		return err
	}
	return refuse(refusedAuth, http.StatusUnauthorized, "unauthorized", err)
}

// lateError refuses a request because its context has ended.
func (m *Manager) lateError(err error) error {
	if m.isStopping() {
		return ErrManagerStopped
	}
	return refuse(refusedTimeout, http.StatusRequestTimeout, "handshake timeout", err)
}

// guarded calls fn, which decides on r, and runs user code if foreign is set: on a
// worker then, as a request over the loop is already, and no longer than r's
// context. A panic is logged and refuses with 500, and so does the end of the
// goroutine.
func (m *Manager) guarded(r *http.Request, from requestPath, foreign bool, fn func() error) error {
	if from == overLoop || !foreign {
		return m.recovered(fn)
	}
	var result error = errInternal(errors.New("ws: the goroutine ended"))
	err := m.auth.do(r.Context(), func() { result = m.recovered(fn) })
	switch {
	case err == nil:
		return result
	case errors.Is(err, ErrManagerStopped):
		return err
	}
	return m.lateError(err)
}

// recovered calls fn; a panic is logged and refuses with 500.
func (m *Manager) recovered(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			m.reportPanic(r)
			err = errInternal(fmt.Errorf("ws: panic: %v", r))
		}
	}()
	return fn()
}

// asHandshakeError says how an error of admit is answered.
func asHandshakeError(err error) *HandshakeError {
	var h *HandshakeError
	var bad *codec.RequestError
	switch {
	case errors.As(err, &h):
		if h.Status < 300 || h.Status > 599 {
			return &HandshakeError{
				Status: http.StatusInternalServerError, Reason: h.Reason, Header: h.Header, why: refusedFailed,
			}
		}
		return h
	case errors.As(err, &bad):
		h := refuse(refusedMalformed, bad.Status, bad.Reason, err)
		switch bad.Status {
		case http.StatusUpgradeRequired:
			h.Header = http.Header{
				"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			}
		case http.StatusMethodNotAllowed:
			h.Header = http.Header{"Allow": {http.MethodGet}}
		case http.StatusRequestTimeout:
			h.why = refusedTimeout
		case http.StatusServiceUnavailable:
			h.why = refusedStopped
		}
		return h
	case errors.Is(err, ErrTooManyConnections):
		return refuse(refusedFull, http.StatusServiceUnavailable, "too many connections", nil)
	case errors.Is(err, ErrClientIDExists):
		return refuse(refusedClientID, http.StatusConflict, "client ID exists", nil)
	case errors.Is(err, ErrManagerStopped):
		return refuse(refusedStopped, http.StatusServiceUnavailable, "server is not running", nil)
	}
	return errInternal(err)
}
