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

// TestDrainPassesConnectionsThatEnd has each second client hang up in its handshake, just
// before the drain comes to it.
func TestDrainPassesConnectionsThatEnd(t *testing.T) {
	const connections = 50
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.Connect(connections, []byte("GET / HTTP/1.1\r\n"))
	m.Wait()
	shard := m.Shards()[0]
	d := engine.NewDrain(engine.CloseInfo{Code: codec.CloseGoingAway})
	for last := connections - 1; last > 0; last -= 2 { // the last to come is the first in the wheel's slot
		onLoop(shard, func(s *engine.Shard) { d.Step(s, 1) })
		m.HangUp(last - 1)
		m.Wait()
	}
	require.EqualValues(t, connections/2, m.Simnet.Stats().Refused)
	var done bool
	onLoop(shard, func(s *engine.Shard) { done = d.Step(s, connections) })
	require.True(t, done)
	require.EqualValues(t, connections/2, m.Simnet.Stats().Refused, "nobody is refused after its end")
}

// TestDrainFindsConnectionsThatMove has a timer move a connection behind the cursor.
func TestDrainFindsConnectionsThatMove(t *testing.T) {
	t.Parallel()
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops, cfg.HandshakeTimeout, cfg.HeartbeatInterval = 1, 20*time.Second, time.Second
	})
	const half = len(upgradeRequest) / 2
	m.Connect(1, []byte(upgradeRequest[:half]))
	m.Wait()
	d := engine.NewDrain(engine.CloseInfo{Code: codec.CloseGoingAway})
	next := func() (done bool) { // one slot, or one connection
		onLoop(m.Shards()[0], func(s *engine.Shard) {
			for !s.OutOfTimeInLoop() {
				s.NoteWorkInLoop(1 << 20)
			}
			done = d.Step(s, 1)
		})
		return done
	}
	for range 30 {
		require.False(t, next())
	}
	m.Send(0, []byte(upgradeRequest[half:])) // its next timer is the heartbeat's
	m.Wait()
	require.EqualValues(t, 1, m.opened.Load())
	for !next() {
		continue
	}
	m.Wait()
	require.EqualValues(t, 1, m.closed.Load())
}
