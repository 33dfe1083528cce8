package ws

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/qi-realtime/ws/codec"
)

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
		x := c.needLazyLocked()
		x.meta, x.first, x.user = o.meta, o.rooms, strings.Clone(o.user.name)
		c.mu.Unlock()
	}
	return accept, m.register(r.Context(), c)
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

// answer adds to accept what the answer to r says of o, of the subprotocol and
// of the extensions, which c keeps.
func (m *Manager) answer(accept *codec.Accept, c *Client, r *http.Request, o *clientOptions) error {
	if err := codec.CheckAcceptHeader(o.header); err != nil {
		return errInternal(fmt.Errorf("%w: %w", errResponseHeader, err))
	}
	accept.Header = o.header
	if i := codec.ChooseSubprotocol(r.Header, m.cfg.Subprotocols); i >= 0 {
		accept.Subprotocol = m.cfg.Subprotocols[i]
		c.subprotocol = uint8(i + 1)
	}
	if m.cfg.EnableCompression {
		d, extensions, err := codec.NegotiateDeflate(r.Header["Sec-Websocket-Extensions"], m.cfg.Compression.options())
		if err != nil {
			return err
		}
		accept.Extensions = extensions
		c.conn.SetDeflate(d)
	}
	return nil
}

// errResponseHeader is a mistake of the application in WithResponseHeader.
var errResponseHeader = errors.New("ws: WithResponseHeader")

// checkOrigin refuses a request from a page that may not connect.
func (m *Manager) checkOrigin(r *http.Request) error {
	if m.originAllowed(r) {
		return nil
	}
	return refuse(refusedOrigin, http.StatusForbidden, "origin not allowed", nil)
}

// originAllowed applies the configured check to the request's Origin.
func (m *Manager) originAllowed(r *http.Request) bool {
	header := r.Header.Get("Origin")
	switch {
	case m.cfg.AllowAllOrigins:
		return true
	case m.cfg.CheckOrigin != nil:
		return m.cfg.CheckOrigin(r)
	case len(m.cfg.OriginWhitelist) == 0 && header == "":
		return true
	}
	from, ok := parseOrigin(header)
	if !ok {
		return false
	}
	if len(m.cfg.OriginWhitelist) > 0 {
		return slices.ContainsFunc(m.cfg.OriginWhitelist, func(allowed string) bool {
			o, ok := parseOrigin(allowed)
			return ok && o == from
		})
	}
	return (from.scheme == "http" || from.scheme == "https") && from.authority == normalHost(from.scheme, r.Host)
}

// origin is an origin in a form that can be compared: its scheme, and its host and
// port as normalHost returns them. Immutable.
type origin struct{ scheme, authority string }

// parseOrigin parses the serialization of an origin (RFC 6454 section 6.2). "null"
// and URLs with user info, a path or a wildcard are none.
func parseOrigin(s string) (o origin, ok bool) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found || strings.ContainsAny(rest, "/?#@\\* ") {
		return o, false
	}
	o.scheme = lowerASCII(scheme)
	o.authority = normalHost(o.scheme, rest)
	return o, scheme != "" && o.authority != ""
}

// normalHost returns a host with an optional port in lower case, without the dot at
// the host's end and without the default port of the scheme. Only ASCII letters have
// a lower case here: the Kelvin sign is no k.
func normalHost(scheme, authority string) string {
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i+1:]
	}
	host = lowerASCII(strings.TrimSuffix(host, "."))
	if host == "" || port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return host
	}
	return host + ":" + port
}

// lowerASCII returns s with its ASCII letters in lower case.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}
