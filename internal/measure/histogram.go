// Package measure keeps histograms of times and sizes in plain arrays, and chooses the
// events whose time is taken.
package measure

import (
	"sync/atomic"
	"time"
)

// NumBuckets is the number of buckets of each histogram: one up to each bound, and one for
// the values beyond the last.
const NumBuckets = 14

// timeBounds and sizeBounds are the upper bounds of the buckets, inclusive. Three steps
// in two powers of ten are as fine as an alarm needs. Immutable.
var (
	timeBounds = [NumBuckets - 1]time.Duration{
		10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond, 300 * time.Microsecond,
		time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
		100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
	}
	sizeBounds = [NumBuckets - 1]int{
		256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10,
		1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30,
	}
)

// TimeBounds returns the bounds of Times in seconds.
func TimeBounds() []float64 {
	bounds := make([]float64, len(timeBounds))
	for i, d := range timeBounds {
		bounds[i] = d.Seconds()
	}
	return bounds
}

// SizeBounds returns the bounds of Sizes in bytes.
func SizeBounds() []float64 {
	bounds := make([]float64, len(sizeBounds))
	for i, n := range sizeBounds {
		bounds[i] = float64(n)
	}
	return bounds
}

// Times is a histogram of times. The zero value is ready. Safe for concurrent use.
type Times struct {
	buckets [NumBuckets]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

// TimeCounts is a snapshot of Times.
type TimeCounts struct {
	Buckets [NumBuckets]uint64
	Sum     time.Duration
}

// Observe counts weight events that took d each. It adds to the sum first, so that the sum of a
// snapshot has all events that its buckets have.
func (h *Times) Observe(d time.Duration, weight uint64) {
	d = max(d, 0)
	i := 0
	for i < len(timeBounds) && d > timeBounds[i] {
		i++
	}
	h.sum.Add(int64(d) * int64(weight))
	h.buckets[i].Add(weight)
}

// Note counts the time since the beginning of s, if that was taken. It returns a
// sample that begins now.
func (h *Times) Note(s Sample) Sample {
	if !s.Taken() {
		return s
	}
	now := Now()
	h.Observe(now-s.began, s.weight)
	s.began = now
	return s
}

// Counts returns a snapshot.
func (h *Times) Counts() (c TimeCounts) {
	for i := range h.buckets {
		c.Buckets[i] = h.buckets[i].Load()
	}
	c.Sum = time.Duration(h.sum.Load())
	return c
}

// Add adds the counts of o.
func (c *TimeCounts) Add(o *TimeCounts) {
	for i, n := range o.Buckets {
		c.Buckets[i] += n
	}
	c.Sum += o.Sum
}

// Sizes is a histogram of sizes in bytes. The zero value is ready. Safe for concurrent
// use.
type Sizes struct {
	buckets [NumBuckets]atomic.Uint64
	sum     atomic.Uint64
}

// SizeCounts is a snapshot of Sizes.
type SizeCounts struct {
	Buckets [NumBuckets]uint64
	Sum     uint64
}

// Observe counts n bytes, in the order of Times.Observe.
func (h *Sizes) Observe(n int) {
	i := 0
	for i < len(sizeBounds) && n > sizeBounds[i] {
		i++
	}
	h.sum.Add(uint64(n))
	h.buckets[i].Add(1)
}

// Counts returns a snapshot.
func (h *Sizes) Counts() (c SizeCounts) {
	for i := range h.buckets {
		c.Buckets[i] = h.buckets[i].Load()
	}
	c.Sum = h.sum.Load()
	return c
}

// Add adds the counts of o.
func (c *SizeCounts) Add(o *SizeCounts) {
	for i, n := range o.Buckets {
		c.Buckets[i] += n
	}
	c.Sum += o.Sum
}
