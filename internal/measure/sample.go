package measure

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Two looks at the clock cost 50 to 100 ns, as much as a twentieth of an echo. So the time
// of each event is taken only while events are few: of the first exact ones of a tick. Of
// the others one in every is taken, at random, because a fixed step would miss the same event
// of each round of a client, and counts for all of them.
const (
	exact = 32
	every = 16
)

// started is the origin of Now. Immutable.
var started = time.Now()

// Now returns the time on a monotonic clock.
func Now() time.Duration { return time.Since(started) }

// Sample is the beginning of an event whose time is taken. The zero value is an event whose
// time is not taken. Immutable.
type Sample struct {
	began  time.Duration // on Now
	weight uint64        // events that it counts for; 0 if it is not taken
}

// Taken reports whether the time of the event is taken.
func (s Sample) Taken() bool { return s.weight > 0 }

// Sampler chooses events of one goroutine. The zero value is ready. Not safe for concurrent use.
type Sampler struct {
	tick  uint32 // of the last event
	taken uint32 // of the first events of the tick
	skip  uint32 // events until the next one that is taken
}

// Begin decides on an event that begins now, in the given tick of the caller's clock.
func (s *Sampler) Begin(tick uint32) Sample {
	if s.tick != tick {
		s.tick, s.taken = tick, 0
	}
	switch {
	case s.taken < exact:
		s.taken++
		return Sample{Now(), 1}
	case s.skip > 0:
		s.skip--
		return Sample{}
	}
	s.skip = rand.Uint32N(2*every - 1) // every-1 on average
	return Sample{Now(), every}
}

// SharedSampler chooses events of several goroutines. Its fields are written
// for the first events of a tick only, so the goroutines do not contend for them later. The zero
// value is ready. Safe for concurrent use.
type SharedSampler struct {
	tick  atomic.Uint32
	taken atomic.Uint32
}

// Begin decides on an event that begins now, in the given tick of the callers' clock.
func (s *SharedSampler) Begin(tick uint32) Sample {
	if s.tick.Load() != tick {
		s.tick.Store(tick)
		s.taken.Store(0)
	}
	switch {
	case s.taken.Load() < exact && s.taken.Add(1) <= exact:
		return Sample{Now(), 1}
	case rand.Uint32N(every) > 0:
		return Sample{}
	}
	return Sample{Now(), every}
}
