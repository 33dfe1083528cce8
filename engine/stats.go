package engine

import (
	"sync/atomic"
	"time"
)

// counter is written by one loop and read by anyone. A plain store is enough
// for a single writer, and cheaper than an atomic addition.
type counter struct{ v atomic.Uint64 }

func (c *counter) add(n uint64) { c.v.Store(c.v.Load() + n) }

// Load returns the count.
func (c *counter) Load() uint64 { return c.v.Load() }

// shardStats are a shard's counters.
type shardStats struct {
	conns, opened, closed          counter
	messagesIn, messagesOut        counter
	bytesIn, bytesOut              counter
	writes, blocked, tasks, yields counter
	backlog, laggards, slow        counter
	paused, budgetPaused           counter
	pauses, held                   counter
	oldest                         counter       // a time.Duration
	wakeUps                        atomic.Uint64 // by any goroutine
	drops                          Drops         // by any goroutine
}

// ShardStats is a snapshot of one shard's counters. They count from the start.
type ShardStats struct {
	Connections            int    // sockets now, those in the handshake included
	Opened, Closed         uint64 // connections that finished the handshake; that ended
	MessagesIn             uint64 // data messages received
	MessagesOut            uint64 // data messages sent
	BytesIn, BytesOut      uint64
	Drops                  DropCounts // messages that were not sent
	Writes                 uint64     // write and writev calls
	BlockedTotal           uint64     // times a socket was full
	Blocked                int        // connections whose socket is full now
	QueuedMemory           int64      // memory that their queues take, in bytes: what QueueBudget bounds. A frame that waits in several is counted in each
	Slow                   int        // connections now between OnSlow and OnDrain
	Paused                 int        // connections that are not read now, so that their clients wait
	BudgetPaused           int        // of these, for the InboundBudget; counted at each tick of the timers, about four times a second
	PausedTotal            uint64     // times a connection was paused
	HeldBytes              int64      // bytes received of paused connections that are not decoded yet
	Tasks, WakeUps, Yields uint64     // inbox: tasks run, loop wake-ups, turns cut short for fairness
	InboxLen               int        // tasks waiting now

	// OldestWait is how long the oldest message that waits for a full socket has
	// waited, at least. A message that has replaced another by its conflation key
	// has that one's age. It is measured at each tick of the timers, at least four
	// times a second. The total of several loops is their maximum.
	OldestWait time.Duration
}

// Add adds the counts of o.
func (st *ShardStats) Add(o *ShardStats) {
	st.Connections += o.Connections
	st.Opened += o.Opened
	st.Closed += o.Closed
	st.MessagesIn += o.MessagesIn
	st.MessagesOut += o.MessagesOut
	st.BytesIn += o.BytesIn
	st.BytesOut += o.BytesOut
	st.Drops.Add(&o.Drops)
	st.Writes += o.Writes
	st.BlockedTotal += o.BlockedTotal
	st.Blocked += o.Blocked
	st.QueuedMemory += o.QueuedMemory
	st.Slow += o.Slow
	st.Paused += o.Paused
	st.BudgetPaused += o.BudgetPaused
	st.PausedTotal += o.PausedTotal
	st.HeldBytes += o.HeldBytes
	st.Tasks += o.Tasks
	st.WakeUps += o.WakeUps
	st.Yields += o.Yields
	st.InboxLen += o.InboxLen
	st.OldestWait = max(st.OldestWait, o.OldestWait)
}

// Connections returns how many sockets the shard has now. Safe for concurrent
// use.
func (s *Shard) Connections() int { return int(s.stats.conns.Load()) }

// Stats returns a snapshot. Safe for concurrent use.
func (s *Shard) Stats() ShardStats {
	st := &s.stats
	return ShardStats{
		Connections: int(st.conns.Load()), Opened: st.opened.Load(), Closed: st.closed.Load(),
		MessagesIn: st.messagesIn.Load(), MessagesOut: st.messagesOut.Load(),
		BytesIn: st.bytesIn.Load(), BytesOut: st.bytesOut.Load(),
		Drops: st.drops.Counts(), Writes: st.writes.Load(), BlockedTotal: st.blocked.Load(),
		Blocked: int(st.laggards.Load()), QueuedMemory: int64(st.backlog.Load()), Slow: int(st.slow.Load()),
		Paused: int(st.paused.Load()), BudgetPaused: int(st.budgetPaused.Load()), PausedTotal: st.pauses.Load(), HeldBytes: int64(st.held.Load()),
		Tasks: st.tasks.Load(), WakeUps: st.wakeUps.Load(), Yields: st.yields.Load(),
		InboxLen: s.in.ring.len(), OldestWait: time.Duration(st.oldest.Load()),
	}
}
