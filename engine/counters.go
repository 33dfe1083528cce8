// Code generated from stats.go by statsgen; DO NOT EDIT.

package engine

import "time"

// The reasons for drops.
const (
	DropFull      DropReason = iota // the client's queue was full; or a ring, for a sender that must not wait
	DropExpired                     // the time to live was over before the message could be written
	DropConflated                   // a newer message with the same key took its place in the queue
	DropBudget                      // all queues together were over the budget, and this client's was the largest
	DropClosed                      // the connection was closed or closing
	numDropReasons
)

// DropCounts is the numbers of messages that connections did not get, by reason.
type DropCounts struct {
	Full      uint64 // the client's queue was full; or a ring, for a sender that must not wait
	Expired   uint64 // the time to live was over before the message could be written
	Conflated uint64 // a newer message with the same key took its place in the queue
	Budget    uint64 // all queues together were over the budget, and this client's was the largest
	Closed    uint64 // the connection was closed or closing
}

// Counts returns a snapshot.
func (d *Drops) Counts() DropCounts {
	return DropCounts{
		Full:      d.counts[DropFull].Load(),
		Expired:   d.counts[DropExpired].Load(),
		Conflated: d.counts[DropConflated].Load(),
		Budget:    d.counts[DropBudget].Load(),
		Closed:    d.counts[DropClosed].Load(),
	}
}

// shardStats is the counters of a shard.
type shardStats struct {
	connections  counter
	opened       counter
	closed       counter
	messagesIn   counter
	messagesOut  counter
	bytesIn      counter
	bytesOut     counter
	writes       counter
	blockedTotal counter
	blocked      counter
	queuedMemory counter
	slow         counter
	paused       counter
	budgetPaused counter
	pausedTotal  counter
	heldBytes    counter
	tasks        counter
	yields       counter
	inboxLen     counter
	oldestWait   counter
	wakeUps      counter
	drops        Drops
}

// ShardStats is a snapshot of a shard's counters.
type ShardStats struct {
	Connections  int           // sockets, those in the handshake included
	Opened       uint64        // connections that finished the handshake
	Closed       uint64        // connections that finished the handshake and ended
	MessagesIn   uint64        // data messages received
	MessagesOut  uint64        // data messages sent
	BytesIn      uint64        // bytes received
	BytesOut     uint64        // bytes sent
	Writes       uint64        // write and writev calls
	BlockedTotal uint64        // times a socket was full
	Blocked      int           // connections whose socket is full
	QueuedMemory int64         // memory of the queues of blocked connections, for QueueBudget; a frame counts in each queue
	Slow         int           // connections between OnSlow and OnDrain
	Paused       int           // connections that are not read, so that their clients wait
	BudgetPaused int           // connections paused for the InboundBudget; counted about four times a second
	PausedTotal  uint64        // times a connection was paused
	HeldBytes    int64         // bytes received of paused connections that are not decoded yet
	Tasks        uint64        // tasks run from the inbox
	Yields       uint64        // turns cut short for fairness
	InboxLen     int           // tasks waiting in the inbox
	OldestWait   time.Duration // least age of the oldest message that waits for a full socket; measured 4 times a second
	WakeUps      uint64        // times the loop was woken for its inbox
	Drops        DropCounts    // messages that were not sent
}

func (st *shardStats) snapshot() ShardStats {
	return ShardStats{
		Connections:  int(st.connections.Load()),
		Opened:       uint64(st.opened.Load()),
		Closed:       uint64(st.closed.Load()),
		MessagesIn:   uint64(st.messagesIn.Load()),
		MessagesOut:  uint64(st.messagesOut.Load()),
		BytesIn:      uint64(st.bytesIn.Load()),
		BytesOut:     uint64(st.bytesOut.Load()),
		Writes:       uint64(st.writes.Load()),
		BlockedTotal: uint64(st.blockedTotal.Load()),
		Blocked:      int(st.blocked.Load()),
		QueuedMemory: int64(st.queuedMemory.Load()),
		Slow:         int(st.slow.Load()),
		Paused:       int(st.paused.Load()),
		BudgetPaused: int(st.budgetPaused.Load()),
		PausedTotal:  uint64(st.pausedTotal.Load()),
		HeldBytes:    int64(st.heldBytes.Load()),
		Tasks:        uint64(st.tasks.Load()),
		Yields:       uint64(st.yields.Load()),
		InboxLen:     int(st.inboxLen.Load()),
		OldestWait:   time.Duration(st.oldestWait.Load()),
		WakeUps:      uint64(st.wakeUps.Load()),
		Drops:        st.drops.Counts(),
	}
}

// Add adds the numbers of o.
func (st *ShardStats) Add(o *ShardStats) {
	st.Connections += o.Connections
	st.Opened += o.Opened
	st.Closed += o.Closed
	st.MessagesIn += o.MessagesIn
	st.MessagesOut += o.MessagesOut
	st.BytesIn += o.BytesIn
	st.BytesOut += o.BytesOut
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
	st.Yields += o.Yields
	st.InboxLen += o.InboxLen
	st.OldestWait = max(st.OldestWait, o.OldestWait)
	st.WakeUps += o.WakeUps
	st.Drops.Add(&o.Drops)
}

// Add adds the numbers of o.
func (st *DropCounts) Add(o *DropCounts) {
	st.Full += o.Full
	st.Expired += o.Expired
	st.Conflated += o.Conflated
	st.Budget += o.Budget
	st.Closed += o.Closed
}
