package ws

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/qi-realtime/ws/internal/envelope"
)

// The types of a message.
const (
	TypeRequest  = "request"  // from a client; is answered
	TypeResponse = "response" // answers a request
	TypeError    = "error"    // answers a request that failed
	TypeNotify   = "notify"   // from the server, or from a client that wants no answer
	TypeRaw      = "raw"      // for middleware: a message without the envelope, of HandleRaw or HandleBinary
)

// Message is the envelope of a request or notification. Encode it with
// encoding/json or send it with Client.SendJSON. A client's message has a request_id of at
// most 256 bytes, and its values nest at most 128 deep: otherwise the client reads an error
// with code 400, which does not repeat a longer request_id. Without a type it is a request.
// Not safe for concurrent use.
type Message struct {
	Type      string          `json:"type"`
	Event     string          `json:"event,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Timestamp int64           `json:"timestamp"` // Unix seconds

	op        Opcode                         // of TypeRaw
	once      *onceRequest                   // of an idempotent request, otherwise nil
	trace     envelope.TraceID               // zero until it is used
	parent    []byte                         // JSON text of traceparent, borrowed
	unmarshal func(data []byte, v any) error // Config.JSONUnmarshal
}

// TraceID returns the trace_id of the library's answer to the message, to tie a handler's
// log lines to it.
func (m *Message) TraceID() string { return string(m.traceID().Append(nil)) }

// SetTraceID sets the trace_id of the library's answer to the message: 32 hexadecimal digits
// in place of 16 random ones. A middleware calls it with the ID of its trace.
func (m *Message) SetTraceID(id [16]byte) {
	m.trace = envelope.TraceID{
		High: binary.BigEndian.Uint64(id[:8]), Low: binary.BigEndian.Uint64(id[8:]), Long: true,
	}
}

// TraceParent returns the optional field traceparent of a client's message (W3C Trace
// Context), as the client has sent it: believe it as far as you believe the client. It is empty
// without the field, and for a value that is no string or needs decoding. It allocates.
func (m *Message) TraceParent() string {
	raw := m.parent
	if len(raw) < 2 || len(raw) > maxTraceParent || raw[0] != '"' || bytes.IndexByte(raw, '\\') >= 0 {
		return ""
	}
	return string(raw[1 : len(raw)-1])
}

// maxTraceParent is the greatest length of a traceparent with its quotes. Version 00 has 55
// bytes; later versions may have more.
const maxTraceParent = 256

// traceID draws the trace ID at its first use.
func (m *Message) traceID() envelope.TraceID {
	for m.trace == (envelope.TraceID{}) {
		m.trace = newTraceID()
	}
	return m.trace
}

// Response is the envelope that answers a request.
type Response struct {
	Type      string          `json:"type"`
	RequestID string          `json:"request_id,omitempty"`
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data,omitempty"`
	TraceID   string          `json:"trace_id,omitempty"`
	Timestamp int64           `json:"timestamp"`
}

// ErrorResponse is the envelope that answers a request which failed.
type ErrorResponse struct {
	Type      string          `json:"type"`
	RequestID string          `json:"request_id,omitempty"`
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data,omitempty"`
	TraceID   string          `json:"trace_id,omitempty"`
	Timestamp int64           `json:"timestamp"`
}

// messagePool holds the Messages for handlers, and released Messages of NewMessage.
var messagePool = sync.Pool{New: func() any { return new(Message) }}

// NewMessage returns a request for event with data encoded as JSON, taken from
// a pool: call Release when it is sent. It returns data's encoding error.
func NewMessage(event string, data any) (*Message, error) {
	return fill(messagePool.Get().(*Message), TypeRequest, event, data)
}

// NewNotifyMessage is NewMessage for a notification.
func NewNotifyMessage(event string, data any) (*Message, error) {
	return fill(messagePool.Get().(*Message), TypeNotify, event, data)
}

// NewMessageSimple is NewMessage without the pool: the collector frees it.
func NewMessageSimple(event string, data any) (*Message, error) {
	return fill(new(Message), TypeRequest, event, data)
}

// NewNotifyMessageSimple is NewNotifyMessage without the pool.
func NewNotifyMessageSimple(event string, data any) (*Message, error) {
	return fill(new(Message), TypeNotify, event, data)
}

func fill(m *Message, typ, event string, data any) (*Message, error) {
	*m = Message{Type: typ, Event: event, Timestamp: time.Now().Unix()}
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			return nil, fmt.Errorf("ws: encode data of %q: %w", event, err)
		}
		m.Data = raw
	}
	return m, nil
}

// Release gives m back to the pool. m must not be used afterwards, nor be
// released twice. Messages that a handler receives are the library's to
// release.
func (m *Message) Release() {
	*m = Message{}
	messagePool.Put(m)
}

// clone returns a copy that owns its data.
func (m *Message) clone() *Message {
	_ = m.traceID() // the same in both
	c := *m
	c.once = nil
	c.Data = append(json.RawMessage(nil), m.Data...)
	c.parent = bytes.Clone(m.parent)
	return &c
}

// Unmarshal decodes the message's data into v. A message without data leaves v
// as it is. The error is a *ClientError: a handler that returns it answers with code
// 400 and the name of the field.
func (m *Message) Unmarshal(v any) error {
	if len(m.Data) == 0 {
		return nil
	}
	if err := m.decodeJSON(v); err != nil {
		return fmt.Errorf("ws: decode data of %q: %w", m.Event, dataError(err))
	}
	return nil
}

// decodeJSON decodes the message's data, which is not empty, into v.
func (m *Message) decodeJSON(v any) error {
	if m.unmarshal != nil {
		return m.unmarshal(m.Data, v)
	}
	return unmarshalJSON(m.Data, v)
}
