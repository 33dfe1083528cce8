package ws

import (
	"encoding/json"
	"fmt"
)

// Handle registers fn as the handler of event. Each request's data is decoded
// into a new Req; if that fails, the client gets an error of code 400 that names
// the field. What fn
// returns is the data of a response of code 200; see Handler for its errors and
// the goroutine it runs on. req is owned by fn.
//
// The memory that decoding takes depends on Req and may be many times the size of the
// message. Measured with 512 KiB: an array of empty objects allocates 200 times its size as
// a slice of structs of 100 bytes, and 1,600 times as one of structs of 1 KB, because an
// element takes 3 bytes in the message and a whole struct in memory; an array as an any
// takes 35 to 50 times. So use structs of fixed size, keep lists of large structs out of
// Req, declare the parts that the handler only passes on as json.RawMessage (once its size), and set
// Config.MessageSizeLimit and RateLimit.Bytes to the needs of the clients.
func Handle[Req, Resp any](m *Manager, event string, fn func(c *Client, req *Req) (*Resp, error), opts ...RouteOption) error {
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
	}, opts...)
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
	}, opts...)
}

// HandleOnly is Handle for a handler that takes no data.
func HandleOnly[Resp any](m *Manager, event string, fn func(c *Client) (*Resp, error), opts ...RouteOption) error {
	return m.Register(event, func(c *Client, msg *Message) error {
		resp, err := fn(c)
		if err != nil {
			return err
		}
		return respond(c, msg, resp)
	}, opts...)
}

// respond answers a request; a notification gets no answer.
func respond[Resp any](c *Client, msg *Message, resp *Resp) error {
	if msg.Type == TypeNotify {
		return nil
	}
	r := reply{typ: TypeResponse, requestID: msg.RequestID, code: 200, message: "success", traceID: newTraceID()}
	if resp != nil {
		data, err := json.Marshal(resp)
		if err != nil {
			return fmt.Errorf("ws: encode response of %q: %w", msg.Event, err)
		}
		r.data = data
	}
	_ = c.sendAnswer(&r) // fails only for a client that is closing
	return nil
}
