package engine

import (
	"context"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/gid"
	"github.com/qi-realtime/ws/internal/invariants"
)

// Shard is the state that one event loop owns: its connections, their queues,
// its part of every room, its timer wheel, its counters. Its methods are the work
// of the loop, and the state that its connections share; the life of one
// connection is Conn's.
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

	// The parts, each declared in the file of its concept.
	timerState
	turnState
	pingState
	postState
	pauseState
	inflateState
	slowState
	budgetState
	closeState
	measureState

	work loopWork

	reading    *Conn                        // connection whose message is being handled
	admitting  map[*Conn]context.CancelFunc // of connections whose request is being decided; nil before the first
	spaceWaits map[*Conn][]*spaceWait       // see spaceWait

	requests *codec.RequestParser // its last request belongs to no worker

	reply    replyBatch
	tls      tlsScratch
	iov      []unix.Iovec // scratch for writev
	deflated []byte       // scratch for one compressed message

	handedOver bool // a callback has given work to another goroutine, which may wait for this processor

	ended bool // a handler has ended the loop's goroutine

	stats shardStats
}

// bindInLoop ties the shard to its loop. It runs on that loop's goroutine.
func (s *Shard) bindInLoop() {
	s.wheel.now = s.eng.now.Load()
	s.presence.seen = s.wheel.now
	s.requests = new(codec.RequestParser)
	s.gid.Store(gid.Current())
	s.labelInLoop()
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
