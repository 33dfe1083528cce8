package ws

import (
	"time"

	"github.com/qi-realtime/ws/engine"
)

// LoopStats is a snapshot of one event loop. Counts of type uint64 begin at Run, the
// others are of now.
type LoopStats struct {
	Connections            int    // sockets, those in the handshake included
	Opened, Closed         uint64 // connections that finished the handshake; that ended
	MessagesIn             uint64 // data messages received
	MessagesOut            uint64 // data messages sent
	BytesIn, BytesOut      uint64
	Drops                  DropCounts // messages that were not sent
	Writes                 uint64     // write and writev calls
	BlockedTotal           uint64     // times a socket was full
	Blocked                int        // connections whose socket is full
	QueuedMemory           int64      // memory that their queues take, in bytes: QueueBudget bounds it. A frame that waits in several is counted in each
	Slow                   int        // connections between OnSlow and OnDrain
	Paused                 int        // connections that are not read, so that their clients wait
	BudgetPaused           int        // of these, for the InboundBudget; counted about four times a second
	PausedTotal            uint64     // times a connection was paused
	HeldBytes              int64      // bytes received of paused connections that are not decoded yet
	Tasks, WakeUps, Yields uint64     // inbox: tasks run, loop wake-ups, turns cut short for fairness
	InboxLen               int        // tasks waiting

	// OldestWait is the least time that the oldest message for a full socket has
	// waited. A message that has replaced another by its conflation key has that one's
	// age. It is measured about four times a second. The total of several loops is
	// their maximum.
	OldestWait time.Duration
}

// Add adds the counts of o.
func (st *LoopStats) Add(o *LoopStats) {
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

// loopStats returns st as the type of this package.
func loopStats(st *engine.ShardStats) LoopStats {
	return LoopStats{
		Connections: st.Connections, Opened: st.Opened, Closed: st.Closed,
		MessagesIn: st.MessagesIn, MessagesOut: st.MessagesOut, BytesIn: st.BytesIn, BytesOut: st.BytesOut,
		Drops: DropCounts(st.Drops), Writes: st.Writes, BlockedTotal: st.BlockedTotal,
		Blocked: st.Blocked, QueuedMemory: st.QueuedMemory, Slow: st.Slow,
		Paused: st.Paused, BudgetPaused: st.BudgetPaused, PausedTotal: st.PausedTotal, HeldBytes: st.HeldBytes,
		Tasks: st.Tasks, WakeUps: st.WakeUps, Yields: st.Yields,
		InboxLen: st.InboxLen, OldestWait: st.OldestWait,
	}
}

// DropCounts is the numbers of messages that clients did not get, by reason. A message
// counts once for each client that it was for.
type DropCounts struct {
	Full      uint64 // the client's queue was full; or a ring, for a sender that must not wait
	Expired   uint64 // the time to live was over before the message could be written
	Conflated uint64 // a newer message with the same key took its place in the queue
	Budget    uint64 // all queues together were over the budget, and this client's was the largest
	Closed    uint64 // the connection was closed or closing
}

// Lost is the sum of all but Conflated.
func (c *DropCounts) Lost() uint64 { return c.Full + c.Expired + c.Budget + c.Closed }

// Add adds the counts of o.
func (c *DropCounts) Add(o *DropCounts) {
	c.Full += o.Full
	c.Expired += o.Expired
	c.Conflated += o.Conflated
	c.Budget += o.Budget
	c.Closed += o.Closed
}

// Stats is a snapshot of a Manager.
type Stats struct {
	Clients       int    // connected
	Rooms         int    // with and without members
	Handlers      int    // registered
	WaitingTasks  int    // clients whose messages wait for a worker
	DroppedEvents int64  // see EventBus
	RateLimited   uint64 // messages refused by Config.RateLimit
	Unhandled     uint64 // messages received that no handler got: the client hung up, or CloseWithCode or Shutdown came first
	LateHandlers  uint64 // calls of handlers that took longer than LogAfter
	InboundMemory int64  // bytes that count against Config.InboundBudget; 0 without one
	Stuck         int    // calls of Authenticate and CheckOrigin that go on after HandshakeTimeout, or though their client has gone
	Refused       RefusalCounts
	Accept        AcceptStats // how new connections are let in
	Loops         []LoopStats // one for each event loop
	Total         LoopStats   // their sum; of OldestWait, the maximum
}

// Stats returns a snapshot: Total is the sum of Loops as they are in it. It
// takes no lock that a loop could wait for.
func (m *Manager) Stats() Stats {
	st := Stats{
		Clients: m.GetClientCount(), Rooms: m.rooms.Len(), Handlers: m.Router.routes.Len(),
		WaitingTasks: m.waitingTasks(), DroppedEvents: m.EventBus.GetDroppedEventCount(),
		RateLimited: m.rateLimited.Load(), Unhandled: m.unhandled.Load(), LateHandlers: m.late.count.Load(),
		InboundMemory: m.engine.Inbound(), Stuck: int(m.auth.stuck.Load()),
		Refused: m.refusals.counts(), Accept: m.engine.AcceptStats(),
	}
	for _, s := range m.engine.Shards() {
		counts := s.Stats()
		loop := loopStats(&counts)
		st.Loops = append(st.Loops, loop)
		st.Total.Add(&loop)
	}
	return st
}
