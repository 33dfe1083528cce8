//go:build linux

package result

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHistogram(t *testing.T) {
	h, other := NewHistogram(), NewHistogram()
	for d := range int64(1000) {
		h.Record(d * 2000)
		other.Record(d*2000 + 1000)
	}
	h.Add(other)
	assert.EqualValues(t, 2000, h.Count())
	assert.InDelta(t, time.Millisecond, h.Quantile(0.5), float64(time.Microsecond)*2)
	h.Record(-1)
	h.Record(int64(24 * time.Hour))
	assert.InEpsilon(t, longest, h.Max(), 0.001)
}
