package engine_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// planOf returns a plan with close code 1012 and numbered reasons.
func planOf(grace, window time.Duration) engine.DrainPlan {
	var closes atomic.Int64
	return engine.DrainPlan{Grace: grace, Window: window, Retirement: engine.Retirement{
		Code:   codec.CloseServiceRestart,
		Reason: func() string { return fmt.Sprint(closes.Add(1)) },
		Notice: func(*engine.Conn) *engine.Frame { return nil },
	}}
}

// withNotice adds a notice for all, and the time after it.
func withNotice(plan engine.DrainPlan, settle time.Duration) engine.DrainPlan {
	notice := engine.NewFrame(codec.OpText, []byte("move"), engine.Handling{Lane: engine.LaneHigh})
	plan.Settle, plan.Notice = settle, func(*engine.Conn) *engine.Frame { return notice }
	return plan
}

// pass advances the time by d in steps of a drain.
func (m *simServer) pass(d time.Duration) {
	const step = 10 * time.Millisecond
	for ; d > 0; d -= step {
		m.Advance(min(d, step))
		m.Wait()
	}
}

// drainCounts sums the counters of a drain.
func (s *server) drainCounts() (moved, closed, forced, left uint64) {
	for _, shard := range s.Shards() {
		st := shard.Stats()
		moved, closed, forced, left = moved+st.DrainMoved, closed+st.DrainClosed, forced+st.DrainForced, left+st.DrainLeft
	}
	return moved, closed, forced, left
}

// TestPacedDrain compares the connections that are closed with the schedule, every 10 ms of
// virtual time.
func TestPacedDrain(t *testing.T) {
	for name, test := range map[string]struct {
		loops, connections int
		leave              bool // a client leaves by itself in each second step
	}{
		"one loop":            {1, 1000, false},
		"loops":               {7, 1000, false},
		"more loops than one": {16, 5, false},
		"clients leave":       {4, 2000, true},
	} {
		t.Run(name, func(t *testing.T) {
			const window = 10 * time.Second
			m := startSimnet(t, func(cfg *engine.Config, _ *server) {
				cfg.Loops, cfg.HeartbeatInterval, cfg.HeartbeatTimeout = test.loops, 2*time.Second, time.Minute
			})
			m.connect(test.connections)
			m.BeginDrain(planOf(time.Second, window))
			m.pass(time.Second - 10*time.Millisecond)
			require.Equal(t, engine.DrainGrace, m.DrainPhase())
			require.Zero(t, m.Simnet.Stats().Closes)
			m.pass(10 * time.Millisecond)
			require.Equal(t, engine.DrainPaced, m.DrainPhase())
			pace := float64(test.connections) / window.Seconds()
			require.InDelta(t, pace, m.DrainPace(), 1e-9)
			for at, next := time.Duration(0), 0; m.closed.Load() < int64(test.connections); at += 10 * time.Millisecond {
				require.Less(t, at, window+100*time.Millisecond)
				if m.closed.Load() < int64(test.connections)*9/10 || !test.leave { // until a loop has none left
					require.InDelta(t, pace*at.Seconds(), m.Simnet.Stats().Closes, 2+float64(test.loops)/2, "after %v", at)
				}
				if test.leave && at%(20*time.Millisecond) == 0 {
					m.HangUp(next) // it may have gone already
					next += 3
				}
				m.pass(10 * time.Millisecond)
			}
			moved, closed, forced, left := m.drainCounts()
			assert.Equal(t, m.Simnet.Stats().Closes, closed)
			assert.EqualValues(t, test.connections, closed+left)
			assert.Zero(t, moved+forced)
			assert.Equal(t, test.leave, left > 0)
		})
	}
}

// TestPacedDrainAfterAnAbsence has the loop miss two seconds: it catches up, and never more
// than the share of a tick at once.
func TestPacedDrainAfterAnAbsence(t *testing.T) {
	const connections, window = 1000, 10 * time.Second
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.connect(connections)
	m.BeginDrain(planOf(0, window))
	m.pass(time.Second)
	m.Advance(2 * time.Second)
	m.Wait()
	before := m.Simnet.Stats().Closes
	require.InDelta(t, 100+25, before, 3, "the share of 250 ms")
	for range 100 {
		m.pass(10 * time.Millisecond)
		now := m.Simnet.Stats().Closes
		require.LessOrEqual(t, now-before, uint64(3), "twice the pace")
		before = now
	}
	m.pass(time.Second)
	require.InDelta(t, 500, m.Simnet.Stats().Closes, 3, "on the schedule again")
}

