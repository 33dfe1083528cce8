package ws

import (
	"sync"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/gid"
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
	workers *pool.Workers // workers that handle it; nil is those of the message before it
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

// maxRun is the number of messages of one client that a worker handles before others get
// their turn.
const maxRun = 16

// enqueue hands a copy of payload to workers. If that fills the mailbox, the client waits:
// its connection is paused. A received message is always taken.
func (c *Client) enqueue(op Opcode, payload []byte, workers *pool.Workers) {
	buf := pool.GetBuffer()
	buf.B = append(buf.B[:0], payload...)
	if full := c.put(inboundMessage{op: op, buf: buf, workers: workers}); full {
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

// nextMessage removes and returns the oldest message. Without a message it ends the reading
// and reports false.
func (c *Client) nextMessage() (in inboundMessage, ok bool) {
	c.mu.Lock()
	box := c.lazy.mailbox
	if box.head == len(box.messages) {
		c.endReadingUnlock(box)
		return inboundMessage{}, false
	}
	in = box.messages[box.head]
	box.handler = gid.Current()
	box.messages[box.head] = inboundMessage{}
	box.head++
	if in.buf != nil {
		box.bytes -= int64(len(in.buf.B))
		c.manager.weighInbound(-int64(len(in.buf.B)))
	}
	if box.head == len(box.messages) {
		box.messages, box.head = box.messages[:0], 0
	}
	resume := box.paused && box.halfFree(&c.manager.cfg)
	if resume {
		box.paused = false
	}
	c.mu.Unlock()
	if resume {
		c.conn.Resume()
	}
	return in, true
}

// endReadingUnlock ends the reading of the empty mailbox, and unlocks c.mu.
func (c *Client) endReadingUnlock(box *mailbox) {
	box.reading = false
	resume := box.closing
	box.closing = false
	fence := c.manager.Router.routes.HasModeOverrides() && !box.fenced
	switch {
	case box.fenced:
		box.refence = true
	case fence:
		box.fenced = true
	default:
		c.dropMailboxLocked()
	}
	c.mu.Unlock()
	if resume {
		c.conn.ResumeInOrder()
	}
	if fence {
		c.conn.Shard().Post((*fenceTask)(c))
	}
}

// moves reports whether the next message is for other workers than those that handle the
// client's messages now, and chooses these workers. No handler of the client runs.
func (c *Client) moves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.lazy.mailbox
	box.handler = 0
	if box.head == len(box.messages) {
		return false
	}
	workers := box.messages[box.head].workers
	if workers == nil || workers == box.workers {
		return false
	}
	box.workers, box.ticket = workers, 0
	return true
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

// fenceTask is posted when a worker has emptied the mailbox. It runs behind all tasks that
// the worker's handlers have posted.
type fenceTask Client

func (t *fenceTask) RunInLoop(*engine.Shard) {
	c := (*Client)(t)
	c.mu.Lock()
	box := c.lazy.mailbox
	again := box.refence && !box.reading
	box.fenced, box.refence = again, false
	if !again && !box.reading {
		c.dropMailboxLocked()
	}
	c.mu.Unlock()
	if again {
		c.conn.Shard().Post(t)
	}
}

// discardInbound drops the messages that wait after the workers have ended.
func (c *Client) discardInbound() {
	for {
		in, ok := c.nextMessage()
		if !ok {
			return
		}
		if in.buf == nil {
			c.deliver(in) // the end of the connection is still reported
			continue
		}
		c.dropMessage(in)
		c.manager.metrics.IncrementDroppedMessages()
	}
}

// inboundReader is the Client as a task of the workers.
type inboundReader Client

// Run handles messages of the client, and gives others their turn after maxRun of them.
// While the workers are closing, it handles all messages. A client that does not read its
// answers waits with its messages.
func (r *inboundReader) Run() {
	c := (*Client)(r)
	done := false
	defer func() { // if a handler has ended its goroutine
		if !done {
			r.OnSpace()
		}
	}()
	for n := 1; ; n++ {
		if c.moves() {
			done = true
			r.OnSpace()
			return
		}
		if c.conn.Open() && c.conn.Exceeded() {
			done = true
			c.conn.AwaitSpace(r)
			return
		}
		in, ok := c.nextMessage()
		if !ok {
			done = true
			return
		}
		c.deliver(in)
		if n%maxRun == 0 && c.lineUp() {
			done = true
			return
		}
	}
}

// OnSpace lets the client wait for a worker again.
func (r *inboundReader) OnSpace() {
	if c := (*Client)(r); !c.lineUp() {
		c.discardInbound()
	}
}

// lineUp lets the client wait for a worker. It returns false once the workers are closed. No
// handler of the client runs.
func (c *Client) lineUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.lazy.mailbox
	box.handler = 0
	return c.lineUpLocked(box)
}

// lineUpLocked is lineUp for a caller that holds c.mu.
func (c *Client) lineUpLocked(box *mailbox) (ok bool) {
	box.ticket, ok = box.workers.SubmitTicket((*inboundReader)(c))
	return ok
}

// handling reports whether the caller is the handler of one of the client's
// messages, on a worker.
func (c *Client) handling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lazy != nil && c.lazy.mailbox != nil && c.lazy.mailbox.handler == gid.Current()
}

// deliver handles one message, or the end of the connection.
func (c *Client) deliver(in inboundMessage) {
	if in.buf == nil {
		c.manager.clients.finished(c)
		return
	}
	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	if shut {
		c.dropMessage(in)
		return
	}
	defer pool.PutBuffer(in.buf)
	c.handle(in.op, in.buf.B)
}
