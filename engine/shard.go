package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/internal/gid"
	"github.com/qi-realtime/ws/internal/invariants"
)

// Shard is the state that one event loop owns: its connections, their queues,
// its part of every room, its timer wheel, its counters.
//
// Post, Reserve, Index, Connections and Stats are safe for concurrent use.
// Loop-confined otherwise: use only on the event loop that owns the connection.
type Shard struct {
	// Immutable once the loop is bound.
	eng   *Engine
	index int
	loop  eventLoop
	wake  *waker
	sim   *simLoop // nil with real sockets

	in      *inbox
	enrolls atomic.Int64              // connections on their way to the loop
	gid     atomic.Uintptr            // the loop's goroutine
	ready   atomic.Pointer[readiness] // replaced once, before Engine.Started

	// listener is the listener of this loop, nil if there is none or it cannot
	// be paused. It is set once, before Engine.Started.
	listener atomic.Pointer[loopListener]

	wheel    wheel
	due      bool   // deadlines have come that were not acted on
	checked  uint32 // tick of the last checks beside the deadlines
	presence presence
	absence  absence
	overdue  map[*Conn]overduePong // nil until there is one

	halfClosed int // connections that have left gnet; see keepHalfClosed

	unfinished        map[*Conn]unfinishedMessage // nil until there is one
	unfinishedChecked uint32
	budgetLine        []*Conn       // paused by the InboundBudget, oldest first
	favored           []favoredConn // read although the budget is exceeded

	dirty         dirtyList
	offered       uint64 // upper bound of the bytes that tasks have offered to each connection; see Engine.maxAhead
	offer         int    // bytes that the running task offers; see NoteOfferInLoop
	rest          Task   // the rest of a suspended task, or nil
	urgent        []Task // taken from the inbox, not run
	clock         turnClock
	pendingCloses []*Conn
	free          freeQueues

	reading    *Conn                        // connection whose message is being handled
	admitting  map[*Conn]context.CancelFunc // of connections whose request is being decided; nil before the first
	held       map[*Conn]*held              // of paused connections; nil before the first
	resumed    []*Conn                      // to continue with, oldest first
	beside     map[*Conn]int                // tasks that wait beside a ring, by the connection that is paused for them
	spaceWaits map[*Conn][]*spaceWait

	blocked      blockedHeap
	newest       newest
	disconnected []*Conn      // slow connections whose close frame is pending
	largestQueue atomic.Int64 // memory of the largest queue of a blocked connection; kept for a budget only
	trimming     atomic.Bool  // a trimTask is in the inbox

	peerFields peerFields

	iov   []unix.Iovec // scratch for writev
	reply replyBatch
	tls   tlsScratch

	deflated, inflated []byte // scratch for one compressed and one inflated message
	wireBytes          int    // compressed size of the message that is handed over; 0 if it came plain

	inflateClock inflateClock
	inflations   map[*Conn]*inflation // nil before the first
	inflateLine  []*Conn              // connections with unfinished inflations, and some that have ended

	inTurn  bool   // a callback is running that looks at the inbox at its end
	again   bool   // the inbox needs a turn at the end of this callback
	ended   bool   // a handler has ended the loop's goroutine
	posted  bool   // the loop itself has posted to its own inbox
	lastOwn uint64 // position of the last such task

	stats shardStats
}

// Index returns the shard's number, from 0.
func (s *Shard) Index() int { return s.index }

// onLoop reports whether the caller runs on this shard's event loop.
func (s *Shard) onLoop() bool { return gid.Current() == s.gid.Load() }

// mustBeInLoop panics, under the build tag invariants, if the caller does not
// run on this shard's loop, because nothing else guards the shard's state.
func (s *Shard) mustBeInLoop() {
	if invariants.Enabled && !s.onLoop() {
		panic("engine: loop-confined state touched off its loop")
	}
}

// Post hands t to the shard's loop and does not wait. It is for tasks that are
// few for each connection or room: while the ring is full, t is kept beside it,
// in its place in the order. If an event loop posts then, the connection of its
// handled message is paused until t has run. A task is never lost while the
// engine runs.
func (s *Shard) Post(t Task) { s.TryReserve().Post(t) }

// Reserve reserves space for one task, so that the task can be posted where
// nothing may wait: with a lock held that makes a decision and its task one
// step. While the ring is full it waits, and returns ErrTimeout after
// Config.BroadcastTimeout; on an event loop it does not wait, see Post. It
// returns ErrStopped after Stop.
func (s *Shard) Reserve() (Reservation, error) {
	if s.in.tryAcquire() {
		return Reservation{s, true}, nil
	}
	if s.eng.onLoop() {
		return Reservation{s, false}, nil
	}
	timer := time.NewTimer(s.eng.cfg.BroadcastTimeout)
	defer timer.Stop()
	if err := s.in.acquire(patience{timeout: timer.C, stopped: s.eng.stopped}); err != nil {
		return Reservation{}, err
	}
	return Reservation{s, true}, nil
}

// TryReserve is Reserve without the wait: the space may be beside the ring.
func (s *Shard) TryReserve() Reservation { return Reservation{s, s.in.tryAcquire()} }

