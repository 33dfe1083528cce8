package engine_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/engine"
)

// The list of arrivals stays short, and dates a connection within a hundredth of its age.
func TestArrivals(t *testing.T) {
	for _, first := range []uint32{0, 1<<32 - 1_000_000} { // on either side of an overflow
		var a engine.Arrivals
		var came []uint32 // ticks, by generation
		tick, generation := uint32(0), first
		for range 300_000 {
			tick += 1 + uint32(rand.IntN(3))
			for range rand.IntN(4) {
				generation++
				came = append(came, tick)
			}
			a.Note(generation, tick)
		}
		assert.LessOrEqual(t, a.Len(), 4096)
		for i := 0; i < len(came); i += 97 {
			got := a.Of(first+1+uint32(i), tick)
			assert.InDelta(t, came[i], got, 3+float64(tick-came[i])/50, "connection %d", i)
		}
		assert.Equal(t, tick+5, a.Of(generation+1, tick+5), "one that came since the last tick")
	}
}
