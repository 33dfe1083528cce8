//go:build linux

package result

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMerge asserts how the cells of two processes merge.
func TestMerge(t *testing.T) {
	a, b := NewHistogram(), NewHistogram()
	for i := range int64(100) {
		a.Record((i + 1) * int64(time.Millisecond))
		b.Record((i + 101) * int64(time.Millisecond))
	}
	for name, test := range map[string]struct {
		a, b Cell
		want any
	}{
		"sum of ints":   {SumOf(3), SumOf(4), int64(7)},
		"sum of floats": {SumOf(0.5), SumOf(0.25), 0.75},
		"highest":       {MaxOf(3), MaxOf(2), int64(3)},
		"mean":          {MeanOf(10, 1), MeanOf(20, 3), 17.5},
		"of nothing":    {MeanOf(10, 0), MeanOf(20, 0), 0.0},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, test.a.merge([]Cell{test.b}))
			assert.Equal(t, test.want, test.a.value())
		})
	}
	median, highest := MillisOf(a, 0.5), MillisOf(b, 1)
	assert.InDelta(t, 50, median.value(), 0.1)
	require.NoError(t, median.merge([]Cell{MillisOf(b, 0.5)}))
	assert.InDelta(t, 100, median.value(), 0.2)
	require.NoError(t, highest.merge([]Cell{MillisOf(a, 1)}))
	assert.InDelta(t, 200, highest.value(), 0.2)
}
