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
