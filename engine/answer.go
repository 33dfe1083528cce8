package engine

import (
	"context"

	"github.com/qi-realtime/ws/codec"
)

// SendAnswer sends the answer to a message of the connection itself. It is
// encoded from payload, which is borrowed. No policy drops it, and it may exceed
// the queue's bounds, by one answer at a time: the owner hands no further message
// to a handler while Exceeded, or the connection is paused, so a peer that does
// not read its answers waits with its requests.
//
// While the queue is beyond its bounds it waits for space; on an event loop it
// closes the connection with 1013 instead, and returns ErrQueueFull. It returns
// ErrClosed once the connection is closing. Safe for concurrent use.
func (c *Conn) SendAnswer(op codec.Opcode, payload []byte) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	if s.onLoop() && s.replyInLoop(c, op, payload, true) {
		return nil
	}
	f := NewFrame(op, payload, Handling{})
	f.answer = true
	f = s.variant(c, f)
	caller := s.eng.callersShard()
	switch {
	case caller == s && s.caughtUpInLoop():
		if s.enqueueInLoop(c, f) {
			return nil
		}
		return c.failAnswer()
	case caller != nil:
		if !c.reserve(f) && !c.reserveAnswer(f) {
			return c.failAnswer()
		}
		return c.sendReserved(context.Background(), f)
	}
	for !c.reserve(f) && !c.reserveAnswer(f) {
		if err := c.await(&spaceWait{}, patience{}); err != nil {
			return sendError(err)
		}
		if c.state.Load() != stateOpen {
			return ErrClosed
		}
	}
	return c.sendReserved(context.Background(), f)
}

// failAnswer closes a connection whose peer cannot be answered: it must not wait
// for an answer that never comes.
func (c *Conn) failAnswer() error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	end := slowEnd()
	c.Close(end.Code, end.Reason)
	return ErrQueueFull
}

// isReply reports whether f may exceed the bounds of c's queue: it is an answer, or
// the handler of the message that is being read sends it under DropNewest. The
// connection is paused behind that message.
func (s *Shard) isReply(c *Conn, f *Frame) bool {
	return f.answer || (s.reading == c && f.lane == LaneNormal && s.policyOf(f) == DropNewest)
}
