package engine

import (
	"context"
	"errors"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Send queues f. It returns ErrClosed once the connection is closing, and
// ErrQueueFull when its queue is at a bound and its socket is full. A sender that
// is only ahead of the connection's loop waits for the loop, for
// Config.PublishTimeout at most; on an event loop it does not wait, see
// postInLoop.
//
// Off the loop, only a plain frame under DropNewest is told at once that the
// queue is full: whether another one drops something is decided on the loop.
func (c *Conn) Send(f *Frame) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	f = s.variant(c, s.eng.Stamp(f))
	if s.onLoop() && s.caughtUpInLoop() {
		if !s.enqueueInLoop(c, f) {
			return ErrQueueFull
		}
		return nil
	}
	caller := s.eng.callersShard()
	if f.key != "" || s.policyOf(f) != DropNewest {
		return s.countRefusal(f, s.postWait(&sendTask{conn: c, frame: f}))
	}
	if !c.reserve(f) && (caller != nil || !c.reserveHandled(f)) {
		switch {
		case c.blockedNow() || (caller == nil && !c.reserveInTime(f)):
			return s.countRefusal(f, ErrQueueFull)
		case caller != nil:
			return s.countRefusal(f, caller.sendBeside(&sendTask{conn: c, frame: f}))
		}
	}
	t := &sendTask{conn: c, frame: f, reserved: true}
	if caller == s {
		s.Post(t) // behind what the loop itself has posted, a join for example; bounded by the reservation
		return nil
	}
	err := s.postWait(t)
	if err != nil {
		c.unreserve(f.lane, 1, f.Len())
	}
	return s.countRefusal(f, err)
}

// countRefusal counts f as dropped if err says that it was not posted, and returns
// err.
func (s *Shard) countRefusal(f *Frame, err error) error {
	switch {
	case errors.Is(err, ErrClosed):
		s.drop(f, DropClosed)
	case err != nil:
		s.drop(f, DropFull)
	}
	return err
}

// sendBeside posts t for a handler on the loop of s that is ahead of the loop of
// t's connection. That loop writes its queue before it decides whether the message
// fits, and the connection whose message is being handled waits for it.
func (s *Shard) sendBeside(t *sendTask) error {
	if !s.mayPostBeside(1) {
		return ErrQueueFull
	}
	s.postBeside(t.conn.shard, t)
	return nil
}

// reserveInTime is reserveWaiting for as long as a publisher waits.
func (c *Conn) reserveInTime(f *Frame) bool {
	timer := time.NewTimer(c.shard.eng.cfg.PublishTimeout)
	defer timer.Stop()
	return c.reserveWaiting(f, patience{timeout: timer.C})
}

// SendPayload encodes payload, which is borrowed, and queues it like Send. A
// reply that an inline handler sends on the connection whose message it
// handles is collected with the others of the same read and costs no
// allocation.
func (c *Conn) SendPayload(op codec.Opcode, payload []byte, lane Lane) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	if s := c.shard; s.onLoop() && s.replyInLoop(c, op, payload, keepNone) {
		return nil
	}
	return c.Send(NewFrame(op, payload, Handling{Lane: lane}))
}

// sendTask carries a frame to the loop of its connection.
type sendTask struct {
	conn     *Conn
	frame    *Frame
	reserved bool // its room in the queue
}

func (t *sendTask) RunInLoop(s *Shard) {
	s.NoteOfferInLoop(t.frame)
	switch {
	case !t.reserved:
		s.enqueueInLoop(t.conn, t.frame)
	case t.conn.takesDataInLoop():
		s.pushInLoop(t.conn, t.frame)
	default:
		s.lost(t.conn, t.frame, DropClosed)
	}
}

// AbandonTask counts the message that will not be sent any more.
func (t *sendTask) AbandonTask(s *Shard) {
	if t.reserved {
		t.conn.unreserve(t.frame.lane, 1, t.frame.Len())
	}
	s.drop(t.frame, DropClosed)
}

// SendContext is Send for a sender that waits while the queue is at a bound,
// whatever the policy, until ctx ends. It returns the context's error, or
// ErrClosed if the connection ends first. On an event loop it does not wait and
// returns ErrQueueFull. Safe for concurrent use.
func (c *Conn) SendContext(ctx context.Context, f *Frame) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	f = s.variant(c, s.eng.Stamp(f))
	wait := !s.eng.onLoop()
	for !c.reserve(f) {
		if !wait {
			s.drop(f, DropFull)
			return ErrQueueFull
		}
		if err := c.await(&spaceWait{lane: f.lane, frames: 1, bytes: f.Len()}, patience{ctx: ctx}); err != nil {
			return sendError(err)
		}
		if c.state.Load() != stateOpen {
			return ErrClosed
		}
	}
	return c.sendReserved(ctx, f)
}

// sendReserved posts f, whose place in the queue is reserved.
func (c *Conn) sendReserved(ctx context.Context, f *Frame) error {
	t := &sendTask{conn: c, frame: f, reserved: true}
	if c.shard.eng.onLoop() {
		c.shard.Post(t)
		return nil
	}
	if err := c.shard.in.acquire(patience{ctx: ctx, stopped: c.shard.eng.stopped}); err != nil {
		c.unreserve(f.lane, 1, f.Len())
		return sendError(err)
	}
	c.shard.put(t)
	return nil
}

// sendError is the error of a sender whose wait has ended.
func sendError(err error) error {
	if errors.Is(err, ErrStopped) {
		return ErrClosed
	}
	return err
}
