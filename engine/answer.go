package engine

import (
	"context"

	"github.com/qi-realtime/ws/codec"
)

// SendAnswer sends the answer to a message of the connection itself, one for each
// message at most. It is encoded from payload, which is borrowed. No policy drops
// it, and it may exceed the queue's bounds: while Exceeded, the owner handles no
// further message of the connection, or the connection is paused. So a peer that
// does not read its answers waits with its requests, and the queue is never more
// than one message's answers beyond its bounds.
//
// Off the event loops it may wait for a place in the ring of the connection's loop.
// It returns ErrClosed once the connection is closing. Safe for concurrent use.
func (c *Conn) SendAnswer(op codec.Opcode, payload []byte) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	onLoop := s.onLoop()
	if onLoop && s.replyInLoop(c, op, payload, true) {
		return nil
	}
	f := NewFrame(op, payload, Handling{})
	f.answer = true
	f = s.variant(c, f)
	if onLoop && s.caughtUpInLoop() {
		if !s.enqueueInLoop(c, f) {
			return ErrClosed // nothing else refuses an answer
		}
		return nil
	}
	c.forceReserve(f)
	return c.sendReserved(context.Background(), f)
}

// reserveReply counts f beyond the bounds of c's queue if it may exceed them: an
// answer, or one message that the handler of the message being read sends under
// DropNewest. The connection is paused behind that message.
func (s *Shard) reserveReply(c *Conn, f *Frame) bool {
	isReply := s.reading == c && f.lane == LaneNormal && s.policyOf(f) == DropNewest
	if !f.answer && (!isReply || c.exceeded()) {
		return false
	}
	c.forceReserve(f)
	return true
}
