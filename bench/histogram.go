//go:build linux

package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the longest duration that a histogram tells from longer ones.
const longest = 10 * time.Minute

// histogram counts durations, exact to three digits. Not safe for concurrent
// use.
type histogram struct{ h *hdrhistogram.Histogram }

func newHistogram() histogram {
	return histogram{hdrhistogram.New(1, int64(longest), 3)}
}

// record counts d nanoseconds; a negative one, from clocks read on two cores,
// counts as 0.
func (h histogram) record(d int64) {
	_ = h.h.RecordValue(min(max(d, 0), int64(longest))) // within its range
}

// add adds the counts of o.
func (h histogram) add(o histogram) { h.h.Merge(o.h) }

// quantile returns the duration that the share q of all does not exceed.
func (h histogram) quantile(q float64) time.Duration {
	return time.Duration(h.h.ValueAtQuantile(q * 100))
}

func (h histogram) count() int64       { return h.h.TotalCount() }
func (h histogram) max() time.Duration { return time.Duration(h.h.Max()) }
