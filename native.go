package ws

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Serve accepts connections from l on the native path, beside those of
// WithListenAddr: an event loop does the HTTP upgrade, with the same Path and
// Authenticate. It may be called several times at once, each with a listener of its
// own. With WithTLSConfig the clients of l must speak TLS. Serve waits until Run has
// started, and returns nil when Shutdown ends it, ErrManagerStopped if Shutdown, or
// the end of Run, came before it, or an error that names the address of l.
// It always closes l. At Shutdown, connections that nobody has accepted are not
// refused with 503, because the socket may be shared, for example with systemd.
//
// l is a TCP or Unix listener, such as one that net.FileListener makes of a
// descriptor of systemd, or a wrapper. A connection of a wrapper is moved to an event loop by
// its SyscallConn or File method, and then closed. Its Read and Write are never called, so
// the wrapper must neither have read bytes of the client nor change them. If its RemoteAddr
// is a *net.TCPAddr, as with the PROXY protocol, that is the client's address. Accept and
// RemoteAddr run on one goroutine: while they wait for a client, the next clients wait, too.
// A connection with neither method ends Serve with an error, and so does a listener of
// crypto/tls: see WithTLSConfig.
func (m *Manager) Serve(l net.Listener) error {
	if err := m.stopped(); err != nil {
		_ = l.Close()
		return err
	}
	err := m.engine.Serve(l)
	if err == nil || errors.Is(err, ErrManagerStopped) {
		return err
	}
	return fmt.Errorf("ws: serve %s: %w", l.Addr(), err)
}

// Addr returns the address of the native path's listener, nil without WithListenAddr. It
// waits until Run has started listening, or, if Run is never called, until Shutdown.
func (m *Manager) Addr() net.Addr {
	if m.cfg.ListenAddr == "" {
		return nil
	}
	select {
	case <-m.engine.Started():
	case <-m.engine.Stopped():
	}
	return m.engine.Addr()
}

// Screen refuses a request that needs no code of the application for it, so that it does not
// wait for Authenticate of others. offLoop reports whether Admit calls such code.
func (h *engineHandler) Screen(r *http.Request, turnedAway bool) (refused engine.Decision, offLoop bool) {
	m := (*Manager)(h)
	websocket := m.cfg.serviceOf(r) == serveWebSocket
	switch {
	case turnedAway:
		return headAlone(r, m.turnAway(r, websocket)), false
	case !websocket || m.cfg.Authenticate == nil && m.cfg.CheckOrigin == nil:
		return refused, false
	}
	if err := m.screen(r); err != nil {
		return headAlone(r, m.refuseNative(r, err)), false
	}
	return refused, true
}

// turnAway refuses r politely, which TurnAway has counted.
func (m *Manager) turnAway(r *http.Request, websocket bool) engine.Decision {
	if websocket {
		if accept, ok := m.politeAccept(r); ok {
			return engine.Decision{Response: m.politeAnswer(r, accept, refusedAddressRate)}
		}
	}
	return engine.Decision{Response: asHandshakeError(engine.ErrAddressRate).response()}
}

// Admit answers a request on the native path.
func (h *engineHandler) Admit(conn *engine.Conn, r *http.Request) engine.Decision {
	return headAlone(r, h.answer(conn, r))
}

// headAlone removes the body of the answer to a HEAD request (RFC 9110 section 9.3.2).
func headAlone(r *http.Request, d engine.Decision) engine.Decision {
	if r.Method == http.MethodHead {
		const blankLine = "\r\n\r\n"
		d.Response = d.Response[:bytes.Index(d.Response, []byte(blankLine))+len(blankLine)]
	}
	return d
}

// answer returns the answer to r with its body, and makes the client of a request that it
// accepts.
func (h *engineHandler) answer(conn *engine.Conn, r *http.Request) engine.Decision {
	m := (*Manager)(h)
	switch m.cfg.serviceOf(r) {
	case serveNothing:
		return m.refuseNative(r, refuse(refusedPath, http.StatusNotFound, "not found", nil))
	case serveLive:
		return engine.Decision{Response: []byte(healthy)}
	case serveReady:
		return engine.Decision{Response: m.readiness()}
	case serveWebSocket:
	}
	shake, err := m.decide(r, overLoop, nil)
	if err == nil {
		c := ownerOf(conn)
		c.path = m.cfg.pathOf(r)
		err = m.admit(c, r, &shake)
	}
	if err != nil {
		return m.refuseNative(r, err)
	}
	return engine.Decision{
		Response: codec.AppendAccept(nil, r, shake.accept), Accepted: true, Placement: shake.client.place,
	}
}

// refuseNative returns the decision that refuses a request of the native path.
func (m *Manager) refuseNative(r *http.Request, err error) engine.Decision {
	e := asHandshakeError(err)
	if answer := m.politely(r, e); answer != nil {
		return engine.Decision{Response: answer, Refused: e}
	}
	return engine.Decision{Response: e.response(), Refused: e}
}

// OnRefused counts a refusal on the native path and logs it, because no caller reads the
// error.
func (o *engineObserver) OnRefused(conn *engine.Conn, r *http.Request, err error) {
	m, e := (*Manager)(o), asHandshakeError(err)
	m.refusals[e.why].Add(1)
	level := slog.LevelDebug
	if errors.Is(e, errResponseHeader) { // a mistake of the application
		level = slog.LevelError
	}
	if !m.cfg.Logger.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.Int("status", e.Status), slog.String("reason", e.Reason), slog.Any("remote", conn.RemoteAddr()),
	}
	if r != nil {
		attrs = append(attrs, slog.String("host", r.Host), slog.String("origin", r.Header.Get("Origin")))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	m.cfg.Logger.LogAttrs(context.Background(), level, "ws: handshake refused", attrs...)
}

// service is the kind of answer that a path of ListenAddr gives.
type service uint8

const (
	serveNothing service = iota
	serveWebSocket
	serveLive
	serveReady
)

// serviceOf returns the service of the path of r.
func (c *Config) serviceOf(r *http.Request) service {
	path := targetPath(r)
	switch {
	case path == c.LivePath:
		return serveLive
	case path == c.ReadyPath:
		return serveReady
	case r.Method == http.MethodOptions && (path == "/" || path == "*") && c.ReadyPath != "":
		return serveReady // HAProxy's "option httpchk" without arguments
	case slices.ContainsFunc(c.Paths, func(p string) bool { return matchPath(p, path) }):
		return serveWebSocket
	}
	return serveNothing
}

// targetPath returns the path of r: a target like ws://host asks for the root (RFC 9110 section
// 4.2.3).
func targetPath(r *http.Request) string { return cmp.Or(r.URL.Path, "/") }

// matchPath reports whether path is the pattern, or below it if the pattern ends in a
// slash.
func matchPath(pattern, path string) bool {
	return path == pattern || strings.HasSuffix(pattern, "/") && strings.HasPrefix(path, pattern)
}

// healthy is the answer to a successful health check.
const healthy = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Length: 3\r\nConnection: close\r\n\r\nok\n"

// readiness returns the answer to a health check on ReadyPath.
func (m *Manager) readiness() []byte {
	switch {
	case m.stopped() != nil:
		return codec.AppendRefusal(nil, http.StatusServiceUnavailable, "shutting down", nil)
	case m.engine.DrainPhase() != engine.DrainNone:
		return codec.AppendRefusal(nil, http.StatusServiceUnavailable, "draining", nil)
	case m.clients.admitted.Load() >= int64(m.cfg.MaxConnections):
		return codec.AppendRefusal(nil, http.StatusServiceUnavailable, "too many connections", nil)
	}
	return []byte(healthy)
}
