package cluster

import "sync"

// Queue holds what waits for a link, bounded in bytes. A producer reserves space before it decides
// on its item, and then pushes the item or gives the space back. Once a reservation was refused,
// all are, until half of the queue is free. Safe for concurrent use.
type Queue[T any] struct {
	limit int64
	ready chan struct{} // holds one token when there may be news for the consumer

	mu     sync.Mutex
	used   int64 // bytes of items, also of the one that is being sent, and of reservations
	items  []T   // guarded by mu, from first on
	first  int   // guarded by mu
	full   bool  // guarded by mu
	closed bool  // guarded by mu
}

// NewQueue returns an empty queue that holds limit bytes, and at least one item of any size.
func NewQueue[T any](limit int64) *Queue[T] {
	return &Queue[T]{limit: limit, ready: make(chan struct{}, 1)}
}

// Reserve reserves n bytes, at least 1, and reports whether there was space.
func (q *Queue[T]) Reserve(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full && q.used <= q.limit/2 {
		q.full = false
	}
	if q.closed || q.full || q.used > 0 && q.used+int64(n) > q.limit {
		q.full = true
		return false
	}
	q.used += int64(n)
	return true
}

// Release gives n bytes back: of a reservation, or of an item that was sent.
func (q *Queue[T]) Release(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= int64(n)
	if q.closed && q.used == 0 {
		q.wake()
	}
}

// Push appends an item for which space is reserved. It must be given back when the item is sent.
func (q *Queue[T]) Push(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first > 0 && len(q.items) == cap(q.items) && q.first >= len(q.items)/2 {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
	q.wake()
}

// Pop takes the oldest item.
func (q *Queue[T]) Pop() (item T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first == len(q.items) {
		return item, false
	}
	var none T
	item, q.items[q.first] = q.items[q.first], none
	q.first++
	if q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
		if cap(q.items) > maxIdle {
			q.items = nil
		}
	}
	return item, true
}

// maxIdle is the greatest number of places that an empty queue keeps.
const maxIdle = 1024

// Ready returns a channel on which a token comes after a Push, after Wake, and when a closed queue
// becomes empty.
func (q *Queue[T]) Ready() <-chan struct{} { return q.ready }

// Wake sends a token.
func (q *Queue[T]) Wake() { q.wake() }

func (q *Queue[T]) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Full reports whether reservations are refused for want of space.
func (q *Queue[T]) Full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.full && q.used > q.limit/2
}

// Bytes returns the bytes of the items and reservations.
func (q *Queue[T]) Bytes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}

// Close refuses reservations from now on.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}

// Ended reports whether the queue is closed, and nothing is reserved or unsent.
func (q *Queue[T]) Ended() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && q.used == 0
}
