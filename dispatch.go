package ws

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/internal/loglimit"
	"github.com/qi-realtime/ws/internal/measure"
	"github.com/qi-realtime/ws/pool"
	"github.com/qi-realtime/ws/router"
)

// unknownEvent is the label of events without a handler in Metrics. Clients choose the
// names of events, so these names as labels would grow without bound.
const unknownEvent = "(unknown)"

// maxInvalid is the number of invalid messages in a row that a client may send.
const maxInvalid = 10

// workersFor returns the workers that handle a message, nil for the event loop.
func (m *Manager) workersFor(c *Client, op Opcode, payload []byte) *pool.Workers {
	mode := m.defaultMode()
	overrides := m.raw.Load() == nil && m.Router.routes.HasModeOverrides()
	if overrides && op == OpText {
		mode = m.routeMode(payload)
	}
	switch {
	case mode != router.ModeInline:
		return m.workersOf(mode)
	case overrides && c.hasInbound():
		return m.workers
	}
	return nil
}

// defaultMode returns the manager's handler mode.
func (m *Manager) defaultMode() router.Mode {
	if m.cfg.HandlerMode == Inline {
		return router.ModeInline
	}
	return router.ModePooled
}

// routeMode returns the mode of the message's route.
func (m *Manager) routeMode(payload []byte) router.Mode {
	var e envelope.Request
	if envelope.Parse(payload, &e) == nil {
		if route, ok := m.Router.routes.LookupBytes(e.Event); ok && route.Mode != router.ModeDefault {
			return route.Mode
		}
	}
	return m.defaultMode()
}

// handleTimed is handle, with its time.
func (c *Client) handleTimed(op Opcode, payload []byte, s measure.Sample) {
	event := c.handle(op, payload)
	if s.Taken() {
		c.manager.handlerTimes.note(event, c.conn.Shard().Index(), s)
	}
}

// handle handles one message, on the event loop or on a worker. It returns the event of the
// handler's histogram.
func (c *Client) handle(op Opcode, payload []byte) (event string) {
	if raw := c.manager.rawRouteFor(op); raw != nil {
		c.invalid = 0
		c.handleRaw(raw, op, payload)
		if raw == c.manager.binary.Load() {
			return binaryEvent
		}
		return rawEvent
	}
	var e envelope.Request
	err := envelope.Parse(payload, &e)
	if op != OpText {
		c.rejectInvalid(&e, errBinary)
		return otherEvent
	}
	if err != nil {
		why := strings.TrimPrefix(err.Error(), envelope.ErrInvalid.Error())
		c.rejectInvalid(&e, fmt.Errorf("%w%s", ErrInvalidMessage, why))
		return otherEvent
	}
	msgType, ok := requestType(e.Type)
	if !ok {
		c.rejectType(&e)
		return otherEvent
	}
	c.invalid = 0
	return c.route(msgType, &e)
}

// errBinary refuses a binary message that no handler takes.
var errBinary = fmt.Errorf("%w: binary", ErrInvalidMessageType)

// requestType returns the constant for the type of a client's message. A message without a
// type is a request.
func requestType(t []byte) (msgType string, ok bool) {
	switch string(t) {
	case TypeRequest, "":
		return TypeRequest, true
	case TypeNotify:
		return TypeNotify, true
	}
	return "", false
}

// rejectType answers a valid envelope of an unknown type, such as an application's own
// ping. Such a message neither counts toward maxInvalid nor resets the count.
func (c *Client) rejectType(e *envelope.Request) {
	c.manager.metrics.IncrementInvalidMessages()
	c.answerInvalid(string(e.RequestID), 400, fmt.Sprintf("invalid message type %q", shortened(string(e.Type))))
}

// rejectInvalid answers a message that is no envelope, and closes a client after maxInvalid
// of them in a row.
func (c *Client) rejectInvalid(e *envelope.Request, err error) {
	c.manager.metrics.IncrementInvalidMessages()
	c.invalid++
	if c.invalid > maxInvalid {
		c.CloseWithCode(ClosePolicyViolation, "too many invalid messages")
		c.manager.reportError(c, err)
		return
	}
	c.answerInvalid(string(e.RequestID), 400, strings.TrimPrefix(err.Error(), "ws: "))
}

// route finds the handler of a valid message and runs it. It returns the handler's event.
func (c *Client) route(msgType string, e *envelope.Request) (event string) {
	m := c.manager
	route, ok := m.Router.routes.LookupBytes(e.Event)
	msg := messagePool.Get().(*Message)
	defer msg.Release()
	*msg = Message{
		Type: msgType, RequestID: string(e.RequestID), Data: e.Data, Timestamp: e.Timestamp,
		parent: e.TraceParent, unmarshal: m.cfg.JSONUnmarshal,
	}
	if ok {
		msg.Event = route.Event
	} else {
		msg.Event = string(e.Event)
	}
	m.EventBus.publishMessage(c, msg)
	if !ok {
		m.metrics.IncrementMessageErrors(unknownEvent)
		c.answerInvalid(msg.RequestID, 404, "handler not found")
		return otherEvent
	}
	c.conn.NoteEvent(&route.Event)
	handler := route.Handler
	if e.Idempotent && m.replies != nil {
		handler = c.once(msg, handler)
	}
	c.run(msg, handler)
	return route.Event
}

// run calls the handler of msg and answers its error.
func (c *Client) run(msg *Message, h router.Handler[*Client, *Message]) {
	m := c.manager
	returned := false
	defer protect(&returned, func(r any) { c.handlerPanicked(msg, r) })
	m.metrics.IncrementMessageCount(msg.Event)
	var start time.Time
	if m.measures {
		start = time.Now()
	}
	err := m.Router.routes.Call(h, c, msg)
	returned = true
	if m.measures {
		m.metrics.RecordMessageLatency(msg.Event, time.Since(start).Nanoseconds())
	}
	if err != nil {
		m.metrics.IncrementMessageErrors(msg.Event)
		c.answerError(msg, err)
	}
	if msg.once != nil {
		m.leave(msg.once)
	}
}

// handlerPanicked logs and publishes a panic of the handler of msg, and answers the request.
func (c *Client) handlerPanicked(msg *Message, recovered any) {
	m := c.manager
	m.metrics.IncrementMessageErrors(msg.Event)
	m.cfg.Logger.Error("ws: handler panicked", slog.String("event", msg.Event), slog.String("client", c.ID),
		slog.String("trace_id", msg.TraceID()),
		slog.Any("panic", recovered), loglimit.Stack())
	m.reportError(c, fmt.Errorf("ws: handler of %q panicked: %v", msg.Event, recovered))
	c.answer(msg.once, &envelope.Reply{
		Type: TypeError, RequestID: msg.RequestID, Code: 500, Message: "internal error", TraceID: msg.traceID(),
	})
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

// rawMessage is the message that UseIf asks about in place of one without the envelope, which is
// made only for middleware that runs. Immutable.
var rawMessage = &Message{Type: TypeRaw}

// callRaw calls the raw handler, inside the middleware if any runs.
func (c *Client) callRaw(raw *rawRoute, op Opcode, payload []byte) error {
	routes := c.manager.Router.routes
	way := routes.Way(c, rawMessage)
	if way.Direct() {
		raw.fn(c, op, payload)
		return nil
	}
	msg := messagePool.Get().(*Message)
	defer msg.Release()
	*msg = Message{Type: TypeRaw, Data: payload, op: op, unmarshal: c.manager.cfg.JSONUnmarshal}
	return routes.CallOn(way, raw.handler, c, msg)
}
