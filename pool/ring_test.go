package pool_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/pool"
)

// number is a task with an identity.
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

// A withdrawn task leaves nil in its place. The ticket of a popped task has no effect.
func TestRingWithdraw(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var r pool.Ring
		var tickets []uint64
		var model []pool.Task // in the order of tickets
		popped := 0
		assert.False(t, r.Withdraw(0))
		for n := range number(5000) {
			switch rng.IntN(5) {
			case 0, 1, 2:
				tickets, model = append(tickets, r.Push(n)), append(model, n)
			case 3:
				if popped < len(model) {
					require.Equal(t, model[popped], r.Pop())
					model[popped] = nil
					popped++
				}
			case 4:
				if i := rng.IntN(len(model) + 1); i < len(model) {
					require.Equal(t, model[i] != nil, r.Withdraw(tickets[i]))
					model[i] = nil
				}
			}
			require.Equal(t, len(model)-popped, r.Len())
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
