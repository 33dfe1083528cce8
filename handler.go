package ws

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/qi-realtime/ws/router"
)

// HandlerMode says where handlers run.
type HandlerMode uint8

const (
	// Pooled runs handlers on a bounded pool of workers: one message of a
	// connection at a time, in the order received. A handler may block.
	Pooled HandlerMode = iota
	// Inline runs handlers on the connection's event loop, on the bytes as they
	// were read, with no copy and no handover. A handler must never block: it
	// holds up every connection of its loop.
	Inline
)

// Handler handles one message of one client. The message is borrowed, its Data
// included: copy the parts to keep. The client reads a *ClientError unchanged, and errors of
// the library, such as ErrRoomFull, with codes and texts of their own. The text of any other
// error is logged, and the client reads code 500.
//
// It runs on a worker, or on the event loop if the manager's or the route's
// mode is Inline; one message of a client at a time, in the order received.
//
// The messages that arrive before a client's close frame, before its violation of the
// protocol, or before Shutdown begins, are handled. They are answered before our close
// frame, unless that takes longer than CloseTimeout. When a client hangs up without a close
// frame, its messages are dropped unless their handler has begun, and counted in
// Stats.Unhandled, because nobody waits for their answers. Client.Context ends then.
//
// A panic is logged, and the client reads code 500. The same holds for runtime.Goexit (the
// FailNow of a test calls it) on a worker. On an event loop it cannot be stopped: it ends
// the loop, all connections, and Run with an error.
type Handler func(c *Client, msg *Message) error

// NextFunc goes on to the next middleware or to the handler, and returns its error.
//
// A middleware calls it on its own goroutine before it returns: never, once, or
// several times, one after the other, and the handler runs as often. On another
// goroutine, or later, it returns an error and has no effect.
type NextFunc = func() error

// MiddlewareFunc runs around every handler, on the goroutine of the handler; the handlers of
// HandleRaw and HandleBinary are included (TypeRaw). It calls next to go on, or returns
// without it to stop the message there. The next middleware and the handler read its changes
// of msg.
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

// UseIf adds middleware that runs only for the messages for which want returns true, such as a
// sample of them. A message that is not wanted costs the call of want, about 10 ns, in place
// of 50 to 100 ns for a middleware that calls next at once. want runs on the goroutine of the
// handler, in the order of Use and UseIf, and again if a middleware before it calls next again. It
// must neither change nor keep msg, which may have the type alone if that is TypeRaw. UseIf
// returns ErrRouterFrozen after Router.Freeze.
func (m *Manager) UseIf(want func(c *Client, msg *Message) bool, mw MiddlewareFunc) error {
	return routerError(m.Router.routes.UseIf(want, router.Middleware[*Client, *Message](mw)))
}

// Register makes h the handler of event. It returns ErrHandlerExists if event has a handler,
// also for a nil h, and ErrRouterFrozen after Router.Freeze. The handler answers by
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
	err = m.Router.routes.Register(router.Route[*Client, *Message]{
		Event: event, Handler: router.Handler[*Client, *Message](h), Mode: mode,
		Request: o.request, Response: o.response, Doc: o.doc,
	})
	if err == nil {
		m.handlerTimes.add(event)
	}
	return routerError(err)
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

// Handle registers fn as the handler of event. Each request's data is decoded
// into a new Req; if that fails, the client gets an error of code 400 that names
// the field. The result of fn is the data of a response of code 200; see Handler for its
// errors and the goroutine it runs on. req is owned by fn.
//
// The memory for decoding depends on Req and may be many times the size of the message.
// Measured with 512 KiB: an array of empty objects allocates 200 times its size as a slice
// of structs of 100 bytes, and 1,600 times as a slice of structs of 1 KB, because an element
// takes 3 bytes in the message and a whole struct in memory. An array as an any takes 35 to
// 50 times its size. So use structs of fixed size, keep lists of large structs out of Req,
// declare the parts that the handler only passes on as json.RawMessage (once its size), and
// set Config.MessageSizeLimit and RateLimit.Bytes to the needs of the clients.
func Handle[Req, Resp any](
	m *Manager, event string, fn func(c *Client, req *Req) (*Resp, error), opts ...RouteOption,
) error {
	return m.Register(event, func(c *Client, msg *Message) error {
		req, err := decode[Req](msg)
		if err != nil {
			return err
		}
		resp, err := fn(c, req)
		if err != nil {
			return err
		}
		return respond(c, msg, resp)
	}, append(slices.Clip(opts), typed(reflect.TypeFor[Req](), reflect.TypeFor[Resp]()))...)
}

