package ws

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// The opening handshake (RFC 6455 section 4.2), on both paths: decide makes a handshake of a
// request and the configuration, or refuses it; admit gives it to the client and registers
// the client. Then native.go or upgrade.go writes the answer.

// handshake is the decision to accept a request: the answer, and the properties of the
// client. Immutable.
type handshake struct {
	accept      codec.Accept
	subprotocol uint8         // of the answer: its index in Config.Subprotocols + 1, or 0
	deflate     codec.Deflate // of the answer; the zero value without compression
	client      clientOptions
	began       time.Time // start of HandleUpgrade; zero on the native path
}

// requestPath is the way of an upgrade request.
type requestPath uint8

const (
	overLoop requestPath = iota // parsed by an event loop; a worker decides if code of the application takes part
	overHTTP                    // parsed by net/http, whose goroutine waits for the decision
)

// decide checks r in the order of the costs of the checks, and refuses it at the first that
// fails. opts are the options of HandleUpgrade.
func (m *Manager) decide(r *http.Request, from requestPath, opts []ClientOption) (h handshake, err error) {
	if err := m.screen(r); err != nil {
		return h, err
	}
	if err := m.callCheckOrigin(r, from); err != nil {
		return h, err
	}
	if from == overHTTP {
		if err := m.awaitAdmission(r.Context()); err != nil {
			return h, err
		}
	}
	if len(opts) == 0 && m.cfg.Authenticate == nil {
		return m.cfg.negotiate(r, clientOptions{})
	}
	o, err := m.authenticate(r, from, opts)
	if err != nil {
		return h, err
	}
	return m.cfg.negotiate(r, o)
}

// screen makes the checks of r that need no code of the application. If r passes, it
// allocates nothing.
func (m *Manager) screen(r *http.Request) error {
	if err := m.refusing(); err != nil {
		return err
	}
	if err := codec.CheckUpgrade(r); err != nil {
		return asHandshakeError(err)
	}
	if m.cfg.CheckOrigin == nil {
		if err := m.cfg.checkOrigin(r); err != nil {
			return err
		}
	}
	return m.checkSpace()
}

// admit makes c the client of h and registers it. It may wait; see register.
func (m *Manager) admit(c *Client, r *http.Request, h *handshake) error {
	if err := m.refusing(); err != nil { // the Grace of Drain may have ended during Authenticate
		return err
	}
	o := &h.client
	c.ID, c.UserID = strings.Clone(o.id), o.user.id // not a part of the request's head
	if c.ID == "" {
		c.ID = newClientID()
	}
	c.subprotocol, c.traits = h.subprotocol, o.traits
	c.conn.SetDeflate(h.deflate)
	if o.meta != nil || o.rooms != nil || o.user.name != "" {
		c.mu.Lock()
		x := c.needLazyLocked()
		x.meta, x.first, x.user = o.meta, o.rooms, strings.Clone(o.user.name)
		c.mu.Unlock()
	}
	return m.register(r.Context(), c)
}

// checkSpace refuses one more client at a bound, before Authenticate, which may be costly.
func (m *Manager) checkSpace() error {
	if m.clients.admitted.Load() >= int64(m.cfg.MaxConnections) && m.cfg.DuplicateID != ReplaceOld {
		return ErrTooManyConnections
	}
	if m.EventBus.isBehind() {
		m.cfg.Logger.Warn("ws: the subscribers of events are too slow, connection refused")
		return ErrTooManyConnections
	}
	return nil
}

// authenticate applies opts, then the options that Authenticate returns for r.
func (m *Manager) authenticate(r *http.Request, from requestPath, opts []ClientOption) (o clientOptions, err error) {
	for _, opt := range opts {
		opt(&o)
	}
	if m.cfg.Authenticate == nil {
		return o, nil
	}
	var more []ClientOption
	err = m.guarded(r, from, func() (err error) {
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
	return o, nil
}

// authError refuses a request because of the error that Authenticate returned. The client
// reads the text of a HandshakeError only.
func authError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*HandshakeError](err); ok {
		return err
	}
	return refuse(refusedAuth, http.StatusUnauthorized, "unauthorized", err)
}

