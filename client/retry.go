package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/qi-realtime/ws/codec"
)

const (
	backoffBase = 500 * time.Millisecond
	backoffMax  = 30 * time.Second
	// stableTime is the age from which on a connection resets the backoff.
	stableTime = 10 * time.Second
	// busyMin and busyMax bound the wait after 1013 without retry_ms.
	busyMin, busyMax = 5 * time.Second, 30 * time.Second
	// closeTakenOver closes the older of two connections with the same client ID.
	closeTakenOver = 4409
	// closeUnauthorized asks for new credentials.
	closeUnauthorized = 4401
)

// decision is the client's reaction to the end of a connection or attempt. Immutable.
type decision struct {
	stop    bool          // for good
	refresh bool          // ask for new credentials first
	after   time.Duration // until the next attempt
}

// decide returns the reaction to err, after a number of earlier failures in a row. random is in
// [0, 1].
func decide(err error, failures int, random float64) decision {
	backoff := fullJitter(failures, random)
	if refused, ok := errors.AsType[*HandshakeError](err); ok {
		return decision{
			stop:    refused.Status == http.StatusForbidden,
			refresh: refused.Status == http.StatusUnauthorized,
			after:   refused.RetryAfter + backoff,
		}
	}
	closed, ok := errors.AsType[*CloseError](err)
	if !ok {
		return decision{after: backoff}
	}
	d := decision{stop: stops(closed.Code), refresh: closed.Code == closeUnauthorized, after: backoff}
	if retry, ok := retryIn(closed.Reason); ok {
		d.after = retry
	} else if closed.Code == int(codec.CloseTryAgainLater) {
		d.after = busyMin + time.Duration(random*float64(busyMax-busyMin))
	}
	return d
}

// fullJitter returns a random part of the backoff, which doubles with each failure.
func fullJitter(failures int, random float64) time.Duration {
	backoff := min(backoffMax, backoffBase<<min(failures, 16))
	return time.Duration(random * float64(backoff))
}

// stops reports whether a close code ends the client for good.
func stops(code int) bool {
	switch codec.CloseCode(code) {
	case codec.CloseNormal, codec.CloseProtocolError, codec.CloseUnsupportedData, codec.CloseInvalidPayload,
		codec.ClosePolicyViolation, codec.CloseMessageTooBig, codec.CloseMandatoryExtension, closeTakenOver:
		return true
	default:
		return code >= 4500 && code <= 4999
	}
}

// maxRetry bounds retry_ms.
const maxRetry = 24 * time.Hour

// retryIn returns the time of a close reason such as {"retry_ms":1840}.
func retryIn(reason string) (time.Duration, bool) {
	var r struct {
		RetryMS *int64 `json:"retry_ms"`
	}
	if json.Unmarshal([]byte(reason), &r) != nil || r.RetryMS == nil {
		return 0, false
	}
	return retryTime(*r.RetryMS), true
}

func retryTime(ms int64) time.Duration {
	return time.Duration(min(max(ms, 0), maxRetry.Milliseconds())) * time.Millisecond
}
