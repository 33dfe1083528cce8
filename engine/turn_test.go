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

// The tasks of the inbox go on while a message handler keeps the list of the
// connections that wait for their write from ever being empty.
func TestTasksGoOnWhileConnectionsWaitForTheirWrite(t *testing.T) {
	const members, tasks = 64, 400
	var m *memoryServer
	var stop atomic.Bool
	again := frame(2, "again")
	m = startMemory(t, func(cfg *engine.Config, s *server) {
		cfg.Loops, cfg.RingSize, cfg.QueueFrames = 1, 2*tasks, 1<<20
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

// The list of the connections that wait for their write is in order, and takes
// memory for those which wait at once.
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
