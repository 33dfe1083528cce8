package engine

import "time"

const (
	// turnTime is the time that a loop works on its inbox before it looks at
	// its connections again. gnet accepts one connection at each look, so this
	// also bounds the rate of a reconnect storm while a publisher runs at full
	// speed: with 5 ms it was 270 connections/s, with 1 ms 410, at the same
	// rate of deliveries.
	turnTime = time.Millisecond
	// maxTurnTime bounds the turn that follows a long round of reads.
	maxTurnTime = 20 * time.Millisecond

	// clockStep is the work between two looks at the clock, in written bytes.
	// On loopback it takes about 30 µs.
	clockStep = 64 << 10
	// deliveryWork and writeWork are the work of queueing one frame and of one
	// system call, without its bytes. A byte that is compressed for one
	// connection alone counts deflateWork times.
	deliveryWork = 256
	writeWork    = 4 << 10
	deflateWork  = 16

	// maxFlushBytes is the approximate number of bytes that a turn writes to
	// one connection before it writes to the next waiting one.
	maxFlushBytes = 256 << 10
	// maxCallbackFlush and maxCallbackWork bound the connections that a
	// callback flushes at its end, and the work of it; a turn does the rest.
	maxCallbackFlush = 32
	maxCallbackWork  = 512 << 10
)

// turnClock decides when a turn must end. Reading the time costs as much as
// queueing a frame, so it is read once for each clockStep of work.
//
// Loop-confined: use only on the event loop that owns the connections.
type turnClock struct {
	began   time.Time // start of the turn
	end     time.Time // of the turn
	work    int       // since the last look at the clock; stays beyond clockStep once the end has come
	over    bool      // the end has come
	yielded time.Time // time at which the last turn was cut short; zero if it was not
}

// begin starts a turn. If the last turn was cut short, the loop has served its
// connections since. A turn may take as long as that round of reads, so fan-out
// gets half of a loop to which many connections send.
func (t *turnClock) begin() {
	now := time.Now()
	length := turnTime
	if !t.yielded.IsZero() {
		length = min(max(turnTime, now.Sub(t.yielded)), maxTurnTime)
	}
	*t = turnClock{began: now, end: now.Add(length)}
}

// outOfTime reports whether the turn must end.
func (t *turnClock) outOfTime() bool { return t.work >= clockStep && t.look() }

// look is outOfTime for any amount of work.
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
	s.closePending()
	s.clock.yielded = time.Now()
	s.yield()
}

// OutOfTimeInLoop reports whether the running turn has used up its time. A task
// with more work then calls SuspendInLoop and returns.
func (s *Shard) OutOfTimeInLoop() bool { return s.clock.outOfTime() }

// NoteWorkInLoop adds work of the running task that takes as long as writing n
// bytes.
func (s *Shard) NoteWorkInLoop(n int) { s.clock.work += n }

// NoteOfferInLoop records that the running task queues f on connections, once
// on each. It is called once for a task, also if the task is suspended.
func (s *Shard) NoteOfferInLoop(f *Frame) { s.offer = max(s.offer, f.Len()) }

// NoteDeliveryInLoop adds the work of one DeliverInLoop, and returns
// OutOfTimeInLoop.
func (s *Shard) NoteDeliveryInLoop() (outOfTime bool) {
	s.clock.work += deliveryWork
	return s.clock.outOfTime()
}

// SuspendInLoop defers the rest of the running task: t runs in its place in the
// next turn. The tasks behind it wait. t is abandoned like any task if the loop
// ends before.
func (s *Shard) SuspendInLoop(t Task) { s.rest = t }

// resume continues with the suspended task, and reports whether there was one.
func (s *Shard) resume() bool {
	t := s.rest
	if t == nil {
		return false
	}
	s.rest = nil
	s.runTask(t)
	return true
}

// abandonRest abandons the suspended task. The loop has ended.
func (s *Shard) abandonRest() {
	if a, ok := s.rest.(Abandoner); ok {
		abandon(a, s)
	}
	s.rest = nil
}

// flushDirty is the second pass of the fan-out: one writev for each connection
// with queued frames. It returns false if time ran out.
func (s *Shard) flushDirty() bool {
	for !s.dirty.empty() {
		s.flushSome(s.dirty.pop(), maxFlushBytes)
		if s.clock.outOfTime() {
			return s.dirty.empty()
		}
	}
	return true
}

// flushAtEnd writes the frames that a callback has queued, at its end, and
// reports whether none is left. It leaves a list that a turn has left behind to
// the next turn.
func (s *Shard) flushAtEnd() bool {
	if s.dirty.len() <= maxCallbackFlush {
		for s.clock.work = 0; !s.dirty.empty() && s.clock.work < maxCallbackWork; {
			s.flushSome(s.dirty.pop(), maxFlushBytes)
		}
	}
	return s.dirty.empty()
}
