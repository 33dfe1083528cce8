package engine

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

// noteSpace notifies the waiters that c's queue has become shorter or c has
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
