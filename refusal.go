package ws

import (
	"net/http"
	"sync/atomic"
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
