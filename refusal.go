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

// refusalReason is the reason for a refused upgrade request. The zero value is
// refusedAuth, of a HandshakeError that the application has made.
type refusalReason uint8

// refusals counts refused upgrade requests by reason. Safe for concurrent use.
type refusals [numRefusalReasons]atomic.Uint64

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
