package report

import (
	"math"
	"slices"
)

// scale maps values to a stretch of pixels. Its ends and ticks are round.
// Immutable after newScale.
type scale struct {
	lo, hi   float64 // values
	from, to float64 // pixels
	log      bool
	ticks    []float64
}

// newScale covers values with about at most the given number of ticks. A linear
// scale of values that come near 0 begins there.
func newScale(values []float64, log, zero bool, count int) *scale {
	values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool {
		return math.IsNaN(v) || math.IsInf(v, 0) || (log && v <= 0)
	})
	s := &scale{log: log, lo: 0, hi: 1}
	if log {
		s.lo, s.hi = 1, 10
	}
	if len(values) > 0 {
		s.lo, s.hi = slices.Min(values), slices.Max(values)
	}
	if log {
		s.logTicks(count)
		return s
	}
	if zero || s.lo < s.hi/3 {
		s.lo = min(s.lo, 0)
	}
	if s.hi <= s.lo {
		s.hi = s.lo + max(math.Abs(s.lo), 1)
	}
	s.linearTicks(count)
	return s
}

// linearTicks chooses a step of 1, 2 or 5 times a power of ten.
func (s *scale) linearTicks(count int) {
	step := round125((s.hi-s.lo)/float64(max(count, 1)), true)
	first, last := math.Floor(s.lo/step+1e-9), math.Ceil(s.hi/step-1e-9)
	for i := first; i <= last; i++ {
		s.ticks = append(s.ticks, i*step)
	}
	s.lo, s.hi = first*step, last*step
}

// logTicks chooses powers of ten, or with few of these 1, 2 and 5 times them.
func (s *scale) logTicks(count int) {
	s.lo, s.hi = round125(s.lo, false), round125(s.hi, true)
	if s.hi <= s.lo*1.001 {
		s.lo, s.hi = round125(s.lo*0.7, false), round125(s.hi*1.1, true)
	}
	decades := math.Log10(s.hi / s.lo)
	per := []float64{1}
	every := max(1, int(math.Ceil(decades/float64(max(count, 1)))))
	if decades*3 <= float64(count) || decades < 1.5 {
		per = []float64{1, 2, 5}
	}
	for e := int(math.Floor(math.Log10(s.lo) + 1e-9)); float64(e) <= math.Log10(s.hi)+1e-9; e += every {
		for _, m := range per {
			if v := m * math.Pow(10, float64(e)); v >= s.lo*0.999 && v <= s.hi*1.001 {
				s.ticks = append(s.ticks, v)
			}
		}
	}
}

// round125 rounds v up or down to 1, 2 or 5 times a power of ten.
func round125(v float64, up bool) float64 {
	if v <= 0 {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(v)))
	last := base
	for _, m := range []float64{1, 2, 5, 10} {
		if v <= m*base*(1+1e-9) && up {
			return m * base
		}
		if v < m*base*(1-1e-9) {
			return last
		}
		last = m * base
	}
	return last
}

// at returns the place of v, or the nearer end if v is outside.
func (s *scale) at(v float64) float64 {
	share := 0.0
	if s.log {
		if v > 0 {
			share = math.Log(v/s.lo) / math.Log(s.hi/s.lo)
		}
	} else {
		share = (v - s.lo) / (s.hi - s.lo)
	}
	return s.from + min(max(share, 0), 1)*(s.to-s.from)
}
