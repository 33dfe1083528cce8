package ws

import (
	"errors"
	"fmt"
	"strings"
)

// ClientError is an error whose code, message and data a handler wants the client
// to read. Of other errors the client reads those of the library, such as
// ErrRoomFull (409), ErrRoomNotFound (404) and ErrChannelFull (503), as their code
// and text; the text of any further error stays in the log. Immutable after New.
type ClientError struct {
	Code    int
	Message string
	Data    any // encoded as JSON; nil sends none

	cause  error // behind it; may be nil
	logged bool  // the cause goes to the log, because Message does not say it
}

// NewClientError returns a ClientError. Codes follow those of HTTP.
func NewClientError(code int, message string) *ClientError {
	return &ClientError{Code: code, Message: message}
}

// WithData returns a copy of e with data, for example the errors of a form's fields.
func (e *ClientError) WithData(data any) *ClientError {
	with := *e
	with.Data = data
	return &with
}

func (e *ClientError) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

func (e *ClientError) Unwrap() error { return e.cause }

// errorCodes are the codes of the library's errors that a handler returns. The first row
// that matches counts.
var errorCodes = []struct {
	err  error
	code int
}{
	{ErrManagerStopped, 503},
	{ErrBroadcastTimeout, 503},
	{ErrChannelFull, 503},
	{ErrRoomNotFound, 404},
	{ErrClientNotFound, 404},
	{ErrHandlerNotFound, 404},
	{ErrRoomExists, 409},
	{ErrRoomFull, 409},
	{ErrAlreadyInRoom, 409},
	{ErrTooManyRooms, 409},
	{ErrConnectionClosed, 410},
	{ErrInvalidRoom, 400},
	{ErrInvalidMessage, 400},
	{ErrInvalidMessageType, 400},
}

// clientErrorOf returns the error that the client reads for a handler's error.
func clientErrorOf(err error) *ClientError {
	if known, ok := errors.AsType[*ClientError](err); ok {
		return known
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			e := NewClientError(row.code, strings.TrimPrefix(row.err.Error(), "ws: "))
			e.cause, e.logged = err, row.code >= 500
			return e
		}
	}
	return &ClientError{Code: 500, Message: "internal error", cause: err, logged: true}
}
