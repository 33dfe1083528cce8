package engine_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// The tasks of the inbox continue while a message handler keeps the list of
// dirty connections from ever being empty.
func TestTasksGoOnWhileConnectionsWaitForTheirWrite(t *testing.T) {
	const members, tasks = 64, 400
	var m *simServer
	var stop atomic.Bool
	again := frame(2, "again")
	m = startSimnet(t, func(cfg *engine.Config, s *server) {
		cfg.Loops, cfg.BroadcastQueueSize, cfg.MessageQueueSize = 1, 2*tasks, 1<<20
		s.onMessage = func(*peer, codec.Opcode, []byte) {
			if stop.Load() {
				return
			}
			m.Shards()[0].EachInLoop(func(c *engine.Conn) {
				c.DeliverInLoop(engine.NewFrame(codec.OpText, []byte("x"), engine.Handling{}))
			})
			m.Send(0, []byte(again))
		}
	})
	m.connect(members)
	m.slowWrites.Store(int64(50 * time.Microsecond))
	m.Send(0, []byte(again))
	defer stop.Store(true)
	s := m.Shards()[0]
	m.eventually(func() bool { return s.Stats().Yields > 10 }, "the list does not become long")
	var ran atomic.Int64
	for range tasks {
		s.Post(taskFunc(func(*engine.Shard) { ran.Add(1) }))
	}
	m.eventually(func() bool { return ran.Load() == tasks }, "%d tasks have run", ran.Load())
}

// The list of dirty connections keeps its order, and takes memory only for the
// connections that are in it at once.
func TestDirtyList(t *testing.T) {
	var list engine.DirtyList
	conns := make([]engine.Conn, 1000)
	next, waiting := 0, 0
	for n := range conns {
		list.Push(&conns[n], uint64(n))
		waiting++
		for waiting > 60 {
			require.EqualValues(t, next, list.Since())
			require.Same(t, &conns[next], list.Pop())
			waiting--
			next++
		}
		require.Equal(t, waiting, list.Len())
	}
	assert.Equal(t, 64, list.Cap())
	for ; waiting > 0; waiting-- {
		require.Same(t, &conns[next], list.Pop())
		next++
	}
	for n := range conns {
		list.Push(&conns[n], 0)
	}
	for n := range conns {
		require.Same(t, &conns[n], list.Pop())
	}
	assert.Zero(t, list.Len())
}

// spin takes the processor for d.
func spin(d time.Duration) {
	for began := time.Now(); time.Since(began) < d; {
		continue
	}
}

// Any number of waiting urgent tasks lets connections be served between them.
func TestUrgentTasksTakeTurns(t *testing.T) {
	const tasks = 20_000
	var ran, before atomic.Int64
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.Loops = 1
		s.onMessage = func(*peer, codec.Opcode, []byte) { before.Store(ran.Load() + 1) }
	})
	c := s.dial()
	sh := s.Shards()[0]
	onLoop(sh, func(*engine.Shard) {
		c.send("waits in the socket")
		for range tasks {
			sh.PostUrgent(taskFunc(func(*engine.Shard) { spin(20 * time.Microsecond); ran.Add(1) }))
		}
	})
	s.eventually(func() bool { return ran.Load() == tasks && before.Load() > 0 }, "%d tasks have run", ran.Load())
	assert.LessOrEqual(t, before.Load(), int64(tasks), "the connection has waited for all tasks")
}

