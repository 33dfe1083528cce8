package engine

import "time"

const (
	// turnTime is how long a loop works on its inbox before it looks at its
	// connections again. gnet accepts one connection each time it looks, so this
	// also bounds how fast a reconnect storm is taken in while a publisher
	// runs at full speed: with 5 ms it was 270 connections/s, with 1 ms 410, at
	// the same rate of deliveries.
	turnTime = time.Millisecond
	// maxTurnTime bounds the turn that follows a long round of reads.
	maxTurnTime = 20 * time.Millisecond

	// clockStep is the work between two looks at the clock, in bytes written. On
	// loopback that takes about 30 µs.
	clockStep = 64 << 10
	// deliveryWork and writeWork are the work of queueing one frame and of one
	// system call, without its bytes. A byte that is compressed for one connection
	// alone counts deflateWork times.
	deliveryWork = 256
	writeWork    = 4 << 10
	deflateWork  = 16

	// maxFlushBytes is about how much a turn writes to one connection before it
	// writes to the next that waits.
	maxFlushBytes = 256 << 10
	// maxCallbackFlush is how many connections a callback flushes at its end, and
	// maxCallbackWork how much work that may be; more is left to a turn.
	maxCallbackFlush = 32
	maxCallbackWork  = 512 << 10
)

// turnClock says when a turn is to end. Reading the time costs as much as queueing
// a frame, so it is read once for each clockStep of work.
//
// Loop-confined: use only on the event loop that owns the connections.
type turnClock struct {
	began   time.Time // when the turn did
	end     time.Time // of the turn
	work    int       // since the last look at the clock; beyond clockStep for ever once the end has come
	over    bool      // the end has come
	yielded time.Time // when the last turn was cut short; zero if it was not
}

// begin starts a turn. The loop has served its connections since the last turn, if
// that was cut short. A turn may take as long as that round of reads has taken: so
// fan-out gets half of a loop that many connections send to.
func (t *turnClock) begin() {
	now := time.Now()
	length := turnTime
	if !t.yielded.IsZero() {
		length = min(max(turnTime, now.Sub(t.yielded)), maxTurnTime)
	}
	*t = turnClock{began: now, end: now.Add(length)}
}

// outOfTime reports whether the turn is to end.
func (t *turnClock) outOfTime() bool { return t.work >= clockStep && t.look() }

// look is outOfTime, whatever work was done.
func (t *turnClock) look() bool {
	if t.over {
		return true
	}
	t.work = 0
	if t.over = time.Now().After(t.end); t.over {
		t.work = clockStep
	}
	return t.over
}

// cutShort ends a turn with work left.
func (s *Shard) cutShort() {
	s.stats.yields.add(1)
	s.reap()
	s.clock.yielded = time.Now()
	s.yield()
}

// OutOfTimeInLoop reports whether the running turn has used up its time. A task
// that has more to do then calls SuspendInLoop and returns.
func (s *Shard) OutOfTimeInLoop() bool { return s.clock.outOfTime() }

// NoteWorkInLoop notes that the running task has done work that takes as long as
// writing n bytes.
func (s *Shard) NoteWorkInLoop(n int) { s.clock.work += n }

// NoteOfferInLoop notes that the running task queues f on connections, on each of
// them once. It is called once, not in each turn of a task that is suspended.
func (s *Shard) NoteOfferInLoop(f *Frame) { s.offer = max(s.offer, f.Len()) }

// NoteDeliveryInLoop notes the work of one DeliverInLoop, and reports like
// OutOfTimeInLoop.
func (s *Shard) NoteDeliveryInLoop() (outOfTime bool) {
	s.clock.work += deliveryWork
	return s.clock.outOfTime()
}

// SuspendInLoop puts off the rest of the running task: t runs in its place, in the
// next turn. The tasks behind it wait. It is abandoned like any task if the loop
// ends before.
func (s *Shard) SuspendInLoop(t Task) { s.rest = t }

// resume goes on with the task that was suspended, and reports whether there was
// one.
func (s *Shard) resume() bool {
	t := s.rest
	if t == nil {
		return false
	}
	s.rest = nil
	s.runTask(t)
	return true
}

// abandonRest abandons the task that was suspended. The loop has ended.
func (s *Shard) abandonRest() {
	if a, ok := s.rest.(Abandoner); ok {
		abandon(a, s)
	}
	s.rest = nil
}

// flushDirty is the second pass of the fan-out: one writev for each connection
// that has something pending. It returns false if time ran out.
func (s *Shard) flushDirty() bool {
	for !s.dirty.empty() {
		s.flushSome(s.dirty.pop(), maxFlushBytes)
		if s.clock.outOfTime() {
			return s.dirty.empty()
		}
	}
	return true
}

// flushAtEnd writes at the end of a callback what it has queued, and reports whether that
// is all. A list that a turn left behind is that turn's to go on with.
func (s *Shard) flushAtEnd() bool {
	if s.dirty.len() <= maxCallbackFlush {
		for s.clock.work = 0; !s.dirty.empty() && s.clock.work < maxCallbackWork; {
			s.flushSome(s.dirty.pop(), maxFlushBytes)
		}
	}
	return s.dirty.empty()
}
