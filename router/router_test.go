package router_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/race"
	"github.com/qi-realtime/ws/router"
)

type route = router.Route[string, *trace]

// trace is a message that records its way.
type trace struct {
	steps          []string
	panics, blocks bool // behavior of its handler
}

type (
	handler    = router.Handler[string, *trace]
	middleware = router.Middleware[string, *trace]
)

func step(name string) handler {
	return func(_ string, m *trace) error {
		m.steps = append(m.steps, name)
		return nil
	}
}

func around(name string) middleware {
	return func(_ string, m *trace, next func() error) error {
		m.steps = append(m.steps, name+" in")
		err := next()
		m.steps = append(m.steps, name+" out")
		return err
	}
}

func run(t *testing.T, r *router.Router[string, *trace], event string) []string {
	t.Helper()
	route, ok := r.Lookup(event)
	require.True(t, ok, "no route for %q", event)
	var m trace
	require.NoError(t, r.Call(route.Handler, "client", &m))
	return m.steps
}

func TestRegister(t *testing.T) {
	tests := []struct {
		name   string
		freeze bool
		event  string
		h      handler
		want   error
	}{
		{"new event", false, "b", step("b"), nil},
		{"taken event", false, "a", step("b"), router.ErrExists},
		{"taken event, nil handler", false, "a", nil, router.ErrExists},
		{"empty event", false, "", step("b"), router.ErrEmptyEvent},
		{"nil handler", false, "b", nil, router.ErrNilHandler},
		{"frozen", true, "b", step("b"), router.ErrFrozen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := router.New[string, *trace]()
			require.NoError(t, r.Register(route{Event: "a", Handler: step("a")}))
			if tt.freeze {
				r.Freeze()
			}
			require.ErrorIs(t, r.Register(route{Event: tt.event, Handler: tt.h}), tt.want)
			assert.Equal(t, []string{"a"}, run(t, r, "a"), "first handler stays")
			if tt.want == nil {
				assert.Equal(t, 2, r.Len())
			} else {
				assert.Equal(t, 1, r.Len())
			}
		})
	}
}

func TestUseOrder(t *testing.T) {
	r := router.New[string, *trace]()
	require.NoError(t, r.Use(around("1"), around("2")))
	require.NoError(t, r.Register(route{Event: "early", Handler: step("early"), Mode: router.ModePooled}))
	require.NoError(t, r.Use(around("3")))
	require.NoError(t, r.Register(route{Event: "late", Handler: step("late"), Mode: router.ModeInline}))
	for _, event := range []string{"early", "late"} {
		assert.Equal(t, []string{"1 in", "2 in", "3 in", event, "3 out", "2 out", "1 out"}, run(t, r, event))
	}
	early, _ := r.Lookup("early")
	late, _ := r.Lookup("late")
	assert.Equal(t, router.ModePooled, early.Mode, "Use keeps the mode")
	assert.Equal(t, router.ModeInline, late.Mode)
}

func TestUseStopsAndPassesErrors(t *testing.T) {
	refused, failed := errors.New("refused"), errors.New("failed")
	r := router.New[string, *trace]()
	require.NoError(t, r.Register(route{Event: "a", Handler: func(string, *trace) error { return failed }}))
	route, _ := r.Lookup("a")
	require.ErrorIs(t, r.Call(route.Handler, "client", &trace{}), failed)

	require.NoError(t, r.Use(func(c string, _ *trace, next func() error) error {
		if c == "stranger" {
			return refused
		}
		return next()
	}))
	require.ErrorIs(t, r.Call(route.Handler, "client", &trace{}), failed)
	require.ErrorIs(t, r.Call(route.Handler, "stranger", &trace{}), refused)
}

func TestUseRejects(t *testing.T) {
	r := router.New[string, *trace]()
	require.NoError(t, r.Register(route{Event: "a", Handler: step("a")}))
	require.ErrorIs(t, r.Use(around("1"), nil), router.ErrNilHandler)
	assert.Equal(t, []string{"a"}, run(t, r, "a"), "all or none")
	r.Freeze()
	require.ErrorIs(t, r.Use(around("1")), router.ErrFrozen)
	assert.Equal(t, []string{"a"}, run(t, r, "a"))
}

func TestFreeze(t *testing.T) {
	r := router.New[string, *trace]()
	require.NoError(t, r.Register(route{Event: "a", Handler: step("a"), Mode: router.ModeInline}))
	assert.False(t, r.Frozen())
	r.Freeze()
	r.Freeze()
	assert.True(t, r.Frozen())
	assert.Equal(t, 1, r.Len())
	assert.True(t, r.HasModeOverrides(), "Freeze keeps the table")
	assert.Equal(t, []string{"a"}, run(t, r, "a"))
}

