package ws

import (
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/qi-realtime/ws/codec"
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
