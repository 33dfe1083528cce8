package ws

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/internal/measure"
)

// Times is a histogram of times. Buckets counts the times up to 10, 30, 100 and 300 µs, 1, 3,
// 10, 30, 100 and 300 ms, 1, 3 and 10 s, and beyond.
type Times struct {
	Buckets [measure.NumBuckets]uint64
	Sum     time.Duration
}

// Sizes is a histogram of sizes in bytes. Buckets counts the sizes up to 256 B, 1, 4, 16, 64
// and 256 KiB, 1, 4, 16, 64 and 256 MiB, 1 and 4 GiB, and beyond.
type Sizes struct {
	Buckets [measure.NumBuckets]uint64
	Sum     uint64
}

// Add adds the counts of o.
func (t *Times) Add(o *Times) { (*measure.TimeCounts)(t).Add((*measure.TimeCounts)(o)) }

// Add adds the counts of o.
func (s *Sizes) Add(o *Sizes) { (*measure.SizeCounts)(s).Add((*measure.SizeCounts)(o)) }

// The bounds of the buckets, in seconds and bytes. Immutable.
var (
	timeBounds = measure.TimeBounds()
	sizeBounds = measure.SizeBounds()
)

func (t *Times) values() (bounds []float64, counts []uint64, sum float64) {
	return timeBounds, t.Buckets[:], t.Sum.Seconds()
}

func (s *Sizes) values() (bounds []float64, counts []uint64, sum float64) {
	return sizeBounds, s.Buckets[:], float64(s.Sum)
}

// Histogram describes one histogram of Stats, for metrics and pages. Bounds and Counts are
// shared and must not be changed.
type Histogram struct {
	Name   string    // in snake case with its unit, such as "handshake_seconds"
	Help   string    // the comment of its field
	Event  string    // of RouteStats; otherwise ""
	Bounds []float64 // upper bounds of the buckets, inclusive, ascending
	Counts []uint64  // values in each bucket, one more than Bounds: the last holds those beyond
	Sum    float64   // of all values
}

// Count returns the number of values.
func (h *Histogram) Count() (n uint64) {
	for _, count := range h.Counts {
		n += count
	}
	return n
}

// Histograms yields each histogram of st: those of all event loops together, and those of
// each route.
func (st *Stats) Histograms() iter.Seq[Histogram] {
	return func(yield func(Histogram) bool) {
		for _, h := range loopHistograms {
			if !yield(h.of(&st.Total, "")) {
				return
			}
		}
		for i := range st.Routes {
			r := &st.Routes[i]
			for _, h := range routeHistograms {
				if !yield(h.of(r, r.Event)) {
					return
				}
			}
		}
	}
}

// histogram is a histogram in a T.
type histogram[T any] struct {
	name, help string
	values     func(*T) (bounds []float64, counts []uint64, sum float64)
}

func (h *histogram[T]) of(st *T, event string) Histogram {
	bounds, counts, sum := h.values(st)
	return Histogram{Name: h.name, Help: h.help, Event: event, Bounds: bounds, Counts: counts, Sum: sum}
}

// Events of messages that have none. A route of the same name shares the histogram.
const (
	otherEvent  = "other" // without a handler, or no envelope
	rawEvent    = "raw"
	binaryEvent = "binary"
)

// handlerTimes holds the times of handlers by event and loop. A message that a worker handles
// counts for the loop of its client. Safe for concurrent use.
type handlerTimes struct {
	loops int // immutable

	// Atomic. Replaced with mu held.
	byEvent atomic.Pointer[map[string][]loopTimes]

	mu sync.Mutex // held while byEvent is replaced
}

// loopTimes is a histogram with cache lines of its own.
type loopTimes struct {
	measure.Times
	_ [8]byte
}

func newHandlerTimes(loops int) *handlerTimes {
	t := &handlerTimes{loops: loops}
	t.byEvent.Store(&map[string][]loopTimes{otherEvent: make([]loopTimes, loops)})
	return t
}

// add adds an event, once.
func (t *handlerTimes) add(event string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.byEvent.Load()
	if old[event] != nil {
		return
	}
	next := maps.Clone(old)
	next[event] = make([]loopTimes, t.loops)
	t.byEvent.Store(&next)
}

// note counts the time of a message, if it was taken.
func (t *handlerTimes) note(event string, loop int, s measure.Sample) {
	if loops := (*t.byEvent.Load())[event]; loops != nil {
		loops[loop].Note(s)
	}
}

// stats returns a snapshot, sorted by event.
func (t *handlerTimes) stats() []RouteStats {
	byEvent := *t.byEvent.Load()
	all := make([]RouteStats, 0, len(byEvent))
	for event, loops := range byEvent {
		st := RouteStats{Event: event}
		for i := range loops {
			counts := Times(loops[i].Counts())
			st.Handler.Add(&counts)
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b RouteStats) int { return strings.Compare(a.Event, b.Event) })
	return all
}
