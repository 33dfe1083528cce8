package ws

import (
	"encoding/json"
	"fmt"
)

// Handle registers fn as the handler of event. Each request's data is decoded
// into a new Req; if that fails, the client gets an error of code 400. What fn
// returns is the data of a response of code 200; see Handler for its errors and
// the goroutine it runs on. req is owned by fn.
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

// decode decodes the data of a request.
func decode[Req any](msg *Message) (*Req, error) {
	req := new(Req)
	if len(msg.Data) == 0 {
		return req, nil
	}
	if err := json.Unmarshal(msg.Data, req); err != nil {
		return nil, NewClientError(400, "invalid data: "+err.Error())
	}
	return req, nil
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
