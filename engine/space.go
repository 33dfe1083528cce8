package engine

import (
	"context"
	"errors"

	"github.com/qi-realtime/ws/codec"
)

// SpaceWaiter wants to know that a connection's queue has space again.
type SpaceWaiter interface {
	// OnSpace runs once, on the connection's event loop or, when the engine has
	// stopped, on any goroutine. It must not block.
	OnSpace()
}

// spaceWait is one wait for space in a connection's queue. It is also the task
// that brings it to the loop, behind all that the waiter has sent: so the queue
// is judged by its own content and not by the messages on their way to it.
type spaceWait struct {
	conn   *Conn
	waiter SpaceWaiter
	lane   Lane
	frames uint64 // to be queued: 1, or 0 for a waiter that sends nothing by itself
	bytes  int
	brief  bool // the waiter gives up if the socket is full

	canceled bool // loop-confined; the waiter has given up
}

// Exceeded reports whether the queue is beyond its bounds, so that no answer fits
// any more; see SendAnswer. Safe for concurrent use.
func (c *Conn) Exceeded() bool { return c.exceeded() }

func (c *Conn) exceeded() bool {
	return c.shard.eng.bounds[LaneNormal].exceeded(c.queued[LaneNormal].Load())
}

// AwaitSpace calls w.OnSpace once the queue is within its bounds, or the
// connection has ended. It may wait for a place in the ring of the connection's
// loop. Safe for concurrent use.
func (c *Conn) AwaitSpace(w SpaceWaiter) {
	c.shard.Post(&spaceWait{conn: c, waiter: w})
}

// ready reports whether the wait is over.
func (w *spaceWait) ready() bool {
	c := w.conn
	if w.canceled || !c.takesDataInLoop() || (w.brief && c.is(blocked)) {
		return true
	}
	return !c.shard.eng.bounds[w.lane].exceeded(c.queued[w.lane].Load() + w.frames<<queuedShift + uint64(w.bytes))
}

// RunInLoop writes the queue first, which may be all that is needed.
func (w *spaceWait) RunInLoop(s *Shard) {
	c := w.conn
	if c.out != nil && c.state.Load() != stateClosed {
		s.flush(c)
	}
	if w.ready() {
		w.waiter.OnSpace()
		return
	}
	if s.spaceWaits == nil {
		s.spaceWaits = make(map[*Conn][]*spaceWait)
	}
	s.spaceWaits[c] = append(s.spaceWaits[c], w)
	c.set(awaited)
}

// AbandonTask implements Abandoner.
func (w *spaceWait) AbandonTask(*Shard) { w.waiter.OnSpace() }

// noteSpace tells those who wait that c's queue has become shorter, or that c has
// ended.
func (s *Shard) noteSpace(c *Conn) {
	if c.is(pausedByQueue) && !c.exceeded() {
		s.unpause(c, pausedByQueue)
	}
	if !c.is(awaited) {
		return
	}
	waits := s.spaceWaits[c]
	left := waits[:0]
	for _, w := range waits {
		if w.ready() {
			w.waiter.OnSpace()
		} else {
			left = append(left, w)
		}
	}
	clear(waits[len(left):])
	if len(left) == 0 {
		delete(s.spaceWaits, c)
		c.unset(awaited)
		return
	}
	s.spaceWaits[c] = left
}

// spaceSignal is a SpaceWaiter for a goroutine that waits.
type spaceSignal chan struct{}

// OnSpace implements SpaceWaiter.
func (s spaceSignal) OnSpace() { close(s) }

// await waits until w is ready, p ends, or the engine stops.
func (c *Conn) await(w *spaceWait, p patience) error {
	signal := make(spaceSignal)
	w.conn, w.waiter = c, signal
	p.stopped = c.shard.eng.stopped
	if err := c.shard.in.acquire(p); err != nil {
		return err
	}
	c.shard.put(w)
	err := p.wait(signal)
	if err != nil {
		c.shard.postUrgent((*spaceCancel)(w))
	}
	return err
}

// spaceCancel forgets a wait whose waiter has given up. A wait that is still on
// its way to the loop then finds nobody.
type spaceCancel spaceWait

func (t *spaceCancel) RunInLoop(s *Shard) {
	w := (*spaceWait)(t)
	w.canceled = true
	if c := w.conn; c.is(awaited) {
		s.noteSpace(c)
	}
}

// reserveWaiting is reserve for a sender that may wait: while the queue is at a
// bound only because the loop has not yet taken or written what was sent, it
// waits for the loop. It reports false if the socket is full.
func (c *Conn) reserveWaiting(f *Frame, p patience) bool {
	for !c.reserve(f) {
		if c.state.Load() != stateOpen || c.blockedNow() {
			return false
		}
		if c.await(&spaceWait{lane: f.lane, frames: 1, bytes: f.Len(), brief: true}, p) != nil {
			return false
		}
	}
	return true
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
