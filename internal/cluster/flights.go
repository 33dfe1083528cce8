package cluster

import (
	"sync/atomic"
	"time"
)

// Flights is the set of the calls that are under way, for a goroutine that waits until each of them has
// ended. Begin and End never wait. Safe for concurrent use.
type Flights struct {
	side  atomic.Uint32 // the calls that begin now are counted in under[side&1]
	under [2]atomic.Int64
}

// Begin notes a call. Its result is for End.
func (f *Flights) Begin() (side uint32) {
	for {
		side = f.side.Load() & 1
		f.under[side].Add(1)
		if f.side.Load()&1 == side {
			return side
		}
		f.under[side].Add(-1) // Wait has possibly not seen it
	}
}

// End notes the end of a call.
func (f *Flights) End(side uint32) { f.under[side].Add(-1) }

// Wait returns true when all calls that have begun before it have ended, and false when ending is closed.
// One goroutine calls it at a time.
func (f *Flights) Wait(ending <-chan struct{}) bool {
	side := (f.side.Add(1) - 1) & 1 // the calls that begin now are on the other side
	for f.under[side].Load() != 0 {
		select {
		case <-time.After(flightPoll):
		case <-ending:
			return false
		}
	}
	return true
}

// flightPoll is the time between two looks of Wait.
const flightPoll = time.Millisecond
