//go:build linux

package main

import (
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

const (
	subBits    = 6 // 64 steps for each power of two: values are exact to 1.6%
	subBuckets = 1 << subBits
)

// histogram counts durations in logarithmic buckets, like HDR histograms. Not
// safe for concurrent use.
type histogram struct {
	counts [(64 - subBits + 1) * subBuckets]uint64
	total  uint64
	max    int64
}

// bucketOf returns the bucket of v.
func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// bucketTop returns the largest value of bucket i.
func bucketTop(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}

// record counts d; a negative one, from clocks read on two cores, counts as 0.
func (h *histogram) record(d int64) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

// add adds the counts of o.
func (h *histogram) add(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// quantile returns the duration that the share q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return time.Duration(min(int64(bucketTop(i)), h.max))
		}
	}
	return 0
}

// The clock that server and load generator share: CLOCK_MONOTONIC, which Go
// reads without a system call, and its value at our start.
var (
	clockStart = time.Now()
	clockBase  = func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic(err)
		}
		return ts.Nano()
	}()
)

// monotonicNow returns CLOCK_MONOTONIC in nanoseconds, the same in every
// process of the machine.
func monotonicNow() int64 { return clockBase + int64(time.Since(clockStart)) }
