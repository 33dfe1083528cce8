package engine

import (
	"bytes"

	"github.com/qi-realtime/ws/codec"
)

// keep is the protection of a queued frame from the policies.
type keep uint8

const (
	keepNone    keep = iota
	keepHistory      // under CatchUp: not dropped while it waits, because nobody would send it again
	keepReply        // of SendReply: the same, and the answer to a handled message may exceed the bounds
	keepAnswer       // of SendAnswer: always has space
)

// SendReply is SendPayload in LaneNormal for the answer to a request: no policy
// drops it while it waits.
//
// Under any method, one message that a handler sends to the connection of its
// own message may exceed the queue's bounds. While Exceeded, the owner handles
// no further message of the connection, or the connection is paused. So a
// handler that answers each message with one loses no answer, and a peer that
// does not read its answers waits with its requests.
func (c *Conn) SendReply(op codec.Opcode, payload []byte) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	if c.shard.onLoop() && c.shard.replyInLoop(c, op, payload, keepReply) {
		return nil
	}
	f := NewFrame(op, payload, Handling{})
	f.keep = keepReply
	return c.Send(f)
}

// SendAnswer is SendReply for an answer that must not fail. It always has
// space, so the caller must send at most one for each message. It never waits:
// while the ring of the connection's loop is full, the answer is kept beside
// it, because a worker that waits with each answer would hold up the other
// messages of its client while those of other clients pass. While Exceeded, the
// owner handles no further message, which bounds the answers. It returns
// ErrClosed once the connection is closing. Safe for concurrent use.
func (c *Conn) SendAnswer(op codec.Opcode, payload []byte) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	onLoop := s.onLoop()
	if onLoop && s.replyInLoop(c, op, payload, keepAnswer) {
		return nil
	}
	f := NewFrame(op, payload, Handling{})
	f.keep = keepAnswer
	f = c.variant(f)
	if onLoop && s.caughtUpInLoop() {
		if !c.enqueueInLoop(f) {
			return ErrClosed // nothing else refuses an answer
		}
		return nil
	}
	c.forceReserve(f)
	if err := c.confirm(f); err != nil {
		return err
	}
	s.Post(&sendTask{conn: c, frame: f, reserved: true})
	return nil
}

// AnswerInLoop is SendAnswer on the loop of c, ahead of all that comes after it.
func (c *Conn) AnswerInLoop(op codec.Opcode, payload []byte) error {
	f := NewFrame(op, payload, Handling{})
	f.keep = keepAnswer
	if !c.DeliverInLoop(f) {
		return ErrClosed
	}
	return nil
}

// maxReplyBytes is the size at which a batch of replies is written before the
// end of its read.
const maxReplyBytes = 64 << 10

// replyBatch collects the messages that an inline handler sends on the
// connection whose read is in progress. They leave in one write at the read's
// end.
type replyBatch struct {
	conn  *Conn // nil outside a read
	buf   []byte
	keep  keep // of its data frames
	tally      // of its data frames, whose space in LaneNormal is reserved
}

// replyInLoop appends a reply to the batch if c is the connection being read,
// no frame is queued before it, and nothing that this loop has published is in
// transit.
func (s *Shard) replyInLoop(c *Conn, op codec.Opcode, payload []byte, k keep) bool {
	if s.reply.conn != c || c.state.Load() != stateOpen || !s.caughtUpInLoop() {
		return false
	}
	if s.reply.keep != k {
		s.writeReply()
		s.reply.keep = k
	}
	if c.out != nil {
		return false
	}
	if c.deflate() != nil && c.deflate().ServerTakeover {
		return false // the queue compresses it behind the frames before it
	}
	deflated := c.deflateReply(payload)
	if deflated != nil {
		payload = deflated
	}
	n := codec.HeaderSize(len(payload)) + len(payload)
	if !c.reserveBytes(LaneNormal, n) {
		return false // the batch is written first
	}
	if deflated != nil {
		s.reply.buf = codec.AppendDeflatedFrame(s.reply.buf, op, payload)
	} else {
		s.reply.buf = codec.AppendFrame(s.reply.buf, op, payload)
	}
	s.reply.frames++
	s.reply.bytes += n
	if len(s.reply.buf) >= maxReplyBytes {
		s.writeReply()
	}
	return true
}

// beginReply opens the batch for c.
func (s *Shard) beginReply(c *Conn) { s.reply.conn = c }

// endReply writes the batch and closes it.
func (s *Shard) endReply() {
	if s.reply.conn != nil {
		s.writeReply()
		s.reply.conn = nil
	}
}

// endReplyOf is endReply if the batch is c's.
func (s *Shard) endReplyOf(c *Conn) {
	if s.reply.conn == c {
		s.endReply()
	}
}

// writeReply writes the batch, and queues the bytes that the socket does not
// take.
func (s *Shard) writeReply() {
	c, buf, replies := s.reply.conn, s.reply.buf, s.reply.tally
	s.reply.tally = tally{}
	if cap(s.reply.buf) > 4*maxReplyBytes {
		s.reply.buf = nil
	} else {
		s.reply.buf = s.reply.buf[:0]
	}
	if len(buf) == 0 {
		return
	}
	if c.is(pendingClose) || c.state.Load() == stateClosed {
		c.dropReplies(replies)
		return
	}
	n, full, err := c.transport().writeNow(c, buf)
	if err != nil {
		c.dropReplies(replies)
		s.closeLater(c, err)
		s.eng.observer.OnWriteError()
		return
	}
	if full {
		queued := s.queueRest(c, buf, n)
		replies.frames -= queued.frames
		replies.bytes -= queued.bytes
		c.block()
	}
	c.sent([dataLanes]tally{LaneNormal: replies})
}

// dropReplies drops the batch of a connection that has failed.
func (c *Conn) dropReplies(replies tally) {
	c.unreserve(LaneNormal, replies.frames, replies.bytes)
	for range replies.frames {
		c.shard.drop(nil, DropClosed)
	}
}

// queueRest queues and counts the frames of buf that end beyond the n sent
// bytes. The first may be partly sent.
func (s *Shard) queueRest(c *Conn, buf []byte, n int) (queued tally) {
	c.out = s.free.get()
	for len(buf) > 0 {
		size := codec.FrameSize(buf)
		if n >= size {
			buf, n = buf[size:], n-size
			continue
		}
		f := &Frame{data: bytes.Clone(buf[:size]), keep: s.reply.keep}
		if codec.Opcode(f.data[0] & 0xf).IsControl() {
			f.lane, f.exempt = LaneControl, true
		}
		if n > 0 {
			c.out.begin(f, n)
		} else {
			c.out.push(f)
		}
		queued.add(f)
		buf, n = buf[size:], 0
	}
	return queued
}

// reserveReply counts f against the bounds of c's queue, and exceeds them, if f
// may do so. It runs on the loop of c.
func (c *Conn) reserveReply(f *Frame) bool {
	s := c.shard
	switch {
	case f.keep == keepAnswer:
	case f.lane != LaneNormal || c.exceeded():
		return false
	case s.policyOf(f) == DropNewest && s.reading != c:
		return false
	case s.policyOf(f) != DropNewest && f.keep < keepReply:
		return false
	}
	c.forceReserve(f)
	return true
}

// reserveHandled is reserveReply for a sender off the loops under DropNewest.
func (c *Conn) reserveHandled(f *Frame) bool {
	if f.lane != LaneNormal || c.exceeded() || !c.owner().Handling() {
		return false
	}
	c.forceReserve(f)
	return true
}
