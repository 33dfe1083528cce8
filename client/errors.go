package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

var (
	// ErrClosed means that the client is closed and the request was not sent. It is also the reason of
	// a client that was closed with Close. errors.Is(err, net.ErrClosed) holds.
	ErrClosed error = closedError("client: closed")
	// ErrConnectionLost means that the connection was lost after the request was sent: nobody
	// knows whether it ran. Requests with [Idempotent] are repeated instead. It is also the
	// error of a notification while there is no connection. errors.Is(err, net.ErrClosed) holds.
	ErrConnectionLost error = closedError("client: connection lost")
	// ErrQueueFull means that as many requests as WithQueueSize permits wait for a connection.
	ErrQueueFull = errors.New("client: queue full")
	// ErrAlreadyJoined means that the room is joined already.
	ErrAlreadyJoined = errors.New("client: already in the room")
)

// closedError is the error of a closed connection or client.
type closedError string

func (e closedError) Error() string        { return string(e) }
func (e closedError) Is(target error) bool { return target == net.ErrClosed }

// ServerError is the server's answer to a request that failed. Immutable.
type ServerError struct {
	Code    int             // such as 404 for an unknown event
	Message string          // for people
	Data    json.RawMessage // nil without
	TraceID string          // identifies the request in the server's log
}

// Error returns the code and the message.
func (e *ServerError) Error() string {
	return "client: the server answers " + strconv.Itoa(e.Code) + " " + e.Message
}

// CloseError is the end of a connection. Code is the close code of the server, 1005 for a close
// frame without one, 1006 for a connection that ended without a close frame, or the code with
// which the client has refused a frame. errors.Is(err, net.ErrClosed) holds. Immutable.
type CloseError struct {
	Code   int
	Reason string
	Err    error // the cause of 1006 or of a refused frame, else nil
}

// Error returns the code, the reason and the cause.
func (e *CloseError) Error() string {
	s := "client: connection closed with " + strconv.Itoa(e.Code)
	if e.Reason != "" {
		s += " " + strconv.Quote(e.Reason)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *CloseError) Unwrap() error { return e.Err }

// Is reports whether target is net.ErrClosed.
func (e *CloseError) Is(target error) bool { return target == net.ErrClosed }

// HandshakeError is a refusal of the opening handshake. Immutable.
type HandshakeError struct {
	Status     int
	Message    string        // the body of the response, at most 1 KiB
	RetryAfter time.Duration // of the header Retry-After; 0 without
}

// Error returns the status and the message.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("client: the server refuses the handshake with %d %s: %s",
		e.Status, http.StatusText(e.Status), e.Message)
}
