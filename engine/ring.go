package engine

import "sync/atomic"

// ring is a bounded lock-free queue with many producers and one consumer.
//
// Room is counted in credits, apart from the slots: a producer acquires a
// credit first and then cannot fail. So a publisher can hold one credit in
// each of several rings before it puts anything into any of them.
//
// acquire, restore and put are safe for concurrent use; pop and release belong
// to the consumer.
type ring[T any] struct {
	slots []slot[T]
	mask  uint64

	_    [cacheLine]byte
	tail atomic.Uint64 // next position to fill
	_    [cacheLine]byte
	free atomic.Int64 // credits
	_    [cacheLine]byte
	head uint64 // next position to read; consumer only
}

// slot holds one item. turn is the item's position plus one once it is
// written, so that the consumer can tell a filled slot from a claimed one.
type slot[T any] struct {
	turn atomic.Uint64
	item T
}

// cacheLine keeps what producers write away from what the consumer writes.
const cacheLine = 64

// newRing returns a ring of at least size slots, rounded up to a power of two.
func newRing[T any](size int) *ring[T] {
	n := uint64(1)
	for n < uint64(size) {
		n <<= 1
	}
	r := &ring[T]{slots: make([]slot[T], n), mask: n - 1}
	r.free.Store(int64(n))
	return r
}

// acquire takes one credit and reports whether there was one.
func (r *ring[T]) acquire() bool {
	for {
		n := r.free.Load()
		if n <= 0 {
			return false
		}
		// Not an addition that is taken back when it went too far: another
		// producer would meanwhile see a full ring that is not.
		if r.free.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// restore gives back n credits that were acquired and not used, or whose items
// the consumer has popped.
func (r *ring[T]) restore(n int) { r.free.Add(int64(n)) }

// put appends item and returns its position. The caller has acquired a credit.
func (r *ring[T]) put(item T) (pos uint64) {
	pos = r.tail.Add(1) - 1
	s := &r.slots[pos&r.mask]
	s.item = item
	s.turn.Store(pos + 1)
	return pos
}

// ready reports whether the next item can be popped.
func (r *ring[T]) ready() bool {
	return r.slots[r.head&r.mask].turn.Load() == r.head+1
}

// pop takes the oldest item. It reports false if there is none, or if the
// producer that claimed the next slot has not filled it yet. The slot is free
// for producers only after restore.
func (r *ring[T]) pop() (item T, ok bool) {
	if !r.ready() {
		return item, false
	}
	s := &r.slots[r.head&r.mask]
	item = s.item
	var zero T
	s.item = zero
	r.head++
	return item, true
}

// len returns about how many items wait.
func (r *ring[T]) len() int {
	return max(0, len(r.slots)-int(r.free.Load()))
}