// errResponseHeader is a mistake of the application in WithResponseHeader.
var errResponseHeader = errors.New("ws: WithResponseHeader")

// negotiate chooses the answer to r: the subprotocol, the extensions, and the header of o.
func (c *Config) negotiate(r *http.Request, o clientOptions) (h handshake, err error) {
	if err := codec.CheckAcceptHeader(o.header); err != nil {
		return h, errInternal(fmt.Errorf("%w: %w", errResponseHeader, err))
	}
	h.client, h.accept.Header = o, o.header
	if i := codec.ChooseSubprotocol(r.Header, c.Subprotocols); i >= 0 {
		h.accept.Subprotocol = c.Subprotocols[i]
		h.subprotocol = uint8(i + 1)
	}
	if c.EnableCompression {
		offers := r.Header["Sec-Websocket-Extensions"]
		h.deflate, h.accept.Extensions, err = codec.NegotiateDeflate(offers, c.Compression.options())
	}
	return h, err
}

// callCheckOrigin refuses a request from a page that CheckOrigin does not allow.
func (m *Manager) callCheckOrigin(r *http.Request, from requestPath) error {
	if m.cfg.CheckOrigin == nil {
		return nil
	}
	return m.guarded(r, from, func() error { return m.cfg.checkOrigin(r) })
}

// checkOrigin refuses a request whose origin c does not allow.
func (c *Config) checkOrigin(r *http.Request) error {
	if c.allowsOrigin(r) {
		return nil
	}
	return refuse(refusedOrigin, http.StatusForbidden, "origin not allowed", nil)
}

// allowsOrigin applies the configured check to the request's Origin.
func (c *Config) allowsOrigin(r *http.Request) bool {
	header := r.Header.Get("Origin")
	switch {
	case c.AllowAllOrigins:
		return true
	case c.CheckOrigin != nil:
		return c.CheckOrigin(r)
	case len(c.OriginWhitelist) == 0 && header == "":
		return true
	}
	from, ok := parseOrigin(header)
	if !ok {
		return false
	}
	if len(c.OriginWhitelist) > 0 {
		return slices.ContainsFunc(c.OriginWhitelist, func(allowed string) bool {
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

// refusalReason is the reason for a refused upgrade request. The zero value is
// refusedAuth, of a HandshakeError that the application has made.
type refusalReason uint8

// refusals counts refused upgrade requests by reason. Safe for concurrent use.
type refusals [numRefusalReasons]atomic.Uint64

// refuse returns the error of a refused upgrade request. A refusal for want of capacity
// says when the client may come back.
func refuse(why refusalReason, status int, reason string, err error) *HandshakeError {
	e := &HandshakeError{Status: status, Reason: reason, Err: err, why: why}
	if why.forCapacity() {
		seconds := engine.RetryAfter(why == refusedStopped) / time.Second
		e.Header = http.Header{"Retry-After": {strconv.Itoa(int(seconds))}}
	}
	return e
}

// response returns the answer of the native path.
func (e *HandshakeError) response() []byte {
	return codec.AppendRefusal(nil, e.Status, e.Reason, e.Header)
}

// errInternal refuses a request because of a fault of the library or the application. The
// client does not read its text.
func errInternal(err error) *HandshakeError {
	return refuse(refusedFailed, http.StatusInternalServerError, "internal error", err)
}

// asHandshakeError returns the answer to a request that is refused because of err.
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
	case errors.Is(err, engine.ErrAddressRate), errors.Is(err, engine.ErrAddressFull):
		return refuse(addressReason(err), http.StatusTooManyRequests, engine.ErrAddressRate.Reason, err)
	case errors.As(err, &bad) && bad.Status == http.StatusServiceUnavailable:
		return refuse(refusedStopped, bad.Status, bad.Reason, err)
	case errors.As(err, &bad):
		h := refuse(refusedMalformed, bad.Status, bad.Reason, err)
		if bad == engine.ErrProxyHeader {
			h.why = refusedProxy
		}
		switch bad.Status {
		case http.StatusUpgradeRequired:
			h.Header = http.Header{
				"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			}
		case http.StatusMethodNotAllowed:
			h.Header = http.Header{"Allow": {http.MethodGet}}
		case http.StatusRequestTimeout:
			h.why = refusedTimeout
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
