package engine

import (
	"context"
	"errors"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// Send queues f. It returns ErrClosed once the connection is closing, and
// ErrQueueFull if the connection is blocked and its queue is at a bound. A
// sender that is only ahead of the connection's loop waits for the loop, at
// most for Config.BroadcastTimeout; on an event loop it does not wait, see
// postInLoop.
//
// Off the loop, Send reports a full queue only for a plain frame under
// DropNewest; for other frames the loop decides later whether to drop.
func (c *Conn) Send(f *Frame) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	f = c.variant(s.eng.Stamp(f))
	if s.onLoop() && s.caughtUpInLoop() {
		if !c.enqueueInLoop(f) {
			return ErrQueueFull
		}
		return nil
	}
	if f.key != "" || s.policyOf(f) != DropNewest {
		return s.countRefusal(f, s.postWait(&sendTask{conn: c, frame: f}))
	}
	return c.sendToLoop(f)
}

// sendToLoop reserves space for a plain frame under DropNewest, and posts it.
func (c *Conn) sendToLoop(f *Frame) error {
	s := c.shard
	caller := s.eng.callersShard()
	if !c.reserve(f) && (caller != nil || !c.reserveHandled(f)) {
		switch {
		case c.blockedNow() || (caller == nil && !c.reserveInTime(f)):
			return s.countRefusal(f, ErrQueueFull)
		case caller != nil:
			return s.countRefusal(f, caller.sendBeside(&sendTask{conn: c, frame: f}))
		}
	}
	if err := c.confirm(f); err != nil {
		return s.countRefusal(f, err)
	}
	t := &sendTask{conn: c, frame: f, reserved: true}
	if caller == s {
		s.Post(t) // behind the loop's own posts, such as a join; bounded by the reservation
		return nil
	}
	err := s.postWait(t)
	if err != nil {
		c.unreserve(f.lane, 1, f.Len())
	}
	return s.countRefusal(f, err)
}

// confirm gives up the space that was reserved for f if c is closing. Otherwise
// f is accepted: a connection that retires waits until it is posted; see
// awaitTransit.
func (c *Conn) confirm(f *Frame) error {
	if c.state.Load() == stateOpen {
		return nil
	}
	c.unreserve(f.lane, 1, f.Len())
	return ErrClosed
}

// countRefusal counts f as dropped if err means that it was not posted, and
// returns err.
func (s *Shard) countRefusal(f *Frame, err error) error {
	switch {
	case errors.Is(err, ErrClosed):
		s.drop(f, DropClosed)
	case err != nil:
		s.drop(f, DropFull)
	}
	return err
}

// sendBeside posts t for a handler on the loop of s that is ahead of the loop
// of t's connection. The connection of the handled message waits while that
// loop writes its queue and decides whether the message fits.
func (s *Shard) sendBeside(t *sendTask) error {
	if !s.mayPostBeside(1) {
		return ErrQueueFull
	}
	s.postBeside(t.conn.shard, t)
	return nil
}

// reserveInTime is reserveWaiting for at most Config.BroadcastTimeout.
func (c *Conn) reserveInTime(f *Frame) bool {
	timer := time.NewTimer(c.shard.eng.cfg.BroadcastTimeout)
	defer timer.Stop()
	return c.reserveWaiting(f, patience{timeout: timer.C})
}

// SendPayload encodes payload, which is borrowed, and queues it like Send. A
// reply of an inline handler to the connection of its message joins the other
// replies of the same read and costs no allocation.
func (c *Conn) SendPayload(op codec.Opcode, payload []byte, lane Lane) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	if s := c.shard; s.onLoop() && s.replyInLoop(c, op, payload, keepNone) {
		return nil
	}
	return c.Send(NewFrame(op, payload, Handling{Lane: lane}))
}

// sendTask brings a frame to the loop of its connection.
type sendTask struct {
	conn     *Conn
	frame    *Frame
	reserved bool // space for frame is reserved in the queue
}

func (t *sendTask) RunInLoop(s *Shard) {
	s.NoteOfferInLoop(t.frame)
	switch {
	case !t.reserved:
		t.conn.enqueueInLoop(t.frame)
	case t.conn.takesDataInLoop():
		t.conn.pushInLoop(t.frame)
	default:
		t.conn.lost(t.frame, DropClosed)
	}
}

// AbandonTask counts the message as dropped.
func (t *sendTask) AbandonTask(s *Shard) {
	if t.reserved {
		t.conn.unreserve(t.frame.lane, 1, t.frame.Len())
	}
	s.drop(t.frame, DropClosed)
}

