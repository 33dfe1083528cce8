package engine

import "sync/atomic"

// ring is a bounded lock-free queue with many producers and one consumer.
//
// Credits count the free space, apart from the slots: a producer acquires a
// credit first, and then its put cannot fail. So a publisher can hold one
// credit in each of several rings before the first put.
//
// acquire, restore and put are safe for concurrent use; pop belongs to the
// consumer.
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

// slot holds one item. turn is the item's position plus one once the item is
// written, so the consumer can distinguish a filled slot from a claimed one.
type slot[T any] struct {
	turn atomic.Uint64
	item T
}

// cacheLine separates the fields of producers from those of the consumer.
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
		// Not an addition that is undone if there was no credit: another
		// producer could see a full ring meanwhile that is not full.
		if r.free.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// restore gives back n credits: unused ones, or those of items that the
// consumer has popped.
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

// pop takes the oldest item. It returns false if there is none, or if the
// producer of the next slot has claimed but not filled it. Producers can use
// the slot only after restore.
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

// len returns the approximate number of items.
func (r *ring[T]) len() int {
	return max(0, len(r.slots)-int(r.free.Load()))
}
