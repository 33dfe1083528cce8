package engine

import (
	"bytes"

	"github.com/qi-realtime/ws/codec"
)

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
	deflated := s.deflateReply(c, payload)
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
		s.dropReplies(c, replies)
		return
	}
	n, full, err := s.writeNow(c, buf)
	if err != nil {
		s.dropReplies(c, replies)
		s.closeLater(c, err)
		s.eng.handler.OnWriteError()
		return
	}
	if full {
		queued := s.queueRest(c, buf, n)
		replies.frames -= queued.frames
		replies.bytes -= queued.bytes
		s.block(c)
	}
	s.sent(c, [dataLanes]tally{LaneNormal: replies})
}

// dropReplies drops the batch of a connection that has failed.
func (s *Shard) dropReplies(c *Conn, replies tally) {
	c.unreserve(LaneNormal, replies.frames, replies.bytes)
	for range replies.frames {
		s.drop(nil, DropClosed)
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
