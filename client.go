package ws

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/pool"
)

// Opcode is the kind of a data message.
type Opcode = codec.Opcode

// The kinds of data messages (RFC 6455 section 5.6).
const (
	OpText   = codec.OpText
	OpBinary = codec.OpBinary
)

// Close codes that applications use (RFC 6455 section 7.4.1); 4000 to 4999 are
// free for private use.
const (
	CloseNormal          = int(codec.CloseNormal)
	CloseGoingAway       = int(codec.CloseGoingAway)
	ClosePolicyViolation = int(codec.ClosePolicyViolation)
	CloseInternalError   = int(codec.CloseInternalError)
	CloseTryAgainLater   = int(codec.CloseTryAgainLater)
	// CloseReplaced closes a connection whose ID another one takes over; see ReplaceOld.
	CloseReplaced = 4409
)

// Client is one connection. It must stay within 192 bytes, which a test holds:
// an idle connection costs this struct, its ID, and the entries of gnet and the
// registry.
//
// Its methods may be called from any goroutine, event loops and handlers
// included, and never wait for the network. Safe for concurrent use.
type Client struct {
	// ID is unique among the connected clients; unguessable unless
	// WithClientID set it. Immutable.
	ID string
	// UserID is the integer of WithUserID, or 0; see User. Immutable.
	UserID int64

	manager *Manager
	conn    engine.Conn

	mu          sync.Mutex
	room        *membership // guarded by mu; the first of them, nil in no room
	extra       *extra      // guarded by mu; nil while nothing is in it
	gone        bool        // guarded by mu; the connection has ended
	listed      bool        // guarded by the mutex of its registry shard; opened was called
	shut        bool        // guarded by mu; CloseWithCode was called: the mailbox is not handled
	subprotocol uint8       // index in Config.Subprotocols + 1, or 0; immutable once connected
	invalid     uint8       // invalid messages in a row; only the handler of the running message touches it
}

// SendBytes queues b, which is borrowed, as one text message. It must be UTF-8
// (RFC 6455 section 5.6), which no method that sends or publishes checks: browsers end a
// connection with any other text. It returns ErrConnectionClosed, or ErrChannelFull if the client's queue is at a bound, its
// socket is full, and the OverflowPolicy is DropNewest; then nothing was queued. A
// sender that is only ahead of the client's event loop waits for the loop, up to
// BroadcastConfig.Timeout, but never on an event loop. SendContext waits for the
// client as well.
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
// ErrConnectionClosed, and ErrChannelFull if the message was dropped at once.
// Off the client's event loop it cannot say so of a message with a ConflateKey,
// or under another OverflowPolicy than DropNewest, where the loop decides what
// is dropped; all drops are counted.
func (c *Client) Send(b []byte, opts ...MessageOption) error {
	o := newMessageOptions(OpText, opts)
	return c.sent(c.conn.Send(engine.NewFrame(o.op, b, o.Handling)))
}

// SendContext is Send for a sender that waits: while the client's queue is at a
// bound it waits for space, whatever the OverflowPolicy, until ctx ends. So a
// pooled handler can send a history of any length to a client that reads it. It
// returns the context's error, or ErrConnectionClosed if the connection ends
// first; Client.Context is a context that ends with it. On an event loop, where
// nothing may wait, it returns ErrChannelFull instead of waiting.
func (c *Client) SendContext(ctx context.Context, b []byte, opts ...MessageOption) error {
	o := newMessageOptions(OpText, opts)
	return c.sent(c.conn.SendContext(ctx, engine.NewFrame(o.op, b, o.Handling)))
}

func (c *Client) send(op Opcode, b []byte, lane engine.Lane) error {
	return c.sent(c.conn.SendPayload(op, b, lane))
}

// sent reports a message that was queued.
func (c *Client) sent(err error) error {
	if err == nil && c.manager.EventBus.wants(EventMessageSent) {
		c.manager.EventBus.publish(EventMessageSent, c, nil)
	}
	return err
}

// SendJSON encodes v as JSON and queues it as one text message, like SendBytes.
func (c *Client) SendJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("ws: encode message: %w", err)
	}
	return c.SendBytes(b)
}

// SendResponse answers a request. data is encoded as JSON; nil sends none.
func (c *Client) SendResponse(requestID string, code int, message string, data any) error {
	r := reply{typ: TypeResponse, requestID: requestID, code: code, message: message, traceID: newTraceID()}
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("ws: encode response: %w", err)
		}
		r.data = raw
	}
	return c.sendReply(&r)
}

// SendError answers a request with an error.
func (c *Client) SendError(requestID string, code int, message string) error {
	return c.sendReply(&reply{
		typ: TypeError, requestID: requestID, code: code, message: message, traceID: newTraceID(),
	})
}

func (c *Client) sendReply(r *reply) error {
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	buf.B = r.append(buf.B[:0])
	return c.sent(c.conn.SendReply(OpText, buf.B))
}

// sendAnswer is sendReply for the answer to a message of the client, one for each
// message at most: no bound and no policy drops it.
func (c *Client) sendAnswer(r *reply) error {
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	buf.B = r.append(buf.B[:0])
	return c.sent(c.conn.SendAnswer(OpText, buf.B))
}

// answerInvalid answers a message that no handler gets.
func (c *Client) answerInvalid(requestID string, code int, message string) {
	_ = c.sendAnswer(&reply{ // fails only for a client that is closing
		typ: TypeError, requestID: requestID, code: code, message: message, traceID: newTraceID(),
	})
}

