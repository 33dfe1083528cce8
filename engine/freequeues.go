package engine

import (
	"slices"
	"time"
)

const (
	// keptQueues is how many free queues a shard keeps for ever, and keptFrames
	// the longest slice in them, so that one long backlog does not stay.
	keptQueues = 8 << 10
	keptFrames = 128
	// moreFrames is the same for the free queues beyond.
	moreFrames = 16
	// freeTime is how long a free queue beyond keptQueues may wait for its use:
	// of those that nobody has needed for so long, half are given up.
	freeTime = 10 * time.Second
)

// freeQueues are a shard's queues that no connection has. A fan-out takes one
// for each member of the loop at once. If no more than keptQueues came back, each
// publish to a larger room would leave the rest to the collector: with 500,000 members
// on a loop that made a delivery several times as costly (go run ./bench sim).
//
// Loop-confined: use only on the event loop that owns the connections.
type freeQueues struct {
	queues []*queue
	least  int    // so many have not been needed since the last trim
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

// trim gives up half of what was not needed for so many ticks.
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