// Handle0 is Handle for a handler whose response has no data.
func Handle0[Req any](m *Manager, event string, fn func(c *Client, req *Req) error, opts ...RouteOption) error {
	return m.Register(event, func(c *Client, msg *Message) error {
		req, err := decode[Req](msg)
		if err != nil {
			return err
		}
		if err := fn(c, req); err != nil {
			return err
		}
		return respond[struct{}](c, msg, nil)
	}, append(slices.Clip(opts), typed(reflect.TypeFor[Req](), nil))...)
}

// HandleOnly is Handle for a handler that takes no data.
func HandleOnly[Resp any](m *Manager, event string, fn func(c *Client) (*Resp, error), opts ...RouteOption) error {
	return m.Register(event, func(c *Client, msg *Message) error {
		resp, err := fn(c)
		if err != nil {
			return err
		}
		return respond(c, msg, resp)
	}, append(slices.Clip(opts), typed(nil, reflect.TypeFor[Resp]()))...)
}

// respond answers a request; a notification gets no answer.
func respond[Resp any](c *Client, msg *Message, resp *Resp) error {
	if msg.Type == TypeNotify {
		return nil
	}
	r := success(msg.RequestID, msg.traceID())
	if resp != nil {
		data, e, err := c.manager.cfg.encodeJSON(resp)
		defer e.release()
		if err != nil {
			return fmt.Errorf("ws: encode response of %q: %w", msg.Event, err)
		}
		r.Data = data
	}
	c.answer(msg.once, &r)
	return nil
}

// decode decodes the data of a request.
func decode[Req any](msg *Message) (*Req, error) {
	req := new(Req)
	if len(msg.Data) == 0 {
		return req, nil
	}
	if err := msg.decodeJSON(req); err != nil {
		return nil, dataError(err)
	}
	return req, nil
}

// dataError returns the error that a client reads for err. For a json.UnmarshalTypeError its
// text names the field and the value that it must have, in the words of JSON. The text of
// any other error, such as an error of a type's own UnmarshalJSON, is for the log.
func dataError(err error) *ClientError {
	e := &ClientError{Code: 400, Message: "invalid data", cause: err, logged: true}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return e
	}
	e.logged = false
	e.Message += ": "
	if wrong.Field != "" {
		e.Message += wrong.Field + " "
	}
	e.Message += "must be " + expectedValue(wrong.Type)
	if kind, ok := valueKinds[wrong.Value]; ok { // none for a number that is out of range
		e.Message += ", not " + kind
	}
	return e
}

// valueKinds translates the kinds of json.UnmarshalTypeError.
var valueKinds = map[string]string{
	"bool": "a boolean", "number": "a number", "string": "a string", "array": "an array", "object": "an object",
}

// textUnmarshaler is the type of values that are strings in JSON.
var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// expectedValue names the JSON value from which t is decoded.
func expectedValue(t reflect.Type) string {
	if t.Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler) {
		return "a string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expectedValue(t.Elem())
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		most := int64(math.MaxInt64) >> (64 - t.Bits())
		return fmt.Sprintf("an integer from %d to %d", -most-1, most)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("an integer from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	case reflect.Float32, reflect.Float64:
		return fmt.Sprintf("a number of %d bits", t.Bits())
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "another value"
	}
}

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
	m.handlerTimes.add(rawEvent)
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
	m.handlerTimes.add(binaryEvent)
	m.binary.Store(newRawRoute(func(c *Client, _ Opcode, payload []byte) { fn(c, payload) }))
}