// Any number of connections that read a history at once have few frames before them that an
// answer to another one waits for.
func TestReplaysTakeTurns(t *testing.T) {
	const conns, rounds = 500, 5
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.connect(conns)
	m.peer(conns - 1)
	f := engine.NewFrame(codec.OpText, []byte("stored"), engine.Handling{Policy: engine.CatchUp})
	var ran, most int
	var step func(c *engine.Conn, left int) engine.Task
	step = func(c *engine.Conn, left int) engine.Task {
		return taskFunc(func(s *engine.Shard) {
			ran, most = ran+1, max(most, s.DirtyInLoop())
			c.DeliverInLoop(f)
			if left > 1 {
				c.RunWhenLowInLoop(step(c, left-1))
			}
		})
	}
	onLoop(m.Shards()[0], func(*engine.Shard) {
		for _, p := range m.peers {
			p.conn.RunWhenLowInLoop(step(&p.conn, rounds))
		}
	})
	for peer := range conns {
		assert.Len(t, m.take(peer), rounds)
	}
	assert.Equal(t, conns*rounds, ran)
	assert.Less(t, most, engine.MaxReplaying)
}

// A task of RunWhenLowInLoop runs at once without a queue, and otherwise when the peer reads on or its
// connection ends.
func TestReplaysWaitForTheirConnection(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	m.connect(2)
	f := engine.NewFrame(codec.OpText, []byte("stored"), engine.Handling{Policy: engine.CatchUp})
	sh, ran := m.Shards()[0], [2]atomic.Int64{}
	wait := func() {
		onLoop(sh, func(*engine.Shard) {
			for peer := range ran {
				m.peer(peer).conn.RunWhenLowInLoop(taskFunc(func(*engine.Shard) { ran[peer].Add(1) }))
			}
		})
		m.Wait()
	}
	runs := func() [2]int64 { return [2]int64{ran[0].Load(), ran[1].Load()} }
	wait()
	require.Equal(t, [2]int64{1, 1}, runs())
	for peer := range ran {
		m.Stall(peer)
		m.Wait()
		onLoop(sh, func(*engine.Shard) { m.peer(peer).conn.DeliverInLoop(f) })
		m.Wait()
		onLoop(sh, func(*engine.Shard) {
			for m.peer(peer).conn.DeliverInLoop(f) {
				continue
			}
		})
	}
	wait()
	wait()
	require.Equal(t, [2]int64{1, 1}, runs(), "their sockets are full")
	m.Resume(0)
	m.HangUp(1)
	m.Wait()
	require.Equal(t, [2]int64{3, 3}, runs())
}

// Any number of simultaneous closes lets other connections be served meanwhile.
func TestClosingManyTakesTurns(t *testing.T) {
	const conns = 1000
	var before atomic.Int64
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.Loops = 1
		s.onMessage = func(*peer, codec.Opcode, []byte) { before.Store(s.closed.Load() + 1) }
		s.onClose = func(*peer, engine.CloseInfo) { spin(200 * time.Microsecond) }
	})
	c := s.dial()
	for range conns {
		s.dial()
	}
	s.peer(conns)
	sh := s.Shards()[0]
	onLoop(sh, func(*engine.Shard) {
		c.send("waits in the socket")
		for _, p := range s.peers[1:] {
			sh.CloseLater(&p.conn)
		}
	})
	s.eventually(func() bool { return s.closed.Load() == conns && before.Load() > 0 }, "%d are closed", s.closed.Load())
	assert.LessOrEqual(t, before.Load(), int64(conns), "the connection has waited for all")
	assert.False(t, s.peer(0).conn.Closed())
}

// A message that finds a long queue full, and the socket not, is queued as soon
// as it fits: the loop does not write the whole queue first.
func TestOverflowWritesNoMoreThanItNeeds(t *testing.T) {
	const frames = 1000
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops, cfg.MessageQueueSize, cfg.QueueBytes = 1, frames, 1<<30
	})
	m.connect(1)
	conn, f := &m.peer(0).conn, engine.NewFrame(codec.OpText, make([]byte, 64<<10), engine.Handling{})
	onLoop(m.Shards()[0], func(s *engine.Shard) {
		before := s.Stats().Writes
		for range frames + 1 {
			require.True(t, conn.DeliverInLoop(f))
		}
		assert.EqualValues(t, 1, s.Stats().Writes-before)
	})
	m.eventually(func() bool { return m.Simnet.Stats().Messages == frames+1 }, "not all has come")
}
