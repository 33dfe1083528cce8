//go:build linux

package tune

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInterval(t *testing.T) {
	for n, cut := range map[int]int{1: 0, 4: 0, 5: 0, 8: 0, 9: 1, 11: 2, 12: 2, 20: 5} {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64((i*7 + 3) % n) // in no order
		}
		low, high := interval(values)
		assert.InDelta(t, cut, low, 0, "of %d", n)
		assert.InDelta(t, n-1-cut, high, 0, "of %d", n)
	}
	low, high := interval(nil)
	assert.Zero(t, low+high)
}

func TestGain(t *testing.T) {
	base := []float64{10, 20, 10, 40, 10} // a machine that is busy now and then
	times := func(factors ...float64) (other []float64) {
		for i, f := range factors {
			other = append(other, base[i]*f)
		}
		return other
	}
	tests := []struct {
		name    string
		other   []float64
		verdict string
	}{
		{"the same", base, "none (noise)"},
		{"a tenth less each time", times(0.9, 0.9, 0.9, 0.9, 0.9), "gain"},
		{"less each time, once hardly", times(0.8, 0.9, 0.99, 0.7, 0.9), "gain"},
		{"less but for one round", times(0.5, 0.5, 1.01, 0.5, 0.5), "none (noise)"},
		{"hardly less", times(0.99, 0.98, 0.99, 0.98, 0.99), "none (noise)"},
		{"too few rounds", times(0.5, 0.5, 0.5, 0.5), "none (noise)"},
		{"more each time", times(1.2, 1.1, 1.3, 1.2, 1.1), "loss"},
		{"more but for one round", times(1.2, 1.1, 0.99, 1.2, 1.1), "none (noise)"},
		{"nothing measured", nil, "none (noise)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.verdict, newGain(base, tt.other).verdict())
		})
	}
	g := newGain(base, times(0.8, 0.9, 0.9, 0.9, 0.95))
	assert.Equal(t, "10.0 % less (5.0 to 20.0 % in 5 rounds)", g.String())
}

// Noise alone seldom counts as a gain, and a gain above the noise mostly does.
func TestGainOfNoise(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	gains := func(factor float64, rounds int) (n int) {
		for range 2000 {
			base, other := make([]float64, rounds), make([]float64, rounds)
			for i := range rounds {
				busy := 1 + 3*random.Float64() // in common
				base[i] = busy * (1 + 0.05*random.NormFloat64())
				other[i] = factor * busy * (1 + 0.05*random.NormFloat64())
			}
			if newGain(base, other).real() {
				n++
			}
		}
		return n
	}
	for _, rounds := range []int{5, 9, 15} {
		assert.Less(t, gains(1, rounds), 2000/20, "%d rounds", rounds)
		assert.Greater(t, gains(0.8, rounds), 2000*9/10, "%d rounds", rounds)
	}
}

// Each round is a permutation, and no setting comes first or behind another one
// all the time.
func TestTurns(t *testing.T) {
	const n = 6
	first, behind := map[int]int{}, map[[2]int]int{}
	for round := range n {
		var order []int
		for i := range n {
			order = append(order, turn(i, n, round))
			if i > 0 {
				behind[[2]int{order[i-1], order[i]}]++
			}
		}
		first[order[0]]++
		slices.Sort(order)
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, order)
	}
	for _, times := range first {
		assert.LessOrEqual(t, times, 2)
	}
	for pair, times := range behind {
		assert.LessOrEqual(t, times, 3, "%v", pair)
	}
}
