package engine

import "sync/atomic"

// DropReason is the reason for a message not to reach a connection. A conflated
// message is replaced by a newer one; the others are lost.
type DropReason uint8

// Drops counts dropped messages by reason. The zero value is ready. Safe for
// concurrent use.
type Drops struct {
	counts [numDropReasons]atomic.Uint64
}

func (d *Drops) add(why DropReason, n int) { d.counts[why].Add(uint64(n)) }

// Lost returns the sum of all counts except Conflated.
func (c *DropCounts) Lost() uint64 { return c.Full + c.Expired + c.Budget + c.Closed }
