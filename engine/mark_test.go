package engine_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// In a lane from which frames leave as fast as they come, the age stays between
// the distance of the marks, less a tick, and the time that the frames wait.
func TestAgeOfASteadyQueue(t *testing.T) {
	const spacing, wait = 20, 100
	var q engine.Queue
	for now := range uint32(1000) {
		q.Push(raw("x", engine.Handling{}))
		q.NoteAges(now, spacing)
		if now < wait {
			require.Equal(t, now, q.Age(now))
			continue
		}
		_, _ = q.Advance(1)
		require.LessOrEqual(t, q.Age(now), uint32(wait))
		require.GreaterOrEqual(t, q.Age(now), uint32(spacing-1), "at %d", now)
	}
}

// A frame that conflates another one has its age; a partly sent frame keeps its
// age from the time when the socket became full.
func TestAgeOfAPlace(t *testing.T) {
	var q engine.Queue
	price := func(text string) *engine.Frame { return raw(text, engine.Handling{Key: "a"}) }
	q.Push(price("1"))
	q.NoteAges(10, 5)
	for now := uint32(11); now < 50; now++ {
		require.NotNil(t, q.Replace(price("22")))
		q.NoteAges(now, 5)
		require.Equal(t, now-10, q.Age(now))
	}
	q.Advance(1)
	assert.Zero(t, q.Age(60), "half sent, and its socket takes more")
	q.NoteBegun(60)
	q.NoteBegun(70) // it has taken a little
	assert.EqualValues(t, 20, q.Age(80))
	q.Advance(1)
	assert.Zero(t, q.Age(90))
	q.Push(price("3"))
	q.NoteAges(100, 5)
	q.Reset()
	assert.Zero(t, q.Age(110))
}

// TestAgeAgainstAModel does random operations: the age is never more than the
// age of the oldest frame, and not 0 while frames wait.
func TestAgeAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var q engine.Queue
		var lanes [2][]uint32 // ticks of the frames
		var expiring [2][]bool
		for now := uint32(1); now < 3000; now++ {
			lane := rng.IntN(2)
			l, x := &lanes[lane], &expiring[lane]
			switch n := rng.IntN(20); {
			case n < 11:
				f := raw("x", engine.Handling{Lane: engine.Lane(lane)})
				expires := rng.IntN(3) == 0
				if expires {
					f.ExpiringAt(time.Duration(now + 1))
				}
				q.Push(f)
				q.NoteAges(now, 30)
				*l, *x = append(*l, now), append(*x, expires)
			case n < 13 && len(*l) > 0: // evict
				at := rng.IntN(2) * (len(*l) - 1)
				q.Evict(engine.Lane(lane), at == 0)
				*l, *x = slices.Delete(*l, at, at+1), slices.Delete(*x, at, at+1)
			case n < 19: // send
				lane := 1
				if len(lanes[1]) == 0 {
					lane = 0
				}
				if len(lanes[lane]) > 0 {
					_, _ = q.Advance(1)
					lanes[lane], expiring[lane] = lanes[lane][1:], expiring[lane][1:]
				}
			default: // expire
				q.Purge(time.Duration(now), func(*engine.Frame) {})
				for i := range lanes {
					var kept []uint32
					for j, tick := range lanes[i] {
						if !expiring[i][j] {
							kept = append(kept, tick)
						}
					}
					lanes[i], expiring[i] = kept, make([]bool, len(kept))
				}
			}
			oldest := uint32(0)
			for _, l := range lanes {
				if len(l) > 0 {
					oldest = max(oldest, now-l[0])
				}
			}
			require.LessOrEqual(t, q.Age(now), oldest, "seed %d, tick %d", seed, now)
			if oldest == 0 {
				require.Zero(t, q.Age(now))
			}
		}
	}
}
