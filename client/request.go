package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/qi-realtime/ws/codec"
)

// RequestOption changes one request.
type RequestOption func(*request)

// Idempotent marks a request that the client repeats, byte for byte, on the next connection, if the
// connection is lost before the answer comes. With the option WithIdempotency the server answers
// a repeat with the first answer, and the handler runs once; without it, and on another
// server, the handler may run twice.
func Idempotent() RequestOption { return func(r *request) { r.idempotent = true } }

// request is a request until its answer. Guarded by Client.mu.
type request struct {
	id         string
	number     uint64 // the order of requests
	text       []byte // immutable
	idempotent bool
	link       *link // on which it was sent last, or nil
	done       func(answer)
}

// answer is the end of a request. Immutable.
type answer struct {
	in  *incoming // or nil
	err error
}

// decode decodes the data of the answer into v, unless v is nil.
func (a answer) decode(event string, v any) error {
	switch {
	case a.err != nil:
		return fmt.Errorf("client: %s: %w", event, a.err)
	case a.in.Type == typeError:
		return &ServerError{Code: a.in.Code, Message: a.in.Message, Data: a.in.Data, TraceID: a.in.TraceID}
	case v == nil || a.in.Data == nil:
		return nil
	}
	if err := json.Unmarshal(a.in.Data, v); err != nil {
		return fmt.Errorf("client: answer to %s: %w", event, err)
	}
	return nil
}

// Request sends a request, waits for the answer and decodes its data into a Resp. See
// [Client.Request].
func Request[Resp any](ctx context.Context, c *Client, event string, data any, opts ...RequestOption) (Resp, error) {
	var resp Resp
	err := c.Request(ctx, event, data, &resp, opts...)
	return resp, err
}

// Request sends a request with data encoded as JSON, waits for the answer, and decodes its data into
// resp. Without data, and without use for the answer's, they are nil. While there is no
// connection the request waits in the queue.
//
// The error is a *[ServerError] if the server answers with an error. It wraps ErrConnectionLost,
// ErrQueueFull or ErrClosed, or the error of ctx: the request may have run then.
func (c *Client) Request(ctx context.Context, event string, data, resp any, opts ...RequestOption) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("client: %s: %w", event, err)
	}
	c.mu.Lock()
	r, err := c.newRequestLocked(event, data, opts...)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	answers := make(chan answer, 1)
	r.done = func(a answer) { answers <- a }
	err = c.enqueueLocked(r)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("client: %s: %w", event, err)
	}
	select {
	case a := <-answers:
		return a.decode(event, resp)
	case <-ctx.Done():
		c.forget(r)
		return fmt.Errorf("client: %s: %w", event, ctx.Err())
	}
}

// Notify sends a notification, which has no answer. It returns ErrConnectionLost while there is
// no connection, ErrQueueFull while the connection is blocked, and ErrClosed. A notification that
// was sent may still be lost with the connection.
func (c *Client) Notify(event string, data any) error {
	text, err := encode(outgoing{Type: typeNotify, Event: event}, data)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state.Phase == Closed:
		return c.closedLocked()
	case c.current == nil || !c.current.open || c.current.closing:
		return ErrConnectionLost
	case len(c.current.out) >= maxUnsent:
		return ErrQueueFull
	}
	c.current.sendLocked(codec.OpText, text)
	return nil
}

func (c *Client) newRequestLocked(event string, data any, opts ...RequestOption) (*request, error) {
	c.nextID++
	r := &request{id: c.prefix + strconv.FormatUint(c.nextID, 10), number: c.nextID}
	for _, opt := range opts {
		opt(r)
	}
	var err error
	r.text, err = encode(outgoing{Type: typeRequest, Event: event, RequestID: r.id, Idempotent: r.idempotent}, data)
	return r, err
}

// enqueueLocked sends a request, or lets it wait.
func (c *Client) enqueueLocked(r *request) error {
	switch {
	case c.state.Phase == Closed:
		return c.closedLocked()
	case len(c.queue) == 0 && c.canSendLocked():
		c.sendRequestLocked(c.current, r)
	case len(c.queue) >= c.settings.queue:
		return ErrQueueFull
	default:
		c.queue = append(c.queue, r)
	}
	return nil
}

// canSendLocked reports whether a request need not wait.
func (c *Client) canSendLocked() bool {
	l := c.current
	return l != nil && l.open && !l.closing && len(l.out) < maxUnsent
}

func (c *Client) sendRequestLocked(l *link, r *request) {
	if l.sendLocked(codec.OpText, r.text) {
		r.link = l
		c.sent[r.id] = r
		c.space.Broadcast()
	}
}

// askLocked sends a request of the client's own, which belongs to l.
func (c *Client) askLocked(l *link, event string, data any, done func(answer)) bool {
	q, err := c.newRequestLocked(event, data)
	if err != nil || !l.sendLocked(codec.OpText, q.text) {
		return false
	}
	q.link, q.done = l, done
	c.sent[q.id] = q
	c.space.Broadcast()
	return true
}

// flushLocked sends the requests that wait, as far as the connection takes them.
func (c *Client) flushLocked() {
	for _, waiting := range []*[]*request{&c.repeats, &c.queue} {
		for len(*waiting) > 0 && c.canSendLocked() {
			r := (*waiting)[0]
			(*waiting)[0] = nil
			*waiting = (*waiting)[1:]
			c.sendRequestLocked(c.current, r)
		}
	}
}

// answerLocked ends the request that in answers.
func (c *Client) answerLocked(l *link, in *incoming) {
	r := c.sent[in.RequestID]
	if r == nil || r.link != l {
		return
	}
	delete(c.sent, r.id)
	r.done(answer{in: in})
	c.retireLocked(l)
}

// forget gives a request up.
func (c *Client) forget(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sent, r.id)
	is := func(other *request) bool { return other == r }
	c.queue = slices.DeleteFunc(c.queue, is)
	c.repeats = slices.DeleteFunc(c.repeats, is)
	if r.link != nil {
		c.retireLocked(r.link)
	}
}

// loseLocked ends or keeps the requests that were sent on l.
func (c *Client) loseLocked(l *link) {
	var lost []*request
	for id, r := range c.sent {
		if r.link == l {
			delete(c.sent, id)
			lost = append(lost, r)
		}
	}
	slices.SortFunc(lost, func(a, b *request) int { return cmp.Compare(a.number, b.number) })
	for _, r := range lost {
		if r.idempotent && c.state.Phase != Closed {
			c.repeats = append(c.repeats, r)
		} else {
			r.done(answer{err: ErrConnectionLost})
		}
	}
	slices.SortFunc(c.repeats, func(a, b *request) int { return cmp.Compare(a.number, b.number) })
}

// failAllLocked ends all requests of a closed client.
func (c *Client) failAllLocked() {
	for _, r := range c.sent {
		r.done(answer{err: ErrConnectionLost})
	}
	for _, r := range c.repeats {
		r.done(answer{err: ErrConnectionLost})
	}
	for _, r := range c.queue {
		r.done(answer{err: c.closedLocked()})
	}
	clear(c.sent)
	c.repeats, c.queue = nil, nil
}
