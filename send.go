package ws

import (
	"context"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Opcode is the kind of a data message.
type Opcode uint8

// The kinds of data messages (RFC 6455 section 5.6).
const (
	OpText   = Opcode(codec.OpText)
	OpBinary = Opcode(codec.OpBinary)
)

// String returns the name of the opcode.
func (op Opcode) String() string { return codec.Opcode(op).String() }

// newFrame encodes payload, which is borrowed, as one message.
func newFrame(op Opcode, payload []byte, h engine.Handling) *engine.Frame {
	return engine.NewFrame(codec.Opcode(op), payload, h)
}

// SendBytes queues b, which is borrowed, as one text message. It must be UTF-8
// (RFC 6455 section 5.6), which no method that sends or publishes checks: browsers end a
// connection with any other text. It returns ErrConnectionClosed, or ErrChannelFull if the
// client's queue is at a bound, its socket is full, and the OverflowPolicy is DropNewest;
// then nothing was queued. A sender that is only ahead of the client's event loop waits for
// the loop, up to BroadcastConfig.Timeout, but never on an event loop. SendContext waits for
// the client as well.
func (c *Client) SendBytes(b []byte) error { return c.send(OpText, b, engine.LaneNormal) }

// SendBytesHigh is SendBytes for system messages: they overtake normal messages
// that are still queued, and have bounds of their own (HighQueueSize,
// HighQueueBytes).
func (c *Client) SendBytesHigh(b []byte) error { return c.send(OpText, b, engine.LaneHigh) }

// SendBinary is SendBytes for a binary message.
func (c *Client) SendBinary(b []byte) error { return c.send(OpBinary, b, engine.LaneNormal) }

// SendPrepared queues p without encoding it again.
func (c *Client) SendPrepared(p *Prepared) error {
	return c.sent(c.conn.Send(p.frame))
}

// Send queues b, which is borrowed, as one message with options. It returns
// ErrConnectionClosed, and ErrChannelFull if the message was dropped at once. With a
// ConflateKey, or under another OverflowPolicy than DropNewest, the client's event loop
// decides on drops, so Send reports them only if it is called there. All drops are counted.
func (c *Client) Send(b []byte, opts ...MessageOption) error {
	o := newMessageOptions(OpText, opts)
	return c.sent(c.conn.Send(newFrame(o.op, b, o.Handling)))
}

// SendContext is Send for a sender that waits: while the client's queue is at a bound, it waits
// for space until ctx ends, under every OverflowPolicy. So a pooled handler can send a history
// of any length to a client that reads it. It returns the error of ctx, or
// ErrConnectionClosed if the connection ends first; Client.Context is a context that ends
// with the connection. On an event loop, where nothing may wait, it returns ErrChannelFull
// instead of waiting.
func (c *Client) SendContext(ctx context.Context, b []byte, opts ...MessageOption) error {
	o := newMessageOptions(OpText, opts)
	return c.sent(c.conn.SendContext(ctx, newFrame(o.op, b, o.Handling)))
}

// SendJSON encodes v as JSON and queues it as one text message, like SendBytes.
func (c *Client) SendJSON(v any) error {
	b, e, err := c.manager.cfg.encodeJSON(v)
	defer e.release()
	if err != nil {
		return fmt.Errorf("ws: encode message: %w", err)
	}
	return c.SendBytes(b)
}

func (c *Client) send(op Opcode, b []byte, lane engine.Lane) error {
	return c.sent(c.conn.SendPayload(codec.Opcode(op), b, lane))
}

// sent publishes EventMessageSent unless err is set, and returns err.
func (c *Client) sent(err error) error {
	if err == nil && c.manager.EventBus.wants(EventMessageSent) {
		c.manager.EventBus.publish(EventMessageSent, c, nil)
	}
	return err
}

// Prepared is a message encoded once, to be sent to many. Immutable after New.
type Prepared struct {
	frame    *engine.Frame
	handling engine.Handling // of frame
}

// Prepare encodes payload, which is borrowed, as one message of kind op. The
// time of a TTL runs from each sending of it. It panics if op is neither OpText
// nor OpBinary.
func Prepare(op Opcode, payload []byte, opts ...MessageOption) *Prepared {
	if op != OpText && op != OpBinary {
		panic("ws: Prepare: opcode is neither OpText nor OpBinary")
	}
	o := newMessageOptions(op, opts)
	return &Prepared{newFrame(o.op, payload, o.Handling), o.Handling}
}

// MessageOption sets the kind of one message, or its handling while it waits in a client's
// queue.
type MessageOption func(*messageOptions)

// messageOptions holds the fields that MessageOptions set.
type messageOptions struct {
	engine.Handling
	op      Opcode
	exclude *Client
}

func newMessageOptions(op Opcode, opts []MessageOption) messageOptions {
	o := messageOptions{op: op}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// ConflateKey makes the message replace an older message with the same key that waits in a
// client's queue: a slow client gets the newest message, and never a backlog of old ones.
// Keys are scoped to the room, or to the client for Client.Send. If the replacement would
// exceed the queue's bounds, the message queues like any other. An empty key has no effect.
func ConflateKey(key string) MessageOption { return func(o *messageOptions) { o.Key = key } }

// TTL bounds the time from the sending of the message to its writing: a client for which it
// waits longer does not get it, and the drop is counted. A message that is in the socket's
// buffer, wholly or in part, is written. 0 is no limit; with a negative d nobody gets the
// message.
func TTL(d time.Duration) MessageOption { return func(o *messageOptions) { o.TTL = d } }

// HighPriority makes the message overtake normal ones that are still queued,
// like SendBytesHigh.
func HighPriority() MessageOption { return func(o *messageOptions) { o.Lane = engine.LaneHigh } }

// Binary makes the message a binary one; without it, it is text.
func Binary() MessageOption { return func(o *messageOptions) { o.op = OpBinary } }

// Exclude leaves out one member of the room. It has an effect in Publish and
// PublishContext only.
func Exclude(c *Client) MessageOption { return func(o *messageOptions) { o.exclude = c } }
