//go:build linux

package soak

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestJudge asserts that the verdict finds slow leaks, and is not moved by noise, a slow
// start, or single peaks.
func TestJudge(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	heap := resource{"heap MiB", nil, 0.5, 0.1}
	for name, test := range map[string]struct {
		of   func(i int) float64
		flat bool
	}{
		"constant":             {func(int) float64 { return 8 }, true},
		"noise":                {func(int) float64 { return 8 + random.Float64()/2 }, true},
		"a leak":               {func(i int) float64 { return 8 + 0.06*float64(i) + random.Float64()/2 }, false},
		"a slow start":         {func(i int) float64 { return 8 - 4/float64(i+1) }, true},
		"peaks":                {func(i int) float64 { return 8 + 30*float64(i%5/4) }, true},
		"only at the end more": {func(i int) float64 { return 8 + 3*float64(i/25) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var values []float64
			for i := range 40 {
				values = append(values, test.of(i))
			}
			trend := heap.judge(values)
			assert.Equal(t, test.flat, trend.flat(), "%+v", trend)
		})
	}
	clients := resource{"clients", nil, 0, 0}
	assertTrend := func(flat bool, values ...float64) {
		trend := clients.judge(values)
		assert.Equal(t, flat, trend.flat())
	}
	assertTrend(true, 40, 40, 40, 40)
	assertTrend(false, 40, 40, 40, 41)
}
