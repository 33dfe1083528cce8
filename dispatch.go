package ws

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/internal/loglimit"
	"github.com/qi-realtime/ws/pool"
	"github.com/qi-realtime/ws/router"
)

// unknownEvent stands in metrics for events without a handler. Clients choose
// their names: as labels they would grow without bound.
const unknownEvent = "(unknown)"

// maxInvalid is how many invalid messages in a row a client may send.
const maxInvalid = 10

// Handler handles one message of one client. The message is borrowed, its Data
// included: copy the parts to keep. A *ClientError is sent to the client as it
// is, and errors of the library, such as ErrRoomFull, with codes and texts of their
// own; the text of any other error is logged, and the client reads code 500.
//
// It runs on a worker, or on the event loop if the manager's or the route's
// mode is Inline; one message of a client at a time, in the order received.
//
// The messages that a client sent before a close frame, or before it broke the protocol,
// and those that had come when Shutdown began, are handled. They are answered before our
// close frame, unless that takes longer than CloseTimeout. Those of a client that hangs
// up without a close frame are dropped unless their handler has begun, and counted in
// Stats.Unhandled: nobody waits for their answers. Client.Context ends then.
//
// A panic is logged, and the client reads code 500. So it is with runtime.Goexit (the
// FailNow of a test calls it) on a worker. On an event loop it cannot be stopped: it ends
// the loop, all connections, and Run with an error.
type Handler func(c *Client, msg *Message) error

// NextFunc goes on to the next middleware or to the handler, and returns its error.
//
// A middleware calls it on its own goroutine before it returns: never, once, or
// several times, one after the other, and the handler runs as often. On another
// goroutine, or later, it returns an error and has no effect.
type NextFunc = func() error

// MiddlewareFunc runs around every handler, where the handler runs, those of
// HandleRaw and HandleBinary included (TypeRaw). It calls
// next to go on, or returns without it to stop the message there. What it changes
// in msg, the middleware behind it and the handler read.
type MiddlewareFunc func(c *Client, msg *Message, next NextFunc) error

// Router holds the handlers by event name. Safe for concurrent use.
type Router struct {
	routes *router.Router[*Client, *Message]
}

// Freeze ends registration: Register and Use return ErrRouterFrozen from then
// on. Lookups never take a lock, before and after.
func (r *Router) Freeze() { r.routes.Freeze() }

// Use adds middleware around all handlers, outermost first. It returns
// ErrRouterFrozen after Router.Freeze.
func (m *Manager) Use(mw ...MiddlewareFunc) error {
	middleware := make([]router.Middleware[*Client, *Message], len(mw))
	for i, f := range mw {
		middleware[i] = router.Middleware[*Client, *Message](f)
	}
	return routerError(m.Router.routes.Use(middleware...))
}

// Register makes h the handler of event. It returns ErrHandlerExists if there
// is one, whatever h is, and ErrRouterFrozen after Router.Freeze. The handler answers by
// itself (Client.SendResponse) unless it returns an error; see Handle for typed
// handlers.
func (m *Manager) Register(event string, h Handler, opts ...RouteOption) error {
	o := newRouteOptions(opts)
	mode, err := m.modeOf(&o)
	if err != nil {
		return fmt.Errorf("ws: register %q: %w", event, err)
	}
	if o.limit > 0 && h != nil {
		h = m.late.watch(event, o.limit, h)
	}
	return routerError(m.Router.routes.Register(event, router.Handler[*Client, *Message](h), mode))
}

// routerError translates the errors of the router.
func routerError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, router.ErrFrozen):
		return ErrRouterFrozen
	case errors.Is(err, router.ErrExists):
		return ErrHandlerExists
	}
	return fmt.Errorf("ws: register: %w", err)
}

// workersFor decides where a message is handled: on workers, or inline for nil.
func (m *Manager) workersFor(c *Client, op codec.Opcode, payload []byte) *pool.Workers {
	mode := m.defaultMode()
	overrides := m.raw.Load() == nil && m.Router.routes.HasModeOverrides()
	if overrides && op == OpText {
		mode = m.routeMode(payload)
	}
	switch {
	case mode != router.ModeInline:
		return m.workersOf(mode)
	case overrides && c.hasMail():
		return m.workers
	}
	return nil
}

// defaultMode is the manager's handler mode.
func (m *Manager) defaultMode() router.Mode {
	if m.cfg.HandlerMode == Inline {
		return router.ModeInline
	}
	return router.ModePooled
}

