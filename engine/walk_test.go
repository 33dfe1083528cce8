package engine_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// A walk through a wheel visits each connection once that stays for the whole
// walk, while connections move, end and come between its steps.
func TestWalkVisitsEachConnectionOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var w engine.Wheel
	now := uint32(0)
	alive := make(map[*engine.Conn]bool)
	come := func() {
		c := new(engine.Conn)
		w.Come(c)
		w.Schedule(c, now+1+uint32(rng.IntN(600)))
		alive[c] = true
	}
	for range 300 {
		come()
	}
	change := func() (ended *engine.Conn) {
		for c := range alive {
			switch rng.IntN(8) {
			case 0:
				w.Cancel(c)
				delete(alive, c)
				come()
				return c
			case 1:
				now++
				w.Advance(now, func(c *engine.Conn) { w.Schedule(c, now+1+uint32(rng.IntN(600))) })
			default:
				w.Schedule(c, now+1+uint32(rng.IntN(600)))
			}
			return nil
		}
		return nil
	}
	for range 500 {
		expected := make(map[*engine.Conn]bool, len(alive))
		for c := range alive {
			expected[c] = true
		}
		visits := make(map[*engine.Conn]int)
		for c := w.WalkStep(true); c != nil; c = w.WalkStep(false) {
			require.True(t, alive[c], "one that has ended is visited")
			visits[c]++
			require.Equal(t, 1, visits[c])
			for range rng.IntN(3) {
				delete(expected, change())
			}
		}
		for c := range expected {
			require.Equal(t, 1, visits[c], "of %d", len(expected))
		}
	}
}
