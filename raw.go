package ws

import (
	"fmt"
	"time"

	"github.com/qi-realtime/ws/router"
)

// RawHandler handles messages without the envelope. The payload is borrowed:
// it is valid until the handler returns.
type RawHandler func(c *Client, op Opcode, payload []byte)

// rawRoute is a raw handler in its two forms. Immutable.
type rawRoute struct {
	fn      RawHandler
	handler router.Handler[*Client, *Message] // fn inside middleware
}

func newRawRoute(fn RawHandler) *rawRoute {
	return &rawRoute{fn, func(c *Client, msg *Message) error {
		fn(c, msg.op, msg.Data)
		return nil
	}}
}

// HandleRaw makes fn the handler of all messages, text and binary, in place of
// the envelope, the router and EventMessageReceived. It runs in the manager's
// handler mode. nil restores the envelope.
//
// Middleware runs around it, and reads a message of TypeRaw whose Data is the payload.
// An error of a middleware is not answered, because the client reads no envelopes.
//
// A raw handler that answers each message with one is never refused, however slowly
// the client reads: one message of a handler to its own client may exceed the
// bounds of the queue, and the next message waits until it is within them. For more
// use Client.SendContext, which waits for space.
func (m *Manager) HandleRaw(fn func(c *Client, op Opcode, payload []byte)) {
	if fn == nil {
		m.raw.Store(nil)
		return
	}
	m.raw.Store(newRawRoute(fn))
}

// HandleBinary makes fn the handler of binary messages beside the envelopes, which are
// text. The payload is borrowed. It runs in the manager's handler mode, in the order of the
// client's messages. Middleware runs around it as around HandleRaw; the error of a middleware
// is answered, without a request_id. Without a handler, or with nil, a binary message is
// answered with code 400. HandleRaw takes all messages in place of it.
func (m *Manager) HandleBinary(fn func(c *Client, payload []byte)) {
	if fn == nil {
		m.binary.Store(nil)
		return
	}
	m.binary.Store(newRawRoute(func(c *Client, _ Opcode, payload []byte) { fn(c, payload) }))
}

// rawRouteFor returns the raw handler of a message, nil for an envelope.
func (m *Manager) rawRouteFor(op Opcode) *rawRoute {
	if raw := m.raw.Load(); raw != nil || op == OpText {
		return raw
	}
	return m.binary.Load()
}

// handleRaw calls the raw handler; a panic in it is logged and published.
func (c *Client) handleRaw(raw *rawRoute, op Opcode, payload []byte) {
	m := c.manager
	returned := false
	defer protect(&returned, func(r any) {
		m.metrics.IncrementMessageErrors("")
		m.reportPanic(r)
		m.reportError(c, fmt.Errorf("ws: raw handler panicked: %v", r))
	})
	m.metrics.IncrementMessageCount("")
	var start time.Time
	if m.measures {
		start = time.Now()
	}
	err := c.callRaw(raw, op, payload)
	returned = true
	if m.measures {
		m.metrics.RecordMessageLatency("", time.Since(start).Nanoseconds())
	}
	if err != nil {
		m.metrics.IncrementMessageErrors("")
		c.answerError(&Message{Type: TypeRaw}, err)
	}
}

// callRaw calls the raw handler, inside the middleware if there is any.
func (c *Client) callRaw(raw *rawRoute, op Opcode, payload []byte) error {
	routes := c.manager.Router.routes
	if !routes.HasMiddleware() {
		raw.fn(c, op, payload)
		return nil
	}
	msg := messagePool.Get().(*Message)
	defer msg.Release()
	*msg = Message{Type: TypeRaw, Data: payload, op: op}
	return routes.Call(raw.handler, c, msg)
}
