package pool_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/pool"
)

// number is a task to tell from others.
type number int

func (number) Run() {}

func TestRingAgainstSlice(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var r pool.Ring
		var model []number
		next := number(0)
		for range 400 {
			if rng.IntN(2) == 0 {
				for range rng.IntN(400) {
					r.Push(next)
					model = append(model, next)
					next++
				}
			} else {
				for range min(rng.IntN(400), len(model)) {
					require.Equal(t, pool.Task(model[0]), r.Pop(), "seed %d", seed)
					model = model[1:]
				}
			}
			require.Equal(t, len(model), r.Len(), "seed %d", seed)
			require.GreaterOrEqual(t, r.Cap(), r.Len())
		}
	}
}

func TestRingReleasesBursts(t *testing.T) {
	var r pool.Ring
	const n = 100_000
	for i := range number(n) {
		r.Push(i)
	}
	assert.Equal(t, 1<<17, r.Cap())
	for i := range number(n) {
		require.Equal(t, pool.Task(i), r.Pop())
		require.LessOrEqual(t, r.Cap(), max(1024, 4*r.Len()))
	}
	assert.Equal(t, 1024, r.Cap())
}
