package engine

import (
	"time"
)

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
	// maxBatch is the number of connections that one system call writes to. It
	// bounds the time of the call to about 0.6 ms.
	maxBatch = 128
	// maxEntryBytes bounds the bytes of one of them.
	maxEntryBytes = 5 << 10
	// maxCallbackFlush and maxCallbackWork bound the connections that a
	// callback flushes at its end, and the work of it; a turn does the rest.
	maxCallbackFlush = 32
	maxCallbackWork  = 512 << 10

	// maxReplaying is the number of connections with frames to write up to which a turn
	// lets others read a history. An answer to anyone else waits behind these.
	maxReplaying = 32
)

// turnClock decides when a turn must end. Reading the time costs as much as
// queueing a frame, so it is read once for each clockStep of work.
//
// Loop-confined: use only on the event loop that owns the connections.
type turnClock struct {
	began   time.Duration // start of the turn; see monotonic
	end     time.Duration // of the turn
	work    int           // since the last look at the clock; stays beyond clockStep once the end has come
	over    bool          // the end has come
	yielded time.Duration // time at which the last turn was cut short; 0 if it was not
}

// begin starts a turn now. If the last turn was cut short, the loop has served its
// connections since. A turn may take as long as that round of reads, so fan-out
// gets half of a loop to which many connections send.
func (t *turnClock) begin(now time.Duration) {
	length := turnTime
	if t.yielded > 0 {
		length = min(max(turnTime, now-t.yielded), maxTurnTime)
	}
	*t = turnClock{began: now, end: now + length}
}

// outOfTime reports whether the turn must end.
func (t *turnClock) outOfTime() bool { return t.work >= clockStep && t.look() }

// look is outOfTime for any amount of work.
func (t *turnClock) look() bool {
	if t.over {
		return true
	}
	t.work = 0
	if t.over = monotonic() > t.end; t.over {
		t.work = clockStep
	}
	return t.over
}

// turnState is the part of a Shard that its turns use.
//
// Loop-confined: use only on the event loop that owns the connections.
type turnState struct {
	clock   turnClock
	urgent  []Task // taken from the inbox, not run
	rest    Task   // the rest of a suspended task, or nil
	replays []Task // that wait for runReplays
	offer   int    // bytes that the running task offers; see NoteOfferInLoop
	offered uint64 // upper bound of the bytes that tasks have offered to each connection; see Engine.maxAhead
	dirty   dirtyList
	batch   *batch // nil without batched writes
	inTurn  bool   // a callback is running that looks at the inbox at its end
	again   bool   // the inbox needs a turn at the end of this callback
}

// guardedTurn is turn as a task of gnet.
func (s *Shard) guardedTurn() {
	defer s.eng.guard("inbox")
	s.turn()
}

// turn works on the timers and the inbox until its time is over. The rest then
// waits until the loop has served its connections. A task that posts itself
// would starve them, because gnet runs its task queue until it is empty; so the
// next turn comes as traffic on the shard's own wake-up connection.
func (s *Shard) turn() {
	now := monotonic()
	s.work.beginAt(now)
	s.inTurn = true
	defer func() {
		s.inTurn, s.again = false, false
		if r := recover(); r != nil {
			s.eng.reportPanic("inbox", r)
			s.driver.yield()
		}
		s.work.end()
	}()
	s.clock.begin(now)
	s.inflateClock.round = 0
	// The time of a Simnet passes in Advance alone: its loops have no absence.
	s.tick(s.eng.cfg.Simnet != nil || s.absence.over(s.clock.began, s.eng.tickTime))
	s.paceDrain()
	for {
		s.runUrgent()
		s.continueReading()
		ran := s.takeTasks()
		s.runReplays()
		if !s.flushDirty() || s.clock.look() {
			s.cutShort()
			return
		}
		if !s.closePending() {
			s.cutShort()
			return
		}
		if !ran && len(s.resumed) == 0 && len(s.replays) == 0 && s.in.sleepInLoop() {
			return
		}
	}
}

// runReplays runs the tasks that queue stored frames, in turn, until many connections have frames
// to write, and at least one. So thousands of clients that come back at once hold up
// each other, and nobody else.
func (s *Shard) runReplays() {
	for n := 0; len(s.replays) > 0; n++ {
		if n > 0 && (s.dirty.len() >= maxReplaying || s.clock.outOfTime()) {
			return
		}
		t := s.replays[0]
		s.replays[0] = nil
		if s.replays = s.replays[1:]; len(s.replays) == 0 {
			s.replays = nil
		}
		s.runTask(t)
	}
}

// runUrgent runs urgent tasks until the turn's time is over.
func (s *Shard) runUrgent() {
	for n := 0; ; n++ {
		if len(s.urgent) == 0 {
			if s.urgent = s.in.takeUrgentInLoop(); len(s.urgent) == 0 {
				return
			}
		}
		if n > 0 && s.clock.outOfTime() {
			return
		}
		t := s.urgent[0]
		s.urgent[0] = nil
		s.urgent = s.urgent[1:]
		s.runTask(t)
		s.clock.work += writeWork
	}
}

