package engine

import (
	"errors"

	"github.com/qi-realtime/ws/codec"
)

// keep is the protection of a queued frame from the policies.
type keep uint8

const (
	keepNone   keep = iota
	keepReply       // of SendReply: not dropped while it waits
	keepAnswer      // of SendAnswer: also always has space
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
// space, so the caller must send at most one for each message. Off the event
// loops it waits for space in the ring of the connection's loop for at most
// Config.BroadcastTimeout; after that the answer is kept beside the ring. It
// returns ErrClosed once the connection is closing. Safe for concurrent use.
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
	f = s.variant(c, f)
	if onLoop && s.caughtUpInLoop() {
		if !s.enqueueInLoop(c, f) {
			return ErrClosed // nothing else refuses an answer
		}
		return nil
	}
	c.forceReserve(f)
	t := &sendTask{conn: c, frame: f, reserved: true}
	err := ErrQueueFull
	if !s.eng.onLoop() {
		err = s.postWait(t)
	}
	switch {
	case errors.Is(err, ErrQueueFull):
		s.Post(t)
	case err != nil:
		c.unreserve(f.lane, 1, f.Len())
		return err
	}
	return nil
}

// reserveReply counts f against the bounds of c's queue, and exceeds them, if f
// may do so. It runs on the loop of c.
func (s *Shard) reserveReply(c *Conn, f *Frame) bool {
	switch {
	case f.keep == keepAnswer:
	case f.lane != LaneNormal || c.exceeded():
		return false
	case s.policyOf(f) == DropNewest && s.reading != c:
		return false
	case s.policyOf(f) != DropNewest && f.keep == keepNone:
		return false
	}
	c.forceReserve(f)
	return true
}

// reserveHandled is reserveReply for a sender off the loops under DropNewest.
func (c *Conn) reserveHandled(f *Frame) bool {
	if f.lane != LaneNormal || c.exceeded() || !c.owner.Handling() {
		return false
	}
	c.forceReserve(f)
	return true
}
