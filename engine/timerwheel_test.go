package engine_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

func TestWheelFiresAtTheDeadline(t *testing.T) {
	cases := map[string]struct{ deadline, want uint32 }{
		"next tick":              {1, 1},
		"later":                  {17, 17},
		"now is the next tick":   {0, 1},
		"the past as well":       {^uint32(0) - 5, 1},
		"beyond one turn":        {1000, 1000},
		"a whole number of them": {1024, 1024},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var w engine.Wheel
			var c engine.Conn
			w.Schedule(&c, tc.deadline)
			var fired []uint32
			for now := uint32(1); now <= 1100; now++ {
				w.Advance(now, func(*engine.Conn) { fired = append(fired, now) })
			}
			assert.Equal(t, []uint32{tc.want}, fired)
			assert.Zero(t, w.Size())
		})
	}
}

func TestWheelCatchesUpAfterAPause(t *testing.T) {
	var w engine.Wheel
	conns := make([]engine.Conn, 2000)
	for i := range conns {
		w.Schedule(&conns[i], uint32(i+1))
	}
	fired := 0
	w.Advance(1999, func(*engine.Conn) { fired++ })
	assert.Equal(t, 1999, fired, "all but the one that is not due")
	w.Advance(2000, func(*engine.Conn) { fired++ })
	assert.Equal(t, 2000, fired)
}

func TestWheelClockWrapsAround(t *testing.T) {
	var w engine.Wheel
	var c engine.Conn
	start := ^uint32(0) - 3
	w.Advance(start, func(*engine.Conn) {})
	w.Schedule(&c, start+10) // wraps
	fired := false
	for i := uint32(1); i <= 9; i++ {
		w.Advance(start+i, func(*engine.Conn) { fired = true })
	}
	require.False(t, fired)
	w.Advance(start+10, func(*engine.Conn) { fired = true })
	assert.True(t, fired)
}

// TestWheelAgainstAMap runs random operations against a map of deadlines.
func TestWheelAgainstAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var w engine.Wheel
	conns := make([]engine.Conn, 50)
	model := map[*engine.Conn]uint32{}
	now := uint32(0)
	for range 50_000 {
		c := &conns[rng.IntN(len(conns))]
		switch rng.IntN(4) {
		case 0, 1:
			d := now + 1 + uint32(rng.IntN(1500))
			w.Schedule(c, d)
			model[c] = d
		case 2:
			w.Cancel(c)
			delete(model, c)
		default:
			now += uint32(rng.IntN(40))
			var want, got []*engine.Conn
			for c, d := range model {
				if d <= now {
					want = append(want, c)
					delete(model, c)
				}
			}
			for done := false; !done; { // in some steps
				done = w.AdvanceSome(now, func(c *engine.Conn) bool {
					got = append(got, c)
					return rng.IntN(3) > 0
				})
			}
			require.ElementsMatch(t, want, got, "at tick %d", now)
		}
		require.Equal(t, len(model), w.Size())
	}
	var each []*engine.Conn
	w.Each(func(c *engine.Conn) { each = append(each, c) })
	for c := range model {
		assert.True(t, slices.Contains(each, c))
	}
	assert.Len(t, each, len(model))
}

func TestWheelFireMaySchedule(t *testing.T) {
	var w engine.Wheel
	var c engine.Conn
	w.Schedule(&c, 1)
	fired := 0
	for now := uint32(1); now <= 100; now++ {
		w.Advance(now, func(c *engine.Conn) {
			fired++
			w.Schedule(c, now+10)
		})
	}
	assert.Equal(t, 10, fired)
	assert.Equal(t, 1, w.Size())
}

func BenchmarkWheel(b *testing.B) {
	var w engine.Wheel
	conns := make([]engine.Conn, 100_000)
	for i := range conns {
		w.Schedule(&conns[i], uint32(i%120)+1)
	}
	now := uint32(0)
	b.ReportAllocs()
	for b.Loop() { // one tick: 1/120 of the connections get a new deadline
		now++
		w.Advance(now, func(c *engine.Conn) { w.Schedule(c, now+120) })
	}
}

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
