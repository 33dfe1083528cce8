package engine_test

import (
	"slices"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// startMortal starts a simulated network whose connections live for 7 to 10 s.
func startMortal(t *testing.T, retirement engine.Retirement) *simServer {
	return startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 4*time.Second, time.Minute
		cfg.MaxLifetime, cfg.MaxLifetimeJitter, cfg.Retirement = 10*time.Second, 3*time.Second, retirement
	})
}

// TestLifetime has connections of three batches end as evenly spread as the jitter demands.
func TestLifetime(t *testing.T) {
	const batch, gap = 1000, 2 * time.Second
	m := startMortal(t, planOf(0, 0).Retirement)
	spread := func(age time.Duration) float64 { return batch * min(1, max(0, (age-7*time.Second).Seconds()/3)) }
	for at := time.Duration(0); at <= 15*time.Second; at += 250 * time.Millisecond {
		if at%gap == 0 && at < 3*gap {
			m.connect(batch)
		}
		want := spread(at) + spread(at-gap) + spread(at-2*gap)
		// Timers and ages have ticks of 250 ms, 83 connections of a batch.
		require.InDelta(t, want, m.Simnet.Stats().Closes, 3*84, "after %v", at)
		m.Advance(250 * time.Millisecond)
		m.Wait()
	}
	require.EqualValues(t, 3*batch, m.closed.Load())
	got := shortened(m.take(0))
	assert.Equal(t, "close 1012", got[len(got)-1])
	var retired uint64
	for _, s := range m.Shards() {
		retired += s.Stats().Retired
	}
	assert.EqualValues(t, 3*batch, retired)
	moved, closed, forced, left := m.drainCounts()
	assert.Zero(t, moved+closed+forced+left, "there was no drain")
}

// shortened cuts the reasons off.
func shortened(texts []string) []string {
	for i, text := range texts {
		texts[i] = text[:min(len(text), len("close 1012"))]
	}
	return texts
}

// TestLifetimeNotice has a client move, and another that does not.
func TestLifetimeNotice(t *testing.T) {
	m := startMortal(t, withNotice(planOf(0, 0), 2*time.Second).Retirement)
	m.connect(2)
	// The first notice comes at an age of 7 to 10 s, and the close 2 s later.
	var got []string
	for past := time.Duration(0); past < 11*time.Second && !slices.Contains(got, "move"); past += 250 * time.Millisecond {
		m.pass(250 * time.Millisecond)
		got = m.take(0)
	}
	require.Contains(t, got, "move")
	m.Send(0, []byte(frame(gobwas.OpClose, "\x03\xe8")))
	require.Equal(t, "close 1000", shortened(m.take(0))[0])
	m.pass(13 * time.Second)
	require.EqualValues(t, 2, m.closed.Load())
	require.Contains(t, shortened(m.take(1)), "close 1012")
}

// TestLifetimeDuringADrain leaves the pace to the drain.
func TestLifetimeDuringADrain(t *testing.T) {
	m := startMortal(t, planOf(0, 0).Retirement)
	m.connect(100)
	m.pass(6 * time.Second)
	m.BeginDrain(planOf(0, 10*time.Second))
	m.pass(5 * time.Second)
	require.InDelta(t, 50, m.closed.Load(), 3)
}
