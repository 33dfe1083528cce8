package engine

import (
	"slices"
	"sync/atomic"
	"time"
)

// Config.InboundBudget bounds the memory for inbound bytes that wait here, of
// all connections: unfinished messages, undecoded bytes of paused connections,
// and the mailboxes, which the owner adds. Beyond the budget a connection is
// paused at the end of a read if its unfinished message takes at least the
// average; beyond nine eighths of it, if the message takes more than
// spareBytes. So the largest messages wait first, and a peer with small
// messages never waits.
//
// Only finished messages free memory, so a few of the waiting connections are
// favored: they are read regardless of the budget, until their message is
// finished or its time is over. A favored connection that brings little within
// budgetSlice gives way to the next one. Then the time for which it was paused
// before counts against its MessageTimeout, because the pause did not keep it
// from sending: the kernel holds the bytes meanwhile. So a shard exceeds its
// part by at most maxFavored messages, beside one read of each connection.

const (
	// budgetSlice is the number of ticks in which a favored connection must
	// bring budgetStep bytes.
	budgetSlice = 4
	budgetStep  = 64 << 10
	// spareBytes is the size of an unfinished message that is never paused by
	// the budget.
	spareBytes = 16 << 10
	// maxFavored is the number of connections of a shard that are favored at
	// once.
	maxFavored = 4
)

// budgetState is the part of a Shard that the budgets of memory use.
//
// largestQueue and trimming are safe for concurrent use. Loop-confined
// otherwise: use only on the event loop that owns the connections.
type budgetState struct {
	budgetLine   []*Conn       // paused by the InboundBudget, oldest first
	favored      []favoredConn // read although the budget is exceeded
	newest       newest
	free         freeQueues
	largestQueue atomic.Int64 // memory of the largest queue of a blocked connection; kept for a budget only
	trimming     atomic.Bool  // a trimTask is in the inbox
}

// AddInbound adds n bytes that wait for the owner, or removes -n if n is
// negative. Safe for concurrent use.
func (e *Engine) AddInbound(n int64) { e.inbound.Add(n) }

// Inbound returns the bytes that count against the InboundBudget: those of
// AddInbound, of unfinished messages, and undecoded ones of paused connections.
// Safe for concurrent use.
func (e *Engine) Inbound() int64 {
	n := e.inbound.Load()
	for _, s := range e.shards {
		n += int64(s.stats.heldBytes.Load())
	}
	return n
}

// InboundExceeded reports whether Inbound exceeds the InboundBudget. Safe for
// concurrent use.
func (e *Engine) InboundExceeded() bool {
	return e.cfg.InboundBudget > 0 && e.Inbound() > e.cfg.InboundBudget
}

// favoredConn is a connection that is read although the budget is exceeded.
type favoredConn struct {
	conn  *Conn
	since uint32 // on the presence clock
	bytes int64  // of its message at that time
}

// weighUnfinished counts the unfinished message of c anew, and pauses c if the
// budget is exceeded.
func (s *Shard) weighUnfinished(c *Conn, m *unfinishedMessage) {
	e := s.eng
	if e.cfg.InboundBudget == 0 {
		return
	}
	if m.bytes == 0 {
		e.holders.Add(1)
	}
	held := int64(max(c.in.Held(), 1))
	e.inbound.Add(held - m.bytes)
	m.bytes = held
	total, budget := e.Inbound(), e.cfg.InboundBudget
	if total <= budget || held <= spareBytes || c.is(favored) {
		return
	}
	if held*e.holders.Load() >= total || total > budget+budget/8 {
		s.pauseByBudget(c)
	}
}

// forgetWeight removes the message from the budget.
func (s *Shard) forgetWeight(m unfinishedMessage) {
	if m.bytes > 0 {
		s.eng.inbound.Add(-m.bytes)
		s.eng.holders.Add(-1)
	}
}