// TestDrainNotices has clients move after the notice, and others that do not.
func TestDrainNotices(t *testing.T) {
	const connections, window, settle = 100, time.Second, 2 * time.Second
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 2 })
	m.connect(connections)
	m.BeginDrain(withNotice(planOf(0, window), settle))
	m.pass(window + 50*time.Millisecond)
	for i := range connections {
		require.Equal(t, []string{"move"}, m.take(i))
		m.text(i, seq(i)) // the connection works as before
		require.Equal(t, []string{seq(i)}, m.take(i))
		if i%2 == 0 {
			m.Send(i, []byte(frame(gobwas.OpClose, "\x03\xe8")))
			require.Equal(t, []string{"close 1000 "}, m.take(i))
		}
	}
	m.pass(settle / 4)
	require.EqualValues(t, connections/2, m.closed.Load(), "the others have time")
	m.pass(settle)
	require.EqualValues(t, connections, m.closed.Load())
	moved, closed, forced, left := m.drainCounts()
	assert.Equal(t, [4]uint64{connections / 2, connections / 2, 0, 0}, [4]uint64{moved, closed, forced, left})
}

// TestDrainAnswersFirst has a connection whose messages are in their handlers at its slot.
func TestDrainAnswersFirst(t *testing.T) {
	var ready atomic.Bool
	m := startSimnet(t, func(cfg *engine.Config, s *server) {
		cfg.Loops = 1
		s.onEnding = func(*peer) bool { return ready.Load() }
	})
	m.connect(1)
	p := m.peer(0)
	m.BeginDrain(planOf(0, 0))
	m.pass(100 * time.Millisecond)
	m.text(0, "behind the slot")
	p.conn.Resume() // the owner can take more, and is not ready yet
	require.Empty(t, m.take(0))
	require.NoError(t, p.conn.SendAnswer(codec.OpText, []byte("answer")))
	ready.Store(true)
	p.conn.ResumeInOrder()
	require.Equal(t, []string{"answer", "close 1012 1"}, m.take(0))
	m.eventually(func() bool { return m.closed.Load() == 1 }, "not closed")
}

// TestDrainDoesNotWaitForever has a connection whose handlers do not return.
func TestDrainDoesNotWaitForever(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, s *server) {
		cfg.Loops = 1
		s.onEnding = func(*peer) bool { return false }
	})
	m.connect(1)
	m.BeginDrain(planOf(0, 0))
	m.pass(testConfig().CloseTimeout + time.Second)
	require.Equal(t, []string{"close 1012 1"}, m.take(0))
	m.pass(testConfig().CloseTimeout + time.Second) // its peer's answer is not read
	require.EqualValues(t, 1, m.closed.Load())
}

// TestDrainHearsTheClient has a client send messages after it could have read the close frame.
func TestDrainHearsTheClient(t *testing.T) {
	heard := make(chan string, 10)
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.CloseTimeout = patience
		s.onMessage = func(_ *peer, _ codec.Opcode, payload []byte) { heard <- string(payload) }
	})
	c := s.dial()
	s.BeginDrain(planOf(0, 0))
	c.expectClose(codec.CloseServiceRestart)
	for i := range 10 {
		c.send(seq(i))
	}
	c.raw(frame(gobwas.OpClose, "\x03\xf4"))
	c.expectEOF()
	require.Len(t, heard, 10)
	for i := range 10 {
		require.Equal(t, seq(i), <-heard)
	}
}