// takeTasks runs tasks until the inbox is empty, the batch is full or the
// turn's time is over, and reports whether there were any. It is the first pass
// of the fan-out: it fills queues, and writes only for a connection whose queue
// would overflow.
func (s *Shard) takeTasks() (ran bool) {
	var taken, credits int
	resumed := s.resume()
	for s.rest == nil && ((taken == 0 && !resumed) || !s.clock.outOfTime()) &&
		taken < s.eng.cfg.BroadcastBatchSize && s.mayTakeMore() {
		t, credit, ok := s.in.popInLoop()
		if !ok {
			break
		}
		taken++
		if credit {
			credits++
		}
		s.offer = s.eng.minOffer
		s.runTask(t)
		s.clock.work += deliveryWork
		s.offered += uint64(s.offer)
	}
	s.in.release(credits)
	s.stats.tasks.add(uint64(taken))
	return taken > 0 || resumed
}

// mayTakeMore reports whether the connection that waits longest for its write
// has space in its queue for more, by the bytes offered to it since.
func (s *Shard) mayTakeMore() bool {
	return s.dirty.empty() || s.offered-s.dirty.since() < s.eng.maxAhead
}

// runTask runs one task. A panic ends only that task.
func (s *Shard) runTask(t Task) {
	s.mustBeInLoop()
	defer s.eng.guard("task")
	t.RunInLoop(s)
}

// cutShort ends a turn with work left.
func (s *Shard) cutShort() {
	s.stats.yields.add(1)
	s.closePending()
	s.clock.yielded = monotonic()
	s.driver.yield()
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

// enter and leave enclose a callback of gnet: leave writes the frames that the
// callback queued and runs its pending closes before the loop continues.
func (s *Shard) enter() {
	s.work.begin()
	s.inTurn = true
}

func (s *Shard) leave() {
	defer s.work.end()
	defer s.eng.guard("flush")
	s.inTurn = false
	if s.again {
		s.again = false
		s.turn()
		return
	}
	left := !s.flushAtEnd()
	if left = !s.closePending() || left; left && !s.in.awake.Swap(true) {
		s.driver.yield()
	}
}

// flushDirty is the second pass of the fan-out: one writev for each connection
// with queued frames. It returns false if time ran out.
func (s *Shard) flushDirty() bool {
	for !s.dirty.empty() {
		s.flushFirst()
		s.runFlushTasks()
		if s.clock.outOfTime() {
			return s.dirty.empty()
		}
	}
	return true
}

// flushFirst writes to the connections that wait longest: to many in one call if batched
// writes are on, or else to one.
func (s *Shard) flushFirst() {
	if s.batch != nil && s.dirty.len() >= minBatch {
		s.batch.flush(&s.dirty)
		return
	}
	s.dirty.pop().flushSome(maxFlushBytes)
}

// flushAtEnd writes the frames that a callback has queued, at its end, and
// reports whether none is left. It leaves a list that a turn has left behind to
// the next turn.
func (s *Shard) flushAtEnd() bool {
	if s.dirty.len() <= maxCallbackFlush {
		for s.clock.work = 0; !s.dirty.empty() && s.clock.work < maxCallbackWork; {
			s.flushFirst()
			s.runFlushTasks()
		}
	}
	return s.dirty.empty()
}

// markDirty puts c on the list of connections to flush.
func (s *Shard) markDirty(c *Conn) {
	s.mustBeInLoop()
	if !c.is(dirty) {
		c.set(dirty)
		s.dirty.push(c, s.offered)
	}
}

// dirtyList is the queue of connections with frames to write. Its ring grows
// only with the largest number of connections in it at once.
//
// Loop-confined: use only on the event loop that owns the connections.
type dirtyList struct {
	ring []dirtyConn // its length is a power of two, or 0
	head int
	size int
	left uint64 // connections that have left the list since the start
}

// dirtyConn is a connection on the list, with the value of Shard.offered at its
// arrival.
type dirtyConn struct {
	conn  *Conn
	since uint64
}

// minDirty is the first length of the ring.
const minDirty = 64

func (d *dirtyList) len() int    { return d.size }
func (d *dirtyList) empty() bool { return d.size == 0 }

// since returns the value of Shard.offered at the arrival of the first
// connection.
func (d *dirtyList) since() uint64 { return d.ring[d.head].since }

// peek returns the first connection.
func (d *dirtyList) peek() *Conn { return d.ring[d.head].conn }

func (d *dirtyList) push(c *Conn, since uint64) {
	if d.size == len(d.ring) {
		d.grow()
	}
	d.ring[(d.head+d.size)&(len(d.ring)-1)] = dirtyConn{c, since}
	d.size++
}

func (d *dirtyList) grow() {
	ring := make([]dirtyConn, max(minDirty, 2*len(d.ring)))
	n := copy(ring, d.ring[d.head:])
	copy(ring[n:], d.ring[:d.head])
	d.ring, d.head = ring, 0
}

func (d *dirtyList) pop() *Conn {
	c := d.ring[d.head].conn
	d.ring[d.head].conn = nil
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.size--
	d.left++
	return c
}