func (s *Shard) pauseByBudget(c *Conn) {
	c.pause(pausedByBudget)
	s.budgetLine = append(s.budgetLine, c)
}

// giveWay pauses a connection that was favored and has brought little. The time
// for which it was paused before counts then.
func (c *Conn) giveWay() {
	s := c.shard
	m := s.unfinished[c]
	m.since -= m.excused
	m.excused = 0
	s.unfinished[c] = m
	if !c.failLate(m) {
		s.pauseByBudget(c)
	}
}

// rotateBudget favors the connections that wait longest, in place of those that
// have finished or given way. It resumes all once an eighth of the budget is
// free.
func (s *Shard) rotateBudget() {
	if len(s.budgetLine) == 0 && len(s.favored) == 0 {
		return
	}
	budget := s.eng.cfg.InboundBudget
	over := s.eng.Inbound() > budget-budget/8
	s.endFavors(over)
	s.budgetLine = slices.DeleteFunc(s.budgetLine, func(c *Conn) bool { return !c.is(pausedByBudget) })
	for len(s.budgetLine) > 0 && (!over || len(s.favored) < maxFavored) {
		c := s.budgetLine[0]
		s.budgetLine[0] = nil
		s.budgetLine = s.budgetLine[1:]
		if over {
			c.set(favored)
			s.favored = append(s.favored, favoredConn{c, s.presence.ticks, s.unfinished[c].bytes})
		}
		c.unpause(pausedByBudget)
	}
	if len(s.budgetLine) == 0 {
		s.budgetLine = nil
	}
	s.stats.budgetPaused.v.Store(uint64(len(s.budgetLine)))
}

// endFavors ends the favors of the connections that have finished or have
// brought little, or all if the budget is not exceeded any more.
func (s *Shard) endFavors(over bool) {
	now := s.presence.ticks
	kept := s.favored[:0]
	for _, f := range s.favored {
		switch {
		case over && f.conn.is(unfinished) &&
			(now-f.since < budgetSlice || s.unfinished[f.conn].bytes-f.bytes >= budgetStep):
			kept = append(kept, f)
		default:
			f.conn.unset(favored)
			if over && f.conn.is(unfinished) && f.conn.end() == nil {
				f.conn.giveWay()
			}
		}
	}
	clear(s.favored[len(kept):])
	s.favored = kept
}

// weighed adds growth to the queued memory of the blocked connections of this
// shard and of all shards.
func (s *Shard) weighed(growth int) {
	s.stats.queuedMemory.add(uint64(growth)) // wraps around for a negative one
	if s.eng.cfg.QueueBudget > 0 {
		s.largestQueue.Store(int64(s.blocked.largest()))
		s.eng.blockedMemory.Add(int64(growth))
	}
}

// keepBudget drops messages of the largest queues while all blocked connections
// hold more than seven eighths of the budget. If the largest queue is on
// another loop, that loop is asked to act, and has the last eighth of the
// budget for it; beyond the budget this loop drops from its own queues.
//
// Two loops whose queues are about equal would hand the work back and forth, so
// a loop acts itself if its largest queue is within an eighth of the largest of
// all.
func (s *Shard) keepBudget() {
	budget := s.eng.cfg.QueueBudget
	for held := s.eng.blockedMemory.Load(); held > budget-budget/8; held = s.eng.blockedMemory.Load() {
		mine, other := int64(s.blocked.largest()), s.eng.largestShard()
		if theirs := other.largestQueue.Load(); mine < theirs-theirs/8 {
			other.askToTrim()
			if held <= budget {
				return
			}
		}
		if mine == 0 {
			return
		}
		s.trim(s.blocked.conns[0])
	}
}

// newest is a message that was just queued, while it may already be lost: to
// the budget, or with all queued messages of its connection.
//
// Loop-confined: use only on the event loop that owns the connection.
type newest struct {
	conn  *Conn
	frame *Frame
	lost  bool
}

