package engine

import (
	"context"
	"sync/atomic"

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
	eng    *Engine
	index  int
	driver driver

	in      *inbox
	enrolls atomic.Int64   // connections on their way to the loop
	gid     atomic.Uintptr // the loop's goroutine

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

// bindInLoop ties the shard to its loop. It runs on that loop's goroutine.
func (s *Shard) bindInLoop() {
	s.wheel.now = s.eng.now.Load()
	s.presence.seen = s.wheel.now
	s.gid.Store(gid.Current())
}

// EachInLoop calls fn for every connection of s that takes data. fn may queue
// frames on it.
func (s *Shard) EachInLoop(fn func(*Conn)) {
	s.wheel.each(func(c *Conn) {
		if c.takesDataInLoop() {
			fn(c)
		}
	})
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

// drop counts a message that is dropped for one connection. f may be nil. Safe
// for concurrent use.
func (s *Shard) drop(f *Frame, why DropReason) {
	s.stats.drops.add(why, 1)
	if f != nil && f.scope != nil {
		f.scope.add(why, 1)
	}
	s.eng.observer.OnDrop(why)
}

// CountRefused counts a message that never reached the shard for n of its
// connections. Safe for concurrent use.
func (s *Shard) CountRefused(n int) {
	for range n {
		s.drop(nil, DropFull)
	}
}