func TestHasModeOverrides(t *testing.T) {
	r := router.New[string, *trace]()
	require.NoError(t, r.Register(route{Event: "a", Handler: step("a")}))
	assert.False(t, r.HasModeOverrides())
	require.NoError(t, r.Register(route{Event: "b", Handler: step("b"), Mode: router.ModeInline}))
	assert.True(t, r.HasModeOverrides())
	require.NoError(t, r.Register(route{Event: "c", Handler: step("c")}))
	require.NoError(t, r.Use(around("1")))
	assert.True(t, r.HasModeOverrides())
}

func TestRandomOperations(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 20 {
		r := router.New[string, *trace]()
		modes := map[string]router.Mode{}
		var in, out []string
		for op := range 300 {
			event := fmt.Sprintf("event.%d", rng.IntN(60))
			switch n := rng.IntN(100); {
			case n < 30:
				mode := router.Mode(rng.IntN(3))
				err := r.Register(route{Event: event, Handler: step(event), Mode: mode})
				if _, taken := modes[event]; taken {
					require.ErrorIs(t, err, router.ErrExists)
				} else {
					require.NoError(t, err)
					modes[event] = mode
				}
			case n < 32:
				name := fmt.Sprintf("mw%d", op)
				require.NoError(t, r.Use(around(name)))
				in, out = append(in, name+" in"), append([]string{name + " out"}, out...)
			default:
				mode, known := modes[event]
				route, ok := r.LookupBytes([]byte(event))
				require.Equal(t, known, ok, "seed %d round %d op %d", seed, round, op)
				if ok {
					require.Equal(t, mode, route.Mode)
					want := append(append(append([]string{}, in...), event), out...)
					require.Equal(t, want, run(t, r, event), "seed %d round %d op %d", seed, round, op)
				}
			}
			require.Equal(t, len(modes), r.Len())
		}
	}
}

// Lookups go on while routes and middleware are added: each sees a whole table.
func TestConcurrentRegisterAndLookup(t *testing.T) {
	const events, writers = 100, 4
	r := router.New[string, *trace]()
	var done atomic.Bool
	var readers, writing sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			most := 0
			for !done.Load() {
				n := r.Len()
				assert.GreaterOrEqual(t, n, most, "a route went away")
				most = n
				for i := range events {
					event := fmt.Sprint(i)
					route, ok := r.Lookup(event)
					if !ok {
						continue
					}
					var m trace
					assert.NoError(t, r.Call(route.Handler, "client", &m))
					assert.Contains(t, m.steps, event)
				}
			}
		})
	}
	var registered atomic.Int32
	for range writers {
		writing.Go(func() {
			for i := range events {
				if r.Register(route{Event: fmt.Sprint(i), Handler: step(fmt.Sprint(i))}) == nil {
					registered.Add(1)
				}
				if i%25 == 0 {
					assert.NoError(t, r.Use(around("mw")))
				}
			}
		})
	}
	writing.Wait()
	r.Freeze()
	done.Store(true)
	readers.Wait()
	assert.Equal(t, int32(events), registered.Load(), "each event has one winner")
	assert.Equal(t, events, r.Len())
	assert.Len(t, run(t, r, "0"), 2*writers*events/25+1)
}

func TestLookupDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	r := router.New[string, *trace]()
	event := "a.name.longer.than.any.buffer.on.the.stack.that.the.compiler.might.use"
	require.NoError(t, r.Register(route{Event: event, Handler: step("a")}))
	b := []byte(event)
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.Lookup(event) }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.LookupBytes(b) }))
}

func BenchmarkLookupBytes(b *testing.B) {
	r := router.New[string, *trace]()
	for i := range 100 {
		require.NoError(b, r.Register(route{Event: fmt.Sprintf("event.%d", i), Handler: step("a")}))
	}
	event := []byte("event.42")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.LookupBytes(event)
		}
	})
}

func BenchmarkHandler(b *testing.B) {
	for _, n := range []int{0, 3} {
		b.Run(fmt.Sprintf("middleware=%d", n), func(b *testing.B) {
			r := router.New[string, *trace]()
			require.NoError(b, r.Register(route{Event: "a", Handler: func(string, *trace) error { return nil }}))
			for range n {
				require.NoError(b, r.Use(func(_ string, _ *trace, next func() error) error { return next() }))
			}
			route, _ := r.Lookup("a")
			var m trace
			b.ReportAllocs()
			for b.Loop() {
				_ = r.Call(route.Handler, "client", &m)
			}
		})
	}
}
