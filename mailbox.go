package ws

import (
	"errors"
	"sync"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/pool"
)

// mailbox holds a client's messages that wait for a worker. It exists only
// while there are some, and, where a manager has both inline and pooled
// handlers, until what the last of them has sent is past the event loop's
// inbox: an inline handler would overtake it. The client's mutex guards it.
type mailbox struct {
	letters []letter
	head    int
	bytes   int64
	reading bool // a worker is at it, or the client is in line for one
	fenced  bool // a fenceTask is in the inbox
	refence bool // more was read since it was posted
}

// letter is one message, or, with buf nil, the end of the connection.
type letter struct {
	op     codec.Opcode
	buf    *pool.Buffer
	closed *CloseError
}

// add puts l behind the others. When the slice is full and half of it or more has
// been read, what waits moves to its front: a client that always has something
// waiting would make it grow for as long as it is connected.
func (b *mailbox) add(l letter) {
	if len(b.letters) == cap(b.letters) && b.head > 0 && b.head >= len(b.letters)/2 {
		n := copy(b.letters, b.letters[b.head:])
		clear(b.letters[n:])
		b.letters, b.head = b.letters[:n], 0
	}
	b.letters = append(b.letters, l)
}

// maxPooledLetters bounds the mailboxes that are kept for the next client.
const maxPooledLetters = 1024

var mailboxPool = sync.Pool{New: func() any { return new(mailbox) }}

// maxRun is how many messages of one client a worker handles before others get
// their turn.
const maxRun = 16

var errMailboxFull = errors.New("ws: client sends faster than its messages are handled")

// mail hands a copy of payload to the workers. A client whose mailbox is full
// is closed: gnet cannot stop reading from it.
func (c *Client) mail(op codec.Opcode, payload []byte) {
	buf := pool.GetBuffer()
	buf.B = append(buf.B[:0], payload...)
	if !c.post(letter{op: op, buf: buf}) {
		pool.PutBuffer(buf)
		c.CloseWithCode(ClosePolicyViolation, "too many messages in flight")
		c.manager.reportError(c, errMailboxFull)
	}
}

// post puts l into the mailbox, and the client in line for a worker if it is
// not there yet. It reports false if the mailbox is full.
func (c *Client) post(l letter) bool {
	cfg := &c.manager.cfg
	c.mu.Lock()
	x := c.needExtraLocked()
	if x.mailbox == nil {
		x.mailbox = mailboxPool.Get().(*mailbox)
	}
	box := x.mailbox
	if l.buf != nil {
		n := int64(len(l.buf.B))
		waiting := len(box.letters) - box.head
		if waiting >= cfg.MailboxSize || (waiting > 0 && box.bytes+n > cfg.MailboxBytes) {
			c.mu.Unlock()
			return false
		}
		box.bytes += n
	}
	box.add(l)
	submit := !box.reading
	box.reading = true
	c.mu.Unlock()
	if submit && !c.manager.workers.Submit((*mailReader)(c)) {
		c.discardMail()
	}
	return true
}

// mailLast posts the end of the connection behind the messages that wait. It
// reports false if none do.
func (c *Client) mailLast(closed *CloseError) bool {
	if !c.hasMail() {
		return false // and stays so: only the event loop, which runs this, posts
	}
	return c.post(letter{closed: closed})
}

// hasMail reports whether messages wait for a worker or are being handled.
func (c *Client) hasMail() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extra != nil && c.extra.mailbox != nil
}

// nextLetter takes the oldest letter. When there is none, the reading ends.
func (c *Client) nextLetter() (letter, bool) {
	c.mu.Lock()
	box := c.extra.mailbox
	if box.head == len(box.letters) {
		box.reading = false
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
		if fence {
			c.conn.Shard().Post((*fenceTask)(c))
		}
		return letter{}, false
	}
	defer c.mu.Unlock()
	l := box.letters[box.head]
	box.letters[box.head] = letter{}
	box.head++
	if l.buf != nil {
		box.bytes -= int64(len(l.buf.B))
	}
	if box.head == len(box.letters) {
		box.letters, box.head = box.letters[:0], 0
	}
	return l, true
}

// dropMailboxLocked gives the empty mailbox back.
func (c *Client) dropMailboxLocked() {
	box := c.extra.mailbox
	c.extra.mailbox = nil
	c.dropExtraLocked()
	if cap(box.letters) <= maxPooledLetters {
		*box = mailbox{letters: box.letters[:0]}
		mailboxPool.Put(box)
	}
}

// fenceTask is posted when a worker has read the mailbox to its end. When it
// runs, so has everything that the worker's handlers have posted.
type fenceTask Client

func (t *fenceTask) RunInLoop(*engine.Shard) {
	c := (*Client)(t)
	c.mu.Lock()
	box := c.extra.mailbox
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

// discardMail drops what waits after the workers have ended.
func (c *Client) discardMail() {
	for {
		l, ok := c.nextLetter()
		if !ok {
			return
		}
		if l.buf == nil {
			c.open(l) // the end of the connection is told all the same
			continue
		}
		pool.PutBuffer(l.buf)
		c.manager.metrics.IncrementDroppedMessages()
	}
}

// mailReader is the Client as a task of the workers.
type mailReader Client

// Run handles messages of the client, and lets others have their turn after
// maxRun of them. While the workers are closing, it goes on to the last.
func (r *mailReader) Run() {
	c := (*Client)(r)
	done := false
	defer func() { // in case that a handler ended its goroutine
		if !done && !c.manager.workers.Submit(r) {
			c.discardMail()
		}
	}()
	for n := 1; ; n++ {
		l, ok := c.nextLetter()
		if !ok {
			done = true
			return
		}
		c.open(l)
		if n%maxRun == 0 && c.manager.workers.Submit(r) {
			done = true
			return
		}
	}
}

// open acts on one letter.
func (c *Client) open(l letter) {
	if l.buf == nil {
		c.manager.EventBus.publish(EventClientDisconnected, c.ID, l.closed)
		return
	}
	defer pool.PutBuffer(l.buf)
	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	if !shut {
		c.handle(l.op, l.buf.B)
	}
}
