package engine

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

// noteSpace notifies the waiters that c's queue has become shorter, or that c has
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
