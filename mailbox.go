package ws

import (
	"sync"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/measure"
	"github.com/qi-realtime/ws/pool"
)

// mailbox holds a client's messages that wait for a worker. It exists only while messages
// wait. Where a manager has both inline and pooled handlers, it exists until the messages of
// the last pooled handler have passed the event loop's inbox, because an inline handler
// would overtake them. The client's mutex guards it.
type mailbox struct {
	messages []inboundMessage
	head     int
	bytes    int64
	workers  *pool.Workers // the workers that handle the client's messages now
	ticket   pool.Ticket   // of the client's last place in their queue; 0 for none
	handler  uintptr       // the goroutine that handles a message now; see gid.Current
	reading  bool          // a worker handles messages, or the client waits for a worker
	paused   bool          // the connection is paused until half of the messages are read
	closing  bool          // the connection is paused until all messages are read
	fenced   bool          // a fenceTask is in the inbox
	refence  bool          // messages were read since the fenceTask was posted
}

// inboundMessage is one message, or the end of the connection if buf is nil.
type inboundMessage struct {
	op      Opcode
	buf     *pool.Buffer
	workers *pool.Workers  // workers that handle it; nil is those of the message before it
	sample  measure.Sample // begins with the arrival
}

// full reports whether the mailbox exceeds MailboxSize or MailboxBytes. One message of any
// size is within them.
func (b *mailbox) full(cfg *Config) bool {
	n := b.len()
	return n > cfg.MailboxSize || (n > 1 && b.bytes > cfg.MailboxBytes)
}

// halfFree reports whether the mailbox is at most half full.
func (b *mailbox) halfFree(cfg *Config) bool {
	n := b.len()
	return 2*n <= cfg.MailboxSize && (n <= 1 || 2*b.bytes <= cfg.MailboxBytes)
}

func (b *mailbox) len() int { return len(b.messages) - b.head }

// add appends in. When the slice is full and at least half of it has been read, the messages
// that wait move to its front: without that the slice of a client that always has messages
// waiting would grow without bound.
func (b *mailbox) add(in inboundMessage) {
	if len(b.messages) == cap(b.messages) && b.head > 0 && b.head >= len(b.messages)/2 {
		n := copy(b.messages, b.messages[b.head:])
		clear(b.messages[n:])
		b.messages, b.head = b.messages[:n], 0
	}
	b.messages = append(b.messages, in)
}

// maxPooledMessages bounds the capacity of the mailboxes that return to the pool.
const maxPooledMessages = 1024

var mailboxPool = sync.Pool{New: func() any { return new(mailbox) }}

// enqueue hands a copy of payload to workers. If that fills the mailbox, the client waits:
// its connection is paused. A received message is always taken.
func (c *Client) enqueue(op Opcode, payload []byte, workers *pool.Workers, s measure.Sample) {
	buf := pool.GetBuffer()
	buf.B = append(buf.B[:0], payload...)
	c.conn.HandOverInLoop()
	if full := c.put(inboundMessage{op: op, buf: buf, workers: workers, sample: s}); full {
		c.conn.PauseInLoop()
	}
}

// put adds in to the mailbox, and lets the client wait for a worker unless it does already.
// It reports whether in has filled the mailbox.
func (c *Client) put(in inboundMessage) (full bool) {
	cfg := &c.manager.cfg
	c.mu.Lock()
	x := c.needLazyLocked()
	if x.mailbox == nil {
		x.mailbox = mailboxPool.Get().(*mailbox)
		x.mailbox.workers = c.manager.workers
	}
	box := x.mailbox
	box.add(in)
	if in.buf != nil {
		box.bytes += int64(len(in.buf.B))
		c.manager.weighInbound(int64(len(in.buf.B)))
		full = !box.paused && (box.full(cfg) || (box.len() > 1 && c.manager.engine.InboundExceeded()))
		box.paused = box.paused || full
	}
	submit := !box.reading
	box.reading = true
	if submit && in.workers != nil {
		box.workers = in.workers
	}
	queued := !submit || c.lineUpLocked(box)
	c.mu.Unlock()
	if !queued {
		c.discardInbound()
	}
	return full
}

// weighInbound adds n bytes to those in mailboxes, if there is an InboundBudget.
func (m *Manager) weighInbound(n int64) {
	if m.cfg.InboundBudget > 0 {
		m.engine.AddInbound(n)
	}
}

// hasUnread reports whether messages wait or are being handled, also while the client does
// not wait for a worker.
func (c *Client) hasUnread() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.mailboxLocked()
	return box != nil && (box.handler != 0 || box.len() > 0)
}

// mailboxLocked returns the client's mailbox, nil if it has none.
func (c *Client) mailboxLocked() *mailbox {
	if c.lazy == nil {
		return nil
	}
	return c.lazy.mailbox
}

// hasInbound reports whether messages wait for a worker or are being handled.
func (c *Client) hasInbound() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lazy != nil && c.lazy.mailbox != nil
}

// resumeWhenRead makes the connection, which is about to be paused, resume after the last
// message has been handled. It reports false if no message waits or is being handled.
func (c *Client) resumeWhenRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lazy == nil || c.lazy.mailbox == nil || !c.lazy.mailbox.reading {
		return false
	}
	c.lazy.mailbox.closing = true
	return true
}

// closesWhenRead reports whether the client's close frame waits for its handlers.
func (c *Client) closesWhenRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.mailboxLocked()
	return box != nil && box.closing
}

// dropMailboxLocked gives the empty mailbox back to the pool.
func (c *Client) dropMailboxLocked() {
	box := c.lazy.mailbox
	c.lazy.mailbox = nil
	c.dropLazyLocked()
	if cap(box.messages) <= maxPooledMessages {
		*box = mailbox{messages: box.messages[:0]}
		mailboxPool.Put(box)
	}
}

// hungUp reports whether a connection has ended without a close handshake: then nobody waits
// for the answers to its messages.
func hungUp(end *engine.CloseInfo) bool { return end.Err != nil || end.Code == codec.CloseAbnormal }

// dropsInbound reports whether the end of the connection drops the messages that wait.
func (c *Client) dropsInbound(end *engine.CloseInfo) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending&shut != 0 || hungUp(end)
}

// dropInbound drops the messages that wait for a worker, and the client's place in the
// workers' queue, at once: their memory must not wait until a worker is free.
func (c *Client) dropInbound() {
	c.mu.Lock()
	box := c.mailboxLocked()
	if box == nil {
		c.mu.Unlock()
		return
	}
	messages := box.messages[box.head:]
	c.manager.weighInbound(-box.bytes)
	box.messages, box.head, box.bytes = nil, 0, 0
	if box.workers.Withdraw(box.ticket) {
		box.reading, box.closing = false, false
		if !box.fenced {
			c.dropMailboxLocked()
		}
	}
	c.mu.Unlock()
	for _, in := range messages {
		c.dropMessage(in)
	}
}

// dropMessage drops and counts a message that no handler gets.
func (c *Client) dropMessage(in inboundMessage) {
	pool.PutBuffer(in.buf)
	c.manager.unhandled.Add(1)
}
