package client

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"
)

// Notify is a notification of the server. Its callbacks share it: Data must not be changed. Immutable.
type Notify struct {
	Event     string
	Room      string          // empty in a notification for the client itself
	Position  Position        // of the message; zero in a room without history
	Data      json.RawMessage // nil without
	Timestamp int64           // Unix seconds
}

// Decode decodes the data into v.
func (n Notify) Decode(v any) error {
	if err := json.Unmarshal(n.Data, v); err != nil {
		return fmt.Errorf("client: data of %s: %w", n.Event, err)
	}
	return nil
}

// The types of a message.
const (
	typeRequest  = "request"
	typeResponse = "response"
	typeError    = "error"
	typeNotify   = "notify"
)

// The events of the library.
const (
	eventJoin      = "ws.join"
	eventLeave     = "ws.leave"
	eventGap       = "ws.gap"
	eventAck       = "ws.ack"
	eventSync      = "ws.sync"
	eventReconnect = "ws.reconnect"
)

// gapData is the data of ws.gap. Next is 0 if messages without an offset are lost.
type gapData struct {
	Epoch  string `json:"epoch"`
	After  int64  `json:"after"`
	Next   int64  `json:"next"`
	Reason string `json:"reason"`
}

// isGapOfHistory reports whether m is a gap that has a place in the history of its room.
func (m *incoming) isGapOfHistory() bool {
	var d gapData
	return m.Event == eventGap && (json.Unmarshal(m.Data, &d) != nil || d.Next != 0)
}

// incoming is a message of the server.
type incoming struct {
	Type      string          `json:"type"`
	Event     string          `json:"event"`
	RequestID string          `json:"request_id"`
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data"`
	Room      string          `json:"room"`
	Offset    int64           `json:"offset"`
	Prev      *int64          `json:"prev"`
	TraceID   string          `json:"trace_id"`
	Timestamp int64           `json:"timestamp"`
}

// notify returns a notification without its position.
func (m *incoming) notify() Notify {
	return Notify{Event: m.Event, Room: m.Room, Data: m.Data, Timestamp: m.Timestamp}
}

// prev returns the offset of the message before.
func (m *incoming) prev() int64 {
	if m.Prev != nil {
		return *m.Prev
	}
	return m.Offset - 1
}

// outgoing is a message of the client.
type outgoing struct {
	Type       string          `json:"type"`
	Event      string          `json:"event"`
	RequestID  string          `json:"request_id,omitempty"`
	Idempotent bool            `json:"idempotent,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
	Timestamp  int64           `json:"timestamp"`
}

// encode returns the text of m with data. Without data the field is left out.
func encode(m outgoing, data any) ([]byte, error) {
	m.Timestamp = time.Now().Unix()
	if data != nil {
		var err error
		if m.Data, err = json.Marshal(data); err != nil {
			return nil, fmt.Errorf("client: data of %s: %w", m.Event, err)
		}
	}
	return json.Marshal(m)
}

// newPrefix returns the beginning of all request IDs of a client. The server may remember the IDs of
// a user (WithIdempotency), so those of two clients must differ.
func newPrefix() string { return rand.Text() + "-" } // 130 random bits