// Reservation is a reservation for one task: it must be posted to or released.
type Reservation struct {
	shard  *Shard
	inRing bool // a credit is held; otherwise the task is kept beside the ring
}

// Post hands t to the shard's loop and does not wait.
func (r Reservation) Post(t Task) {
	if r.inRing {
		r.shard.put(t)
		return
	}
	if caller := r.shard.eng.callersShard(); caller != nil {
		caller.postBeside(r.shard, t)
		return
	}
	r.shard.putBeside(t)
}

// Release gives the space back.
func (r Reservation) Release() {
	if r.inRing {
		r.shard.in.release(1)
	}
}

// postUrgent hands t to the shard's loop, ahead of the ring, and never waits.
func (s *Shard) postUrgent(t Task) {
	s.in.putUrgent(t)
	s.wakeUp()
}

// postWait hands t to the shard's loop. If the ring is full, it waits for
// Config.BroadcastTimeout and then returns ErrQueueFull; on an event loop it does
// not wait, see postInLoop. It returns ErrClosed if the engine stops meanwhile.
func (s *Shard) postWait(t Task) error {
	if !s.in.tryAcquire() {
		if caller := s.eng.callersShard(); caller != nil {
			return caller.postInLoop(s, t)
		}
		timer := time.NewTimer(s.eng.cfg.BroadcastTimeout)
		defer timer.Stop()
		err := s.in.acquire(patience{timeout: timer.C, stopped: s.eng.stopped})
		if errors.Is(err, ErrStopped) {
			return ErrClosed
		}
		if err != nil {
			return ErrQueueFull
		}
	}
	s.put(t)
	return nil
}

// put appends a task, for which the caller holds a credit, and wakes the loop.
func (s *Shard) put(t Task) {
	s.noteOwn(s.in.ring.put(t))
	s.announce()
}

// announce makes sure that a task in the inbox is processed: by the loop, or by
// the caller if the loop has ended, perhaps before it saw the task.
func (s *Shard) announce() {
	s.wakeUp()
	if s.eng.halting.Load() && s.eng.isStopped() {
		s.in.drain(s)
	}
}

// noteOwn records the position of a task that the loop posts to itself, so that
// a direct send of the loop does not overtake it.
func (s *Shard) noteOwn(pos uint64) {
	if s.onLoop() {
		s.posted, s.lastOwn = true, pos
	}
}

// caughtUpInLoop reports whether all tasks that this loop has posted to itself
// have run.
func (s *Shard) caughtUpInLoop() bool {
	return !s.posted || (s.rest == nil && s.in.ring.head > s.lastOwn)
}

// wakeUp makes the loop look at its inbox, unless it was already woken.
func (s *Shard) wakeUp() {
	if s.in.awake.Load() || s.in.awake.Swap(true) {
		return
	}
	if s.onLoop() && s.inTurn {
		s.again = true
		return
	}
	s.stats.wakeUps.addShared(1)
	s.eng.gate.RLock()
	defer s.eng.gate.RUnlock()
	if !s.eng.halting.Load() {
		_ = s.loop.Execute(context.Background(), s) // fails only once the engine has stopped
	}
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
	s.inTurn = true
	defer func() {
		s.inTurn, s.again = false, false
		if r := recover(); r != nil {
			s.eng.reportPanic("inbox", r)
			s.yield()
		}
	}()
	s.clock.begin()
	s.inflateClock.round = 0
	s.tick(s.absence.over(s.clock.began, s.eng.tickTime))
	for {
		s.runUrgent()
		s.continueReading()
		ran := s.takeTasks()
		if !s.flushDirty() || s.clock.look() {
			s.cutShort()
			return
		}
		if !s.closePending() {
			s.cutShort()
			return
		}
		if !ran && len(s.resumed) == 0 && s.in.sleepInLoop() {
			return
		}
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
	for s.rest == nil && ((taken == 0 && !resumed) || !s.clock.outOfTime()) && taken < s.eng.cfg.BroadcastBatchSize && s.mayTakeMore() {
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

// enter and leave enclose a callback of gnet: leave writes the frames that the
// callback queued and runs its pending closes before the loop continues.
func (s *Shard) enter() { s.inTurn = true }

func (s *Shard) leave() {
	defer s.eng.guard("flush")
	s.inTurn = false
	if s.again {
		s.again = false
		s.turn()
		return
	}
	left := !s.flushAtEnd()
	if left = !s.closePending() || left; left && !s.in.awake.Swap(true) {
		s.yield()
	}
}

// markDirty puts c on the list of connections to flush.
func (s *Shard) markDirty(c *Conn) {
	s.mustBeInLoop()
	if !c.is(dirty) {
		c.set(dirty)
		s.dirty.push(c, s.offered)
	}
}

// drop counts a message that is dropped for one connection. f may be nil. Safe
// for concurrent use.
func (s *Shard) drop(f *Frame, why DropReason) {
	s.stats.drops.add(why, 1)
	if f != nil && f.scope != nil {
		f.scope.add(why, 1)
	}
	s.eng.handler.OnDrop(why)
}

// CountRefused counts a message that never reached the shard for n of its
// connections. Safe for concurrent use.
func (s *Shard) CountRefused(n int) {
	for range n {
		s.drop(nil, DropFull)
	}
}