// keeps runs settle and reports whether f, which was just queued on c, is still
// queued or sent.
func (s *Shard) keeps(c *Conn, f *Frame, settle func()) bool {
	s.newest = newest{conn: c, frame: f}
	settle()
	kept := !s.newest.lost
	s.newest = newest{}
	return kept
}

// largestShard returns the shard with the largest queue of a blocked connection.
func (e *Engine) largestShard() *Shard {
	largest := e.shards[0]
	for _, s := range e.shards[1:] {
		if s.largestQueue.Load() > largest.largestQueue.Load() {
			largest = s
		}
	}
	return largest
}

// askToTrim makes the shard look at its own blocked connections.
func (s *Shard) askToTrim() {
	if !s.trimming.Swap(true) {
		s.postUrgent(trimTask{})
	}
}

// trimTask is posted by a shard that has found the budget exceeded.
type trimTask struct{}

func (trimTask) RunInLoop(s *Shard) {
	s.trimming.Store(false)
	s.keepBudget()
}

// trim drops from c, the blocked connection with the largest queue: the message
// that the policy selects, or all queued ones if the policy is to disconnect.
// If only the rest of a partly sent frame is left, the connection is closed at
// once, because no close frame can follow half a frame.
func (s *Shard) trim(c *Conn) {
	c.noteSlow()
	policy := s.eng.cfg.OverflowPolicy
	for lane := range Lane(dataLanes) {
		if c.end() != nil || c.out.lanes[lane].len() == 0 {
			continue
		}
		if policy != Disconnect {
			if c.evict(lane, policy == DropOldest, DropBudget) != nil {
				return
			}
		}
		c.disconnect(DropBudget) // also if only protected answers are queued
		return
	}
	if c.end() == nil {
		c.setEnd(slowEnd())
	}
	c.discard(DropBudget)
	s.closeLater(c, nil)
}

const (
	// keptQueues is the number of free queues that all shards together keep for
	// ever, each the same number. keptFrames is the longest slice in them, so a
	// single long backlog does not stay.
	keptQueues = 8 << 10
	keptFrames = 128
	// moreFrames is the same for the surplus queues.
	moreFrames = 16
	// freeTime is the trim interval: every freeTime, half of the surplus queues
	// that stayed unused for the whole interval are released.
	freeTime = 10 * time.Second
)

// freeQueues are a shard's queues without a connection. A fan-out takes one for
// each member of the loop at once. If the shard kept only its part of keptQueues,
// each publish to a larger room would leave the rest to the collector: with
// 500,000 members on a loop that made a delivery several times as expensive (go
// run ./bench sim).
//
// Loop-confined: use only on the event loop that owns the connections.
type freeQueues struct {
	kept   int // queues that stay for ever; immutable
	queues []*queue
	least  int    // fewest free queues since the last trim
	next   uint32 // tick of the next trim
}

// get takes a queue.
func (f *freeQueues) get() *queue {
	n := len(f.queues) - 1
	if n < 0 {
		return new(queue)
	}
	q := f.queues[n]
	f.queues[n] = nil
	f.queues = f.queues[:n]
	f.least = min(f.least, n)
	return q
}

// put gives a queue back.
func (f *freeQueues) put(q *queue) {
	if len(f.queues) < f.kept {
		q.reset(keptFrames)
	} else {
		q.reset(moreFrames)
	}
	f.queues = append(f.queues, q)
}

// trim releases half of the surplus queues that were not used in the last
// interval of every ticks.
func (f *freeQueues) trim(now, every uint32) {
	if int32(now-f.next) < 0 {
		return
	}
	f.next = now + every
	n := len(f.queues)
	if keep := max(f.kept, n-(f.least+1)/2); keep < n {
		clear(f.queues[keep:])
		f.queues = f.queues[:keep]
		if cap(f.queues) > 4*keep {
			f.queues = slices.Clone(f.queues)
		}
	}
	f.least = len(f.queues)
}
