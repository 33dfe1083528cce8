package engine

import "sync/atomic"

// DropReason says why a message did not reach a connection.
type DropReason uint8

// The reasons. A conflated message is replaced by a newer one; the others are
// lost.
const (
	DropFull      DropReason = iota // the queue, or a ring that the sender must not wait for, was full
	DropExpired                     // its time to live was over before it could be written
	DropConflated                   // a newer message with the same key took its place
	DropBudget                      // all queues together held more than Config.QueueBudget
	DropClosed                      // the connection was closed, or closing
	numDropReasons
)

// Drops counts dropped messages by reason. The zero value is ready. Safe for
// concurrent use.
type Drops struct {
	counts [numDropReasons]atomic.Uint64
}

func (d *Drops) add(why DropReason, n int) { d.counts[why].Add(uint64(n)) }

// Counts returns a snapshot.
func (d *Drops) Counts() DropCounts {
	return DropCounts{
		Full: d.counts[DropFull].Load(), Expired: d.counts[DropExpired].Load(),
		Conflated: d.counts[DropConflated].Load(), Budget: d.counts[DropBudget].Load(),
		Closed: d.counts[DropClosed].Load(),
	}
}

// DropCounts says how many messages were dropped, each counted once for each
// connection that it was for.
type DropCounts struct {
	Full      uint64 // the connection's queue was full; or a ring, for a sender that must not wait
	Expired   uint64 // the time to live was over before the message could be written
	Conflated uint64 // a newer message with the same key took its place in the queue
	Budget    uint64 // all queues together were over the budget, and this connection's was the largest
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