// TestDrainOfStalledClients has half of the clients read nothing: the pace of the others is the
// same.
func TestDrainOfStalledClients(t *testing.T) {
	const connections, window = 200, 2 * time.Second
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.connect(connections)
	for i := range connections {
		if i%2 == 0 {
			m.Stall(i)
			require.NoError(t, m.peer(i).conn.Send(engine.NewFrame(codec.OpText, []byte("x"), engine.Handling{})))
		}
	}
	m.Wait()
	m.BeginDrain(planOf(0, window))
	for at := time.Duration(0); at < window; at += 100 * time.Millisecond {
		closing := 0
		for i := range connections {
			if m.peer(i).conn.Closed() {
				closing++
			}
		}
		require.InDelta(t, 100*at.Seconds(), closing, 3, "after %v", at)
		m.pass(100 * time.Millisecond)
	}
	m.pass(50 * time.Millisecond)
	require.EqualValues(t, connections/2, m.closed.Load())
	m.pass(testConfig().CloseTimeout)
	require.EqualValues(t, connections, m.closed.Load())
}

// TestForceDrain ends a drain whose clients have time to move.
func TestForceDrain(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 2 })
	m.connect(100)
	m.BeginDrain(withNotice(planOf(0, 10*time.Minute), time.Hour))
	m.pass(time.Minute)
	m.ForceDrain()
	m.pass(10 * time.Millisecond)
	require.EqualValues(t, 100, m.closed.Load())
	_, _, forced, _ := m.drainCounts()
	require.EqualValues(t, 100, forced)
}

// TestStopDuringADrain is quick.
func TestStopDuringADrain(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 2 })
	m.connect(100)
	m.BeginDrain(withNotice(planOf(0, 10*time.Second), time.Hour))
	m.pass(5 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, m.Stop(ctx, codec.CloseGoingAway, "bye"))
	require.EqualValues(t, 100, m.closed.Load())
	_, _, forced, _ := m.drainCounts()
	require.EqualValues(t, 100, forced)
	require.Contains(t, m.take(0), "close 1001 bye")
}

// TestDrainOfLateConnections has a connection open after all others have retired.
func TestDrainOfLateConnections(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.connect(3)
	m.Connect(1, []byte(upgradeRequest[:20]))
	m.BeginDrain(planOf(0, time.Second))
	m.pass(2 * time.Second)
	require.EqualValues(t, 3, m.closed.Load())
	require.Equal(t, 1, m.Shards()[0].Connections(), "it is not refused here: its request will be")
	m.Send(3, []byte(upgradeRequest[20:])) // the handler accepts it all the same
	m.pass(time.Second)
	require.EqualValues(t, 4, m.closed.Load())
}

// TestDrainWaitsForAcceptedFrames has a sender that holds space for a frame while its connection
// retires.
func TestDrainWaitsForAcceptedFrames(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.connect(1)
	c := &m.peer(0).conn
	post := c.BeginSend([]byte("accepted"))
	m.BeginDrain(planOf(0, 0))
	m.pass(time.Second)
	require.Empty(t, m.take(0))
	require.ErrorIs(t, c.SendPayload(codec.OpText, []byte("late"), engine.LaneNormal), engine.ErrClosed)
	post()
	m.pass(time.Second)
	got := m.take(0)
	require.Len(t, got, 2)
	require.Equal(t, "accepted", got[0])
	require.Contains(t, got[1], "close 1012 ")
	require.EqualValues(t, 1, m.closed.Load())
	require.Zero(t, m.dropped.Load())
}

// TestDrainBeforeRun has no grace.
func TestDrainBeforeRun(t *testing.T) {
	e := engine.New(testConfig(), &server{t: t}, &server{t: t})
	require.Equal(t, engine.DrainNone, e.DrainPhase())
	e.BeginDrain(planOf(time.Hour, time.Hour))
	require.Equal(t, engine.DrainPaced, e.DrainPhase())
	require.NoError(t, e.Stop(t.Context(), codec.CloseGoingAway, ""))
}

// TestForceDrainWithinTheGrace ends the grace, too.
func TestForceDrainWithinTheGrace(t *testing.T) {
	m := startSimnet(t, nil)
	m.connect(10)
	m.BeginDrain(planOf(time.Hour, time.Hour))
	m.pass(time.Second)
	require.Zero(t, m.closed.Load())
	m.ForceDrain()
	m.pass(10 * time.Millisecond)
	require.EqualValues(t, 10, m.closed.Load())
}