// SendContext is Send for a sender that waits while the queue is at a bound,
// under any policy, until ctx ends. It returns the context's error, or
// ErrClosed if the connection ends first. On an event loop it does not wait and
// returns ErrQueueFull. Safe for concurrent use.
func (c *Conn) SendContext(ctx context.Context, f *Frame) error {
	if c.state.Load() != stateOpen {
		return ErrClosed
	}
	s := c.shard
	f = c.variant(s.eng.Stamp(f))
	wait := !s.eng.OnLoop()
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
	if err := c.confirm(f); err != nil {
		return err
	}
	return c.sendReserved(ctx, f)
}

// sendReserved posts f, whose space in the queue is reserved.
func (c *Conn) sendReserved(ctx context.Context, f *Frame) error {
	t := &sendTask{conn: c, frame: f, reserved: true}
	if c.shard.eng.OnLoop() {
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

// sendError returns the error for a sender whose wait has ended.
func sendError(err error) error {
	if errors.Is(err, ErrStopped) {
		return ErrClosed
	}
	return err
}

// SpaceWaiter waits for space in a connection's queue.
type SpaceWaiter interface {
	// OnSpace runs once, on the connection's event loop or, when the engine has
	// stopped, on any goroutine. It must not block.
	OnSpace()
}

// spaceWait is one wait for space in a connection's queue. It is also the task
// that brings the wait to the loop, behind everything that the waiter has sent,
// so the queue is judged by its content and not by messages in transit.
type spaceWait struct {
	conn   *Conn
	waiter SpaceWaiter
	lane   Lane
	frames uint64 // to be queued: 1, or 0 for a waiter that queues nothing
	bytes  int
	brief  bool // the waiter gives up if the socket is full

	canceled bool // loop-confined; the waiter has given up
}

// AwaitSpace calls w.OnSpace when the queue is within its bounds or the
// connection has ended. It may wait for space in the ring of the connection's
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

// RunInLoop first writes the queue, which may be enough.
func (w *spaceWait) RunInLoop(s *Shard) {
	c := w.conn
	if c.out != nil && c.state.Load() != stateClosed {
		c.flush()
	}
	if w.ready() {
		w.waiter.OnSpace()
		return
	}
	s.addSpaceWait(w)
}

func (s *Shard) addSpaceWait(w *spaceWait) {
	if s.spaceWaits == nil {
		s.spaceWaits = make(map[*Conn][]*spaceWait)
	}
	s.spaceWaits[w.conn] = append(s.spaceWaits[w.conn], w)
	w.conn.set(awaited)
}

// markForStored returns the mark below which c takes frames under CatchUp.
func (c *Conn) markForStored() *[dataLanes]bounds {
	if c.is(blocked) {
		return &c.shard.eng.storedMark
	}
	return &c.shard.eng.lowMark
}

// RunWhenLowInLoop runs t, which queues stored frames for c, on the loop of c when the queue of c
// is below the low-water mark, or below storedFrames if c is blocked, or c takes no more data. t then
// runs when it is its turn among the replays; see runReplays. A wait costs the queue 16 bytes.
func (c *Conn) RunWhenLowInLoop(t Task) {
	if c.lowInLoop() {
		c.shard.replays = append(c.shard.replays, t)
		c.shard.wakeUp()
		return
	}
	c.out.low = append(c.out.low, t)
}

// lowInLoop reports whether a wait of RunWhenLowInLoop is over. A connection without a queue waits for
// nothing, because frames in transit to its loop may never come.
func (c *Conn) lowInLoop() bool {
	return !c.takesDataInLoop() || c.out == nil || !c.above(c.markForStored())
}

// TakesDataInLoop reports whether messages may still be queued.
func (c *Conn) TakesDataInLoop() bool { return c.takesDataInLoop() }

// endLowWaits makes the tasks of RunWhenLowInLoop replays of the loop. c has a queue.
func (c *Conn) endLowWaits() {
	if s, q := c.shard, c.out; len(q.low) > 0 {
		s.replays = append(s.replays, q.low...)
		q.low = nil
		s.wakeUp()
	}
}

// AbandonTask implements Abandoner.
func (w *spaceWait) AbandonTask(*Shard) { w.waiter.OnSpace() }

// noteSpace notifies the waiters that c's queue has become shorter or c has
// ended.
func (s *Shard) noteSpace(c *Conn) {
	if c.out != nil && c.lowInLoop() {
		c.endLowWaits()
	}
	if c.is(pausedByQueue) && !c.exceeded() {
		c.unpause(pausedByQueue)
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

// spaceSignal is a SpaceWaiter for a waiting goroutine.
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

// spaceCancel cancels a wait whose waiter has given up. If the wait is still on
// its way to the loop, it ends there.
type spaceCancel spaceWait

func (t *spaceCancel) RunInLoop(s *Shard) {
	w := (*spaceWait)(t)
	w.canceled = true
	if c := w.conn; c.is(awaited) {
		s.noteSpace(c)
	}
}

// reserveWaiting is reserve for a sender that may wait. While the queue is at a
// bound only because the loop has not taken or written earlier messages, it
// waits for the loop. It returns false if the socket is full.
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
