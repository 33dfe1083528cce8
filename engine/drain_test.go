package engine_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

func TestRunReportsItsSecondCall(t *testing.T) {
	s := start(t, nil)
	require.ErrorIs(t, s.Run(), engine.ErrRunning)
}

func TestStopBeforeRun(t *testing.T) {
	e := engine.New(testConfig(), &server{t: t}, &server{t: t})
	require.NoError(t, e.Stop(t.Context(), codec.CloseGoingAway, ""))
	require.NoError(t, e.Run())
	require.True(t, errors.Is(engine.ErrClosed, net.ErrClosed))
}

// TestDrainWithAPace closes a few connections in each turn, while the timers of the others
// move them on the wheel and their messages are answered.
func TestDrainWithAPace(t *testing.T) {
	const connections, most = 1000, 7
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops, cfg.HeartbeatInterval = 1, 20*time.Millisecond
	})
	m.connect(connections)
	shard := m.Shards()[0]
	d := engine.NewDrain(engine.CloseInfo{Code: codec.CloseGoingAway})
	for step, done := 1, false; !done; step++ {
		m.HangUp(step * 37 % connections) // perhaps the next one, which leaves the wheel
		m.Wait()
		before := m.closed.Load()
		onLoop(shard, func(s *engine.Shard) { done = d.Step(s, most) })
		m.Wait()
		require.LessOrEqual(t, m.closed.Load()-before, int64(most))
	}
	m.eventually(func() bool { return m.closed.Load() == connections }, "not all are closed")
	m.connect(1) // a drain alone refuses nobody
}
