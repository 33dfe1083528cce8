package ws

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/pool"
)

// SendResponse answers a request. data is encoded as JSON; nil sends none. The first answer to
// an idempotent request is kept for repeats, also if it returns an error; see WithIdempotency.
func (c *Client) SendResponse(requestID string, code int, message string, data any) error {
	r := envelope.Reply{Type: TypeResponse, RequestID: requestID, Code: code, Message: message, TraceID: newTraceID()}
	if data != nil {
		raw, e, err := c.manager.cfg.encodeJSON(data)
		defer e.release()
		if err != nil {
			return fmt.Errorf("ws: encode response: %w", err)
		}
		r.Data = raw
	}
	return c.sendReply(&r)
}

// SendError is SendResponse with an error.
func (c *Client) SendError(requestID string, code int, message string) error {
	return c.sendReply(&envelope.Reply{
		Type: TypeError, RequestID: requestID, Code: code, Message: message, TraceID: newTraceID(),
	})
}

// success returns the answer to a request that has succeeded, without data.
func success(requestID string, trace envelope.TraceID) envelope.Reply {
	return envelope.Reply{Type: TypeResponse, RequestID: requestID, Code: 200, Message: "success", TraceID: trace}
}

func (c *Client) sendReply(r *envelope.Reply) error {
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	buf.B = r.Append(buf.B[:0])
	if replies := c.manager.replies; replies != nil && replies.Unanswered() {
		c.keepLate(r.RequestID, buf.B)
	}
	return c.sent(c.conn.SendReply(codec.OpText, buf.B))
}

// answer sends r, the one answer to a message of the client: no bound and no policy drops it.
// once is the idempotent request that it answers, or nil.
func (c *Client) answer(once *onceRequest, r *envelope.Reply) {
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	buf.B = r.Append(buf.B[:0])
	if once != nil {
		c.keep(once, buf.B)
	}
	c.deliverAnswer(buf.B)
}

// deliverAnswer sends an encoded answer. It fails only for a client that is closing.
func (c *Client) deliverAnswer(reply []byte) { _ = c.sent(c.conn.SendAnswer(codec.OpText, reply)) }

// answerInvalid answers a message that reaches no handler with an error.
func (c *Client) answerInvalid(requestID string, code int, message string) {
	c.answer(nil, &envelope.Reply{
		Type: TypeError, RequestID: requestID, Code: code, Message: message, TraceID: newTraceID(),
	})
}

// newTraceID returns a number that ties a reply to the log lines about its
// request. It is no secret.
func newTraceID() envelope.TraceID { return envelope.TraceID{Low: rand.Uint64()} }

// ClientError is an error for the client, which reads its code, message and data. The client
// also reads the code and text of the library's errors, such as ErrRoomFull (409),
// ErrRoomNotFound (404) and ErrChannelFull (503). The text of any other error stays in the
// log. Immutable after New.
type ClientError struct {
	Code    int
	Message string
	Data    any // encoded as JSON; nil sends none

	cause  error // behind it; may be nil
	logged bool  // the cause goes to the log, because Message lacks it
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

// errorCodes lists the codes of the library's errors. The first row that matches counts.
var errorCodes = []struct {
	err  error
	code int
}{
	{ErrManagerStopped, 503},
	{ErrBroadcastTimeout, 503},
	{ErrBrokerUnavailable, 503},
	{ErrChannelFull, 503},
	{ErrForbidden, 403},
	{ErrRoomNotFound, 404},
	{ErrClientNotFound, 404},
	{ErrHandlerNotFound, 404},
	{ErrRoomExists, 409},
	{ErrRoomFull, 409},
	{ErrAlreadyInRoom, 409},
	{ErrPositionLost, 409},
	{ErrTooManyRooms, 409},
	{ErrConnectionClosed, 410},
	{ErrTooManyDevices, 429},
	{ErrInvalidRoom, 400},
	{ErrInvalidDevice, 400},
	{ErrInvalidAck, 400},
	{ErrNoInbox, 400},
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

// answerError answers msg with the part of a handler's error that the client may read, and
// logs the rest.
func (c *Client) answerError(msg *Message, err error) {
	known := clientErrorOf(err)
	r := envelope.Reply{
		Type: TypeError, RequestID: msg.RequestID, Code: known.Code, Message: known.Message, TraceID: msg.traceID(),
	}
	if known.logged {
		c.logCause(msg, known)
	}
	if known.logged && known.Code >= 500 {
		c.manager.reportError(c, err)
	}
	if known.Data != nil {
		var e *jsonEncoder
		r.Data, e, err = c.manager.cfg.encodeJSON(known.Data)
		defer e.release()
		if err != nil {
			c.manager.cfg.Logger.Error("ws: data of an error cannot be encoded", slog.String("event", msg.Event),
				slog.String("client", c.ID), slog.String("trace_id", msg.TraceID()), slog.Any("error", err))
		}
	}
	if msg.Type != TypeRaw || c.manager.raw.Load() == nil {
		c.answer(msg.once, &r)
	}
}

// logCause logs the cause of the error with which msg is answered.
func (c *Client) logCause(msg *Message, e *ClientError) {
	logger := c.manager.cfg.Logger
	attrs := []any{
		slog.String("event", msg.Event), slog.String("client", c.ID),
		slog.String("trace_id", msg.TraceID()), slog.Any("error", e.cause),
	}
	if e.Code < 500 {
		logger.Info("ws: request refused", attrs...)
		return
	}
	logger.Error("ws: handler failed", attrs...)
}

// maxErrorText bounds the part of an answer's text that the client has chosen, in bytes.
const maxErrorText = 256

// shortened returns text, or its beginning if it is longer than maxErrorText.
func shortened(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	return strings.ToValidUTF8(text[:maxErrorText], "") + "..."
}
