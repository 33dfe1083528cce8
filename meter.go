package ws

import (
	"math"
	"sync/atomic"
	"time"
)

// meter measures the rate of events in one word: it keeps a sum in which an event counts
// less the longer ago it is. Its times are of one clock. Safe for concurrent use.
type meter struct {
	word atomic.Uint64 // the time of the last event, in steps, and the sum then, as a float32
}

const (
	// meterTime is the time after which an event counts 1/e, and so the time over which the
	// rate is averaged.
	meterTime = 10 * time.Second
	// meterStep is the resolution of the time.
	meterStep = 250 * time.Millisecond
)

// count counts one event.
func (m *meter) count(now time.Duration) {
	for step := uint32(now / meterStep); ; {
		old := m.word.Load()
		sum := math.Float32bits(float32(sumAt(old, step)) + 1)
		if m.word.CompareAndSwap(old, uint64(step)<<32|uint64(sum)) {
			return
		}
	}
}

// rate returns the number of events a second.
func (m *meter) rate(now time.Duration) float64 {
	return sumAt(m.word.Load(), uint32(now/meterStep)) / meterTime.Seconds()
}

// sumAt returns the sum of word at a later time.
func sumAt(word uint64, step uint32) float64 {
	sum := float64(math.Float32frombits(uint32(word)))
	passed := int32(step - uint32(word>>32))
	if passed <= 0 || sum == 0 { // a publisher may be a step ahead
		return sum
	}
	return sum * math.Exp(-float64(passed)*meterStep.Seconds()/meterTime.Seconds())
}
