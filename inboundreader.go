package ws

import (
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/gid"
	"github.com/qi-realtime/ws/pool"
)

// maxRun is the number of messages of one client that a worker handles before others get
// their turn.
const maxRun = 16

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

// deliver handles one message, or the end of the connection.
func (c *Client) deliver(in inboundMessage) {
	if in.buf == nil {
		c.manager.clients.finished(c)
		return
	}
	if c.isShut() {
		c.dropMessage(in)
		return
	}
	defer pool.PutBuffer(in.buf)
	sample := in.sample
	if sample.Taken() {
		sample = c.conn.Shard().NoteMailboxWait(sample)
	}
	c.handleTimed(in.op, in.buf.B, sample)
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

// handling reports whether the caller is the handler of one of the client's
// messages, on a worker.
func (c *Client) handling() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lazy != nil && c.lazy.mailbox != nil && c.lazy.mailbox.handler == gid.Current()
}
