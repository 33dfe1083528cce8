package inspect

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// freshTime is the time for which viewers share a result. A page asks every second, and must
	// not get the same result twice.
	freshTime = 900 * time.Millisecond
	// restShare is the time of rest after the computation of a result, as a multiple of the time
	// that it took: a million clients may take 2 % of a processor, not more.
	restShare = 50
)

// shared is a result that viewers share. One of them computes it at a time, and the others
// wait for it. Safe for concurrent use.
type shared[T any] struct {
	compute func() T // immutable

	mu    sync.Mutex
	value T             // guarded by mu
	ended time.Time     // guarded by mu; of the last computation
	took  time.Duration // guarded by mu
}

func (s *shared[T]) get() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.IsZero() || time.Since(s.ended) >= max(freshTime, restShare*s.took) {
		began := time.Now()
		s.value = s.compute()
		s.ended = time.Now()
		s.took = s.ended.Sub(began)
	}
	return s.value
}

// walkStep is the number of clients or rooms after which a walk lets other goroutines run. It
// takes some 10 µs.
const walkStep = 64

// walk counts the visits of a walk through all clients or rooms. Not safe for concurrent use.
type walk struct {
	visits int
	onStep func() // may be nil
}

// visit counts one visit. After each step it yields: an event loop that wakes up meanwhile must
// not wait until Go's scheduler interrupts the walk, which may take 10 ms.
func (w *walk) visit() {
	if w.visits++; w.visits%walkStep == 0 {
		if w.onStep != nil {
			w.onStep()
		}
		runtime.Gosched()
	}
}

// maxRanked is the most entries of a ranking.
const maxRanked = 100

// ranked is an entry of a ranking.
type ranked[T any] struct {
	score float64
	id    string // orders entries of the same score
	value T
}

func (a ranked[T]) compare(b ranked[T]) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
}

// ranking keeps the maxRanked entries with the highest scores above 0, as a heap whose root is
// the last of them. Not safe for concurrent use.
type ranking[T any] struct{ heap []ranked[T] }

// add adds an entry if it ranks high enough.
func (r *ranking[T]) add(score float64, id string, value T) {
	e := ranked[T]{score, id, value}
	switch {
	case score <= 0:
	case len(r.heap) < maxRanked:
		r.heap = append(r.heap, e)
		for i := len(r.heap) - 1; i > 0 && r.after(i, (i-1)/2); i = (i - 1) / 2 {
			r.heap[i], r.heap[(i-1)/2] = r.heap[(i-1)/2], r.heap[i]
		}
	case e.compare(r.heap[0]) < 0:
		r.heap[0] = e
		r.sink()
	}
}

// after reports whether entry i ranks behind entry j.
func (r *ranking[T]) after(i, j int) bool { return r.heap[i].compare(r.heap[j]) > 0 }

// sink moves the root to its place.
func (r *ranking[T]) sink() {
	for i := 0; ; {
		last := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(r.heap); child++ {
			if r.after(child, last) {
				last = child
			}
		}
		if last == i {
			return
		}
		r.heap[i], r.heap[last] = r.heap[last], r.heap[i]
		i = last
	}
}

// sorted returns the values, the highest score first.
func (r *ranking[T]) sorted() []T {
	slices.SortFunc(r.heap, ranked[T].compare)
	values := make([]T, len(r.heap))
	for i, e := range r.heap {
		values[i] = e.value
	}
	return values
}