// Close closes the connection with code 1000, behind the queued messages. See
// CloseWithCode.
func (c *Client) Close() { c.CloseWithCode(CloseNormal, "") }

// CloseWithCode begins the close handshake: queued messages are still sent, then
// a close frame with code and reason, of which 123 bytes are sent. Code 0 or 1005
// without a reason sends a close frame without a code; any other code that
// must not be sent (RFC 6455 section 7.4) becomes 1000. No message is accepted
// or handled any more. The connection ends when the client has answered, at the
// latest after Config.CloseTimeout. It never waits. Calls after the first have no
// effect.
func (c *Client) CloseWithCode(code int, reason string) {
	cc := codec.CloseNormal
	switch {
	case code > 0 && code < 1<<16 && codec.CloseCode(code).Valid():
		cc = codec.CloseCode(code)
	case (code == 0 || code == int(codec.CloseNoStatus)) && reason == "":
		cc = codec.CloseNoStatus
	}
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.conn.Close(cc, reason)
}

// Abort ends the connection at once, without a close handshake: it is reset, and what
// is queued, or on its way, is lost. Messages that wait for a worker are not handled. The
// code of the disconnect is 1006. It never waits, and may follow CloseWithCode.
func (c *Client) Abort() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.conn.Abort()
}

// IsClosed reports whether the connection is closed or closing.
func (c *Client) IsClosed() bool { return c.conn.Closed() }

// QueuedBytes returns how many bytes wait to be sent to the client, 0 once its
// connection has ended.
func (c *Client) QueuedBytes() int { return c.conn.QueuedBytes() }

// Context returns a context that ends with the connection, or when Shutdown begins.
// A handler passes it on to the calls that it waits for, so that it does not work for a
// client that has gone: a handler that runs is not interrupted otherwise. The first call costs some 200 bytes for as long as the
// client is connected.
func (c *Client) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return endedContext
	}
	x := c.needExtraLocked()
	if x.ctx == nil {
		x.ctx, x.cancel = context.WithCancel(c.manager.ctx)
	}
	return x.ctx
}

// endedContext is the context of clients that have gone.
var endedContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// RemoteAddr returns the client's network address, "host:port", or "" if it came
// over a Unix socket.
func (c *Client) RemoteAddr() string {
	if addr := c.conn.RemoteAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// SetMetadata keeps value under key for as long as the client is connected.
func (c *Client) SetMetadata(key string, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.needExtraLocked()
	if x.meta == nil {
		x.meta = make(map[string]any)
	}
	x.meta[key] = value
}

// GetMetadata returns the value that SetMetadata or WithMetadata stored under key.
func (c *Client) GetMetadata(key string) (any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.extra == nil {
		return nil, false
	}
	value, ok := c.extra.meta[key]
	return value, ok
}

// Prepared is a message encoded once, to be sent to many. Immutable after New.
type Prepared struct {
	frame *engine.Frame
}

// Prepare encodes payload, which is borrowed, as one message of kind op. The
// time of a TTL runs from each sending of it. It panics if op is neither OpText
// nor OpBinary.
func Prepare(op Opcode, payload []byte, opts ...MessageOption) *Prepared {
	if op != OpText && op != OpBinary {
		panic("ws: Prepare: opcode is neither OpText nor OpBinary")
	}
	o := newMessageOptions(op, opts)
	return &Prepared{frame: engine.NewFrame(o.op, payload, o.Handling)}
}

// clientOwner is the Client as its connection sees it.
type clientOwner Client

func (o *clientOwner) client() *Client { return (*Client)(o) }

// OnOpen runs on the client's event loop.
func (o *clientOwner) OnOpen() {
	c := (*Client)(o)
	m := c.manager
	m.clients.opened(c)
	m.metrics.IncrementConnections()
	m.changed(connectionCount, "")
	c.welcomeInLoop()
}

// OnClosing runs on the client's event loop: it leaves all rooms, because nothing
// that is published from here on reaches the client.
func (o *clientOwner) OnClosing() { (*Client)(o).leaveAllInLoop() }

// OnClose runs on the client's event loop: it leaves all rooms, drops the messages
// of a client that has hung up, and publishes the disconnect behind the last
// message that was handled.
func (o *clientOwner) OnClose(end engine.CloseInfo) {
	c := (*Client)(o)
	m := c.manager
	c.leaveAllInLoop()
	rooms := c.endInLoop()
	if c.dropsMail(&end) {
		c.dropMail()
	}
	var closed *CloseError // nil if nobody wants it
	if m.EventBus.wants(EventClientDisconnected) {
		closed = &CloseError{Code: int(end.Code), Reason: end.Reason, Remote: end.Remote, Rooms: rooms, Err: end.Err}
	}
	unread := closed != nil && c.hasUnread() // if not, it stays so: only the event loop, which runs this, posts
	m.clients.closed(c, closed, unread)
	if unread {
		c.post(letter{})
	}
	m.metrics.DecrementConnections()
	m.changed(connectionCount, "")
}

// OnPeerClose runs on the client's event loop: the messages before the close frame
// are answered first.
func (o *clientOwner) OnPeerClose() (ready bool) { return !(*Client)(o).resumeWhenRead() }

// Handling reports whether the caller is the client's handler on a worker.
func (o *clientOwner) Handling() bool { return (*Client)(o).handling() }

// OnMessage runs on the client's event loop.
func (o *clientOwner) OnMessage(op codec.Opcode, payload []byte) {
	c := (*Client)(o)
	workers := c.manager.workersFor(c, op, payload)
	if workers == nil {
		c.handle(op, payload)
		return
	}
	c.mail(op, payload, workers)
}