// routeMode returns the mode of the message's route.
func (m *Manager) routeMode(payload []byte) router.Mode {
	var e envelope.Envelope
	if envelope.ParseEnvelope(payload, &e) == nil {
		if route, ok := m.Router.routes.LookupBytes(e.Event); ok && route.Mode != router.ModeDefault {
			return route.Mode
		}
	}
	return m.defaultMode()
}

// handle handles one message, on the event loop or on a worker.
func (c *Client) handle(op codec.Opcode, payload []byte) {
	if raw := c.manager.rawRouteFor(op); raw != nil {
		c.invalid = 0
		c.handleRaw(raw, op, payload)
		return
	}
	var e envelope.Envelope
	err := envelope.ParseEnvelope(payload, &e)
	if op != OpText {
		c.rejectInvalid(&e, errBinary)
		return
	}
	if err != nil {
		why := strings.TrimPrefix(err.Error(), envelope.ErrEnvelope.Error())
		c.rejectInvalid(&e, fmt.Errorf("%w%s", ErrInvalidMessage, why))
		return
	}
	msgType, ok := requestType(e.Type)
	if !ok {
		c.rejectType(&e)
		return
	}
	c.invalid = 0
	c.route(msgType, &e)
}

// errBinary refuses a binary message that no handler takes.
var errBinary = fmt.Errorf("%w: binary", ErrInvalidMessageType)

// requestType returns the constant for the type of a client's message. One without a type
// is a request.
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
// ping. It neither counts among the invalid messages that close a client nor ends their row.
func (c *Client) rejectType(e *envelope.Envelope) {
	c.manager.metrics.IncrementInvalidMessages()
	c.answerInvalid(string(e.RequestID), 400, fmt.Sprintf("invalid message type %q", shortened(string(e.Type))))
}

// rejectInvalid answers a message that is no envelope, and closes a client that sends
// nothing else.
func (c *Client) rejectInvalid(e *envelope.Envelope, err error) {
	c.manager.metrics.IncrementInvalidMessages()
	c.invalid++
	if c.invalid > maxInvalid {
		c.CloseWithCode(ClosePolicyViolation, "too many invalid messages")
		c.manager.reportError(c, err)
		return
	}
	c.answerInvalid(string(e.RequestID), 400, strings.TrimPrefix(err.Error(), "ws: "))
}

// route finds the handler of a valid message and runs it.
func (c *Client) route(msgType string, e *envelope.Envelope) {
	m := c.manager
	route, ok := m.Router.routes.LookupBytes(e.Event)
	msg := messagePool.Get().(*Message)
	defer msg.Release()
	*msg = Message{Type: msgType, RequestID: string(e.RequestID), Data: e.Data, Timestamp: e.Timestamp}
	if ok {
		msg.Event = route.Event
	} else {
		msg.Event = string(e.Event)
	}
	m.EventBus.publishMessage(c, msg)
	if !ok {
		m.metrics.IncrementMessageErrors(unknownEvent)
		c.answerInvalid(msg.RequestID, 404, "handler not found")
		return
	}
	c.run(msg, route.Handler)
}

// run calls the handler of msg and answers its error.
func (c *Client) run(msg *Message, h router.Handler[*Client, *Message]) {
	m := c.manager
	returned := false
	defer func() {
		if r := recover(); r != nil {
			c.handlerPanicked(msg, r)
		} else if !returned {
			c.handlerPanicked(msg, errGoexit)
		}
	}()
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
}

// errGoexit stands for the panic of a handler that has ended its goroutine. The worker
// is replaced; an event loop is not, see engine/goexit.go.
var errGoexit = errors.New("runtime.Goexit")

// handlerPanicked logs a panic, publishes it, and answers the request.
func (c *Client) handlerPanicked(msg *Message, recovered any) {
	m := c.manager
	trace := newTraceID()
	m.metrics.IncrementMessageErrors(msg.Event)
	m.cfg.Logger.Error("ws: handler panicked", slog.String("event", msg.Event), slog.String("client", c.ID),
		slog.String("trace_id", string(appendTraceID(nil, trace))),
		slog.Any("panic", recovered), loglimit.Stack())
	m.reportError(c, fmt.Errorf("ws: handler of %q panicked: %v", msg.Event, recovered))
	_ = c.sendAnswer(&reply{ // the same
		typ: TypeError, requestID: msg.RequestID, code: 500, message: "internal error", traceID: trace,
	})
}
