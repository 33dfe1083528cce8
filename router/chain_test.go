package router_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/race"
	"github.com/qi-realtime/ws/router"
)

// call runs the handler of event with all middleware around it.
func call(t *testing.T, r *router.Router[string, *trace], event string, m *trace) error {
	t.Helper()
	route, ok := r.Lookup(event)
	require.True(t, ok)
	return r.Call(route.Handler, "client", m)
}

func TestNextSeveralTimes(t *testing.T) {
	tests := []struct {
		name string
		mw   middleware
		want []string
	}{
		{"never", func(string, *trace, func() error) error { return nil }, nil},
		{"twice", func(_ string, _ *trace, next func() error) error {
			return errors.Join(next(), next())
		}, []string{"in in", "a", "in out", "in in", "a", "in out"}},
		{"again after a panic", func(_ string, m *trace, next func() error) error {
			m.panics = true
			func() {
				defer func() { assert.NotNil(t, recover()) }()
				_ = next()
			}()
			m.panics = false
			return next()
		}, []string{"in in", "in in", "a", "in out"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := router.New[string, *trace]()
			require.NoError(t, r.Use(tt.mw, around("in")))
			require.NoError(t, r.Register(route{Event: "a", Handler: func(_ string, m *trace) error {
				if m.panics {
					panic("handler")
				}
				m.steps = append(m.steps, "a")
				return nil
			}}))
			for range 3 { // the chain is reused
				var m trace
				require.NoError(t, call(t, r, "a", &m))
				assert.Equal(t, tt.want, m.steps)
			}
		})
	}
}

// A late next, or one on another goroutine, runs nothing. It does not run the chain of the
// message that is handled meanwhile with the same chain.
func TestNextOutOfPlaceRunsNothing(t *testing.T) {
	r := router.New[string, *trace]()
	var kept func() error
	require.NoError(t, r.Use(func(_ string, _ *trace, next func() error) error {
		kept = next
		return next()
	}))
	var runs atomic.Int32
	block, blocked := make(chan struct{}), make(chan struct{})
	require.NoError(t, r.Register(route{Event: "a", Handler: func(_ string, m *trace) error {
		runs.Add(1)
		require.ErrorIs(t, kept(), router.ErrNext, "in the handler")
		if m.blocks {
			close(blocked)
			<-block
		}
		return nil
	}}))
	require.NoError(t, call(t, r, "a", &trace{}))
	stale := kept
	require.ErrorIs(t, stale(), router.ErrNext, "after the message")

	var other sync.WaitGroup
	other.Go(func() { assert.NoError(t, call(t, r, "a", &trace{blocks: true})) })
	<-blocked
	require.ErrorIs(t, stale(), router.ErrNext, "while another message is handled")
	require.ErrorIs(t, kept(), router.ErrNext, "on another goroutine")
	close(block)
	other.Wait()
	assert.EqualValues(t, 2, runs.Load())
}

// Messages on many goroutines keep to their own chains while all nexts are called late.
func TestNextConcurrently(t *testing.T) {
	r := router.New[string, *trace]()
	require.NoError(t, r.Use(func(_ string, _ *trace, next func() error) error {
		err := next()
		done := make(chan error)
		go func() { done <- next() }()
		if foreign := <-done; !errors.Is(foreign, router.ErrNext) {
			return errors.New("next ran on another goroutine")
		}
		go func() { _ = next() }()
		return err
	}, around("in")))
	require.NoError(t, r.Register(route{Event: "a", Handler: step("a")}))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				var m trace
				assert.NoError(t, call(t, r, "a", &m))
				assert.Equal(t, []string{"in in", "a", "in out"}, m.steps)
			}
		})
	}
	all.Wait()
}

func TestCallDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	r := router.New[string, *trace]()
	require.NoError(t, r.Register(route{Event: "a", Handler: func(string, *trace) error { return nil }}))
	pass := func(_ string, _ *trace, next func() error) error { return next() }
	require.NoError(t, r.Use(pass, pass, pass))
	route, _ := r.Lookup("a")
	var m trace
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = r.Call(route.Handler, "client", &m) }))
}

// TestUseIf asserts that middleware that is not wanted is passed over, and that want runs again for
// each call of next before it.
func TestUseIf(t *testing.T) {
	yes := func(string, *trace) bool { return true }
	no := func(string, *trace) bool { return false }
	steps := func(name string, wanted bool) func(string, *trace) bool {
		return func(_ string, m *trace) bool { m.steps = append(m.steps, name); return wanted }
	}
	twice := func(_ string, _ *trace, next func() error) error { return errors.Join(next(), next()) }
	type link struct {
		want func(string, *trace) bool // nil: Use
		mw   middleware
	}
	tests := map[string]struct {
		links []link
		want  []string
	}{
		"wanted":           {[]link{{yes, around("1")}}, []string{"1 in", "a", "1 out"}},
		"not wanted":       {[]link{{no, around("1")}}, []string{"a"}},
		"none of several":  {[]link{{no, around("1")}, {no, around("2")}}, []string{"a"}},
		"only the first":   {[]link{{yes, around("1")}, {no, around("2")}}, []string{"1 in", "a", "1 out"}},
		"only the last":    {[]link{{no, around("1")}, {yes, around("2")}}, []string{"2 in", "a", "2 out"}},
		"within Use":       {[]link{{nil, around("1")}, {no, around("2")}}, []string{"1 in", "a", "1 out"}},
		"around Use":       {[]link{{no, around("1")}, {nil, around("2")}}, []string{"2 in", "a", "2 out"}},
		"asked once":       {[]link{{steps("ask", true), around("1")}}, []string{"ask", "1 in", "a", "1 out"}},
		"asked for next":   {[]link{{nil, twice}, {steps("ask", false), around("2")}}, []string{"ask", "a", "ask", "a"}},
		"next of the same": {[]link{{steps("ask", true), twice}}, []string{"ask", "a", "a"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := router.New[string, *trace]()
			require.NoError(t, r.Register(route{Event: "a", Handler: step("a")}))
			for _, l := range tt.links {
				if l.want == nil {
					require.NoError(t, r.Use(l.mw))
				} else {
					require.NoError(t, r.UseIf(l.want, l.mw))
				}
			}
			for range 3 { // the chain is reused
				assert.Equal(t, tt.want, run(t, r, "a"))
			}
		})
	}
	r := router.New[string, *trace]()
	require.ErrorIs(t, r.UseIf(nil, around("1")), router.ErrNilHandler)
	require.ErrorIs(t, r.UseIf(yes, nil), router.ErrNilHandler)
	r.Freeze()
	require.ErrorIs(t, r.UseIf(yes, around("1")), router.ErrFrozen)
	require.ErrorIs(t, r.UseIf(yes, nil), router.ErrFrozen)
}

// BenchmarkUseIf measures a message that a middleware does not want, beside one whose middleware calls
// next at once.
func BenchmarkUseIf(b *testing.B) {
	pass := func(_ string, _ *trace, next func() error) error { return next() }
	for name, use := range map[string]func(r *router.Router[string, *trace]) error{
		"none":    func(*router.Router[string, *trace]) error { return nil },
		"at once": func(r *router.Router[string, *trace]) error { return r.Use(pass) },
		"not wanted": func(r *router.Router[string, *trace]) error {
			return r.UseIf(func(string, *trace) bool { return false }, pass)
		},
	} {
		b.Run("middleware="+name, func(b *testing.B) {
			r := router.New[string, *trace]()
			require.NoError(b, use(r))
			h := func(string, *trace) error { return nil }
			var m trace
			b.ReportAllocs()
			for b.Loop() {
				_ = r.Call(h, "client", &m)
			}
		})
	}
}
