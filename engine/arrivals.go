package engine

import (
	"sort"
	"sync"
	"time"
)

// arrivals records the times at which connections came, without memory for each of them:
// generations rise, so the last generation of a tick dates all connections of that tick.
// Older entries are further apart. Safe for concurrent use.
type arrivals struct {
	mu   sync.Mutex
	list []dated // guarded by mu; in the order of time
}

// dated says that the connections up to a generation have come by a tick.
type dated struct{ last, tick uint32 }

const (
	// maxArrivals is the length at which the list is thinned out. Thinned, it has less than
	// arrivalShare * (1 + ln(ticks since Run / arrivalShare)) entries, so 2,500 for any time.
	maxArrivals = 4096
	// arrivalShare is the part of an age by which it may be wrong.
	arrivalShare = 128
)

// note records the last generation at tick now.
func (a *arrivals) note(last, now uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.list); n > 0 && a.list[n-1].last == last || n == 0 && last == 0 {
		return
	}
	if len(a.list) >= maxArrivals {
		a.thinOutLocked(now)
	}
	a.list = append(a.list, dated{last, now})
}

// thinOutLocked drops entries that are closer to the one before than a share of their age.
// Their connections count with the next entry.
func (a *arrivals) thinOutLocked(now uint32) {
	kept, before := a.list[:0], uint32(0)
	for i, e := range a.list {
		if i+1 < len(a.list) && a.list[i+1].tick-before <= (now-e.tick)/arrivalShare {
			continue
		}
		kept, before = append(kept, e), e.tick
	}
	a.list = kept
}

// of returns the tick at which a connection of that generation came: now if it came
// after the last note.
func (a *arrivals) of(generation, now uint32) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := sort.Search(len(a.list), func(i int) bool { return int32(a.list[i].last-generation) >= 0 })
	if i == len(a.list) {
		return now
	}
	return a.list[i].tick
}

// Since returns the time at which the connection came, before its handshake. It is
// exact to a tick and to a hundredth of the time since. Safe for concurrent use once the
// connection is open.
func (c *Conn) Since() time.Time {
	e := c.shard.eng
	return e.began.Add(time.Duration(e.arrivals.of(c.generation, e.now.Load())) * e.tickTime)
}
