package ws

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// RefusalCounts is the numbers of upgrade requests that were refused, those of
// ListenAddr and of HandleUpgrade together, by reason.
type RefusalCounts struct {
	Malformed uint64 // no handshake of RFC 6455: 400, 405, 414, 426, 431, 505
	Path      uint64 // not one of Config.Paths: 404
	Origin    uint64 // a page of an origin that may not connect: 403
	Auth      uint64 // Authenticate returned an error: 401, or its own status
	Full      uint64 // MaxConnections, no descriptors, or no turn in time under WithAdmission: 503
	ClientID  uint64 // WithClientID is taken: 409
	Timeout   uint64 // HandshakeTimeout, also of a connection that sent nothing: 408
	Stopped   uint64 // Run had not begun in time, or Shutdown had: 503
	Failed    uint64 // a fault of the application or of the server, or the network ended the connection: 500
}

// Total is the sum of all reasons.
func (c *RefusalCounts) Total() uint64 {
	return c.Malformed + c.Path + c.Origin + c.Auth + c.Full + c.ClientID + c.Timeout + c.Stopped + c.Failed
}

// refusalReason says why an upgrade request was refused.
type refusalReason uint8

const (
	refusedAuth refusalReason = iota // a HandshakeError of the application
	refusedMalformed
	refusedPath
	refusedOrigin
	refusedFull
	refusedClientID
	refusedTimeout
	refusedStopped
	refusedFailed
	numRefusalReasons
)

// refusals counts refused upgrade requests by reason. Safe for concurrent use.
type refusals [numRefusalReasons]atomic.Uint64

func (n *refusals) counts() RefusalCounts {
	return RefusalCounts{
		Malformed: n[refusedMalformed].Load(), Path: n[refusedPath].Load(), Origin: n[refusedOrigin].Load(),
		Auth: n[refusedAuth].Load(), Full: n[refusedFull].Load(), ClientID: n[refusedClientID].Load(),
		Timeout: n[refusedTimeout].Load(), Stopped: n[refusedStopped].Load(), Failed: n[refusedFailed].Load(),
	}
}

// refuse returns the error of a refused upgrade request.
func refuse(why refusalReason, status int, reason string, err error) *HandshakeError {
	return &HandshakeError{Status: status, Reason: reason, Err: err, why: why}
}

// errInternal refuses a request for a fault of ours or of the application's, of which the
// client reads nothing.
func errInternal(err error) *HandshakeError {
	return refuse(refusedFailed, http.StatusInternalServerError, "internal error", err)
}

// refuseNative returns the decision that refuses a request of the native path.
func refuseNative(err error) engine.Decision {
	e := asHandshakeError(err)
	return engine.Decision{Response: codec.AppendRefusal(nil, e.Status, e.Reason, e.Header), Refused: e}
}

// OnRefused counts a refusal on the native path and logs it, because no caller reads the
// error.
func (h *engineHandler) OnRefused(conn *engine.Conn, r *http.Request, err error) {
	m, e := (*Manager)(h), asHandshakeError(err)
	m.refusals[e.why].Add(1)
	level := slog.LevelDebug
	if errors.Is(e, errResponseHeader) { // a mistake of the application's
		level = slog.LevelError
	}
	if !m.cfg.Logger.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{slog.Int("status", e.Status), slog.String("reason", e.Reason), slog.Any("remote", conn.RemoteAddr())}
	if r != nil {
		attrs = append(attrs, slog.String("host", r.Host), slog.String("origin", r.Header.Get("Origin")))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	m.cfg.Logger.LogAttrs(context.Background(), level, "ws: handshake refused", attrs...)
}
