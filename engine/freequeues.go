package engine

import (
	"slices"
	"time"
)

const (
	// keptQueues is the number of free queues that a shard keeps for ever.
	// keptFrames is the longest slice in them, so a single long backlog does
	// not stay.
	keptQueues = 8 << 10
	keptFrames = 128
	// moreFrames is the same for the surplus queues.
	moreFrames = 16
	// freeTime is the trim interval: every freeTime, half of the surplus queues
	// that stayed unused for the whole interval are released.
	freeTime = 10 * time.Second
)

// freeQueues are a shard's queues without a connection. A fan-out takes one for
// each member of the loop at once. If the shard kept only keptQueues of them,
// each publish to a larger room would leave the rest to the collector: with
// 500,000 members on a loop that made a delivery several times as expensive (go
// run ./bench sim).
//
// Loop-confined: use only on the event loop that owns the connections.
type freeQueues struct {
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
	if len(f.queues) < keptQueues {
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
	if keep := max(keptQueues, n-(f.least+1)/2); keep < n {
		clear(f.queues[keep:])
		f.queues = f.queues[:keep]
		if cap(f.queues) > 4*keep {
			f.queues = slices.Clone(f.queues)
		}
	}
	f.least = len(f.queues)
}
