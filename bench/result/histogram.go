//go:build linux

package result

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest duration that a histogram distinguishes from longer ones.
const longest = 10 * time.Minute

// Histogram counts durations, exact to three digits. Not safe for concurrent
// use.
type Histogram struct{ h *hdrhistogram.Histogram }

// NewHistogram returns an empty histogram.
func NewHistogram() Histogram {
	return Histogram{hdrhistogram.New(1, int64(longest), 3)}
}

// Record counts d nanoseconds; a negative one, from clocks read on two cores,
// counts as 0.
func (h Histogram) Record(d int64) {
	_ = h.h.RecordValue(min(max(d, 0), int64(longest))) // within its range
}

// Add adds the counts of o.
func (h Histogram) Add(o Histogram) { h.h.Merge(o.h) }

// Quantile returns the duration that the share q of all does not exceed.
func (h Histogram) Quantile(q float64) time.Duration {
	return time.Duration(h.h.ValueAtQuantile(q * 100))
}

// Count returns how many durations were counted.
func (h Histogram) Count() int64 { return h.h.TotalCount() }

// Max returns the longest duration.
func (h Histogram) Max() time.Duration { return time.Duration(h.h.Max()) }
