package engine_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// deliver queues the messages on the connections of the first members of s, in one
// task.
func deliver(s *server, members int, messages ...string) { <-postDelivery(s, members, messages...) }

// postDelivery is deliver without the wait: done is closed when the messages are queued.
func postDelivery(s *server, members int, messages ...string) (done chan struct{}) {
	done = make(chan struct{})
	s.peer(0).conn.Shard().Post(taskFunc(func(*engine.Shard) {
		defer close(done)
		for _, m := range messages {
			f := engine.NewFrame(codec.OpText, []byte(m), engine.Handling{})
			for n := range members {
				s.peer(n).conn.DeliverInLoop(f)
			}
		}
	}))
	return done
}

// overBoth runs test without and with TLS, on one loop.
func overBoth(t *testing.T, test func(t *testing.T, s *server, dial func() *client)) {
	configure := func(cfg *engine.Config, _ *server) {
		cfg.Loops, cfg.QueueBytes, cfg.MessageQueueSize = 1, 64<<20, 1000
	}
	t.Run("plain", func(t *testing.T) {
		engine.RequireBatchedWrites(t)
		s := start(t, configure)
		test(t, s, s.dial)
	})
	t.Run("tls", func(t *testing.T) {
		engine.RequireBatchedWrites(t)
		s := startTLS(t, configure)
		test(t, s.server, func() *client { return s.dialTLS(tls.VersionTLS13) })
	})
}

func dialAll(n int, dial func() *client) []*client {
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = dial()
	}
	return clients
}

// TestBatchedWrites asserts that a message to many members takes few system calls.
func TestBatchedWrites(t *testing.T) {
	const members, messages = 300, 20
	overBoth(t, func(t *testing.T, s *server, dial func() *client) {
		clients := dialAll(members, dial)
		shard := s.peer(0).conn.Shard()
		before := shard.Stats()
		for i := range messages {
			deliver(s, members, seq(i))
			for _, c := range clients {
				c.expect(seq(i))
			}
		}
		// The loop counts a batch when the kernel has sent it, so clients may read before.
		batched := func() int { return int(shard.Stats().Batched - before.Batched) }
		s.eventually(func() bool { return batched() == members*messages }, "writes are not in a batch")
		assert.LessOrEqual(t, int(shard.Stats().Writes-before.Writes), 4*messages)
	})
}

// TestBatchedWritesOff asserts that BatchOff writes to each connection by itself.
func TestBatchedWritesOff(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops, cfg.BatchedWrites = 1, engine.BatchOff })
	clients := dialAll(20, s.dial)
	deliver(s, len(clients), "hello")
	for _, c := range clients {
		c.expect("hello")
	}
	assert.Zero(t, s.peer(0).conn.Shard().Stats().Batched)
}

// TestBatchedWritesKeepOrder asserts that queues of all lengths, which are written in
// batches and alone in turns, arrive whole and in order.
func TestBatchedWritesKeepOrder(t *testing.T) {
	overBoth(t, func(t *testing.T, s *server, dial func() *client) {
		clients := dialAll(20, dial)
		for range 200 {
			burst := make([]string, 1+rand.IntN(12))
			for i := range burst {
				burst[i] = fmt.Sprint(i, strings.Repeat(".", rand.IntN(20<<rand.IntN(11))))
			}
			deliver(s, len(clients), burst...)
			for _, c := range clients {
				for _, m := range burst {
					c.expect(m)
				}
			}
		}
		assert.Positive(t, s.peer(0).conn.Shard().Stats().Batched)
	})
}

// TestBatchedWritesAfterOverflow asserts that a connection whose queue overflowed,
// which is written at once and stays on the list, is in a batch once.
func TestBatchedWritesAfterOverflow(t *testing.T) {
	engine.RequireBatchedWrites(t)
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops, cfg.MessageQueueSize = 1, 4 })
	clients := dialAll(20, s.dial)
	for first := range 20 {
		burst := make([]string, 4+first%5)
		for i := range burst {
			burst[i] = fmt.Sprint(first, i)
		}
		deliver(s, len(clients), burst...)
		for _, c := range clients {
			for _, m := range burst {
				c.expect(m)
			}
		}
	}
	assert.Positive(t, s.peer(0).conn.Shard().Stats().Batched)
}

// TestBatchedWritesAndPanics asserts that a panic at the end of one write harms no
// other connection of the same system call.
func TestBatchedWritesAndPanics(t *testing.T) {
	engine.RequireBatchedWrites(t)
	var panics atomic.Int64
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.Loops = 1
		s.onWriteError = func() {
			panics.Add(1)
			panic("of the observer")
		}
	})
	clients := dialAll(20, s.dial)
	release := hold(s.peer(0).conn.Shard())
	for _, c := range clients[:5] {
		require.NoError(t, c.Conn.(*net.TCPConn).SetLinger(0))
		require.NoError(t, c.Close())
	}
	first := postDelivery(s, len(clients), seq(0)) // written before the loop reads the resets
	release()
	<-first
	for i := range 20 {
		if i > 0 {
			deliver(s, len(clients), seq(i))
		}
		for _, c := range clients[5:] {
			c.expect(seq(i))
		}
	}
	assert.Positive(t, panics.Load())
}

// TestBatchedWritesToBrokenConnections asserts that connections that are reset, full or
// closing harm no other connection of the same system call.
func TestBatchedWritesToBrokenConnections(t *testing.T) {
	const members, messages = 64, 200
	overBoth(t, func(t *testing.T, s *server, dial func() *client) {
		var sockets []*net.TCPConn
		clients := dialAll(members, func() *client {
			c := dial()
			nc := c.Conn
			if t, ok := nc.(*tls.Conn); ok {
				nc = t.NetConn()
			}
			for {
				inner, ok := nc.(*client)
				if !ok {
					break
				}
				nc = inner.Conn
			}
			sockets = append(sockets, nc.(*net.TCPConn))
			return c
		})
		shard := s.peer(0).conn.Shard()
		release := hold(shard)
		for i := range clients {
			switch i % 4 {
			case 1: // reset
				require.NoError(t, sockets[i].SetLinger(0))
				require.NoError(t, sockets[i].Close())
			case 2: // closed by the server
				s.peer(i).conn.Close(codec.CloseNormal, "")
			}
		}
		release()
		payload := func(i int) string { return fmt.Sprint(i, strings.Repeat(" long", 800)) }
		var delivered sync.WaitGroup
		delivered.Go(func() {
			for i := range messages {
				deliver(s, members, payload(i))
			}
		})
		for _, late := range []int{0, 3} { // the sockets of clients that read late fill up
			var read sync.WaitGroup
			for i := late; i < members; i += 4 {
				read.Go(func() {
					for n := range messages {
						clients[i].expect(payload(n))
					}
				})
			}
			read.Wait()
		}
		delivered.Wait()
		assert.Positive(t, shard.Stats().Batched)
		s.eventually(func() bool { return shard.Stats().Connections <= members/2+1 }, "the broken connections have not ended")
	})
}

// TestBatchedWritesFallBack asserts that a submission that fails costs no message.
func TestBatchedWritesFallBack(t *testing.T) {
	overBoth(t, func(t *testing.T, s *server, dial func() *client) {
		clients := dialAll(20, dial)
		shard := s.peer(0).conn.Shard()
		broken := make(chan uint64, 1)
		shard.Post(taskFunc(func(s *engine.Shard) {
			engine.BreakRing(s)
			broken <- s.Stats().Batched
		}))
		before := <-broken
		for i := range 20 {
			deliver(s, len(clients), seq(i), "and")
			for _, c := range clients {
				c.expect(seq(i))
				c.expect("and")
			}
		}
		assert.Equal(t, before, shard.Stats().Batched, "all submissions failed")
	})
}

// TestBatchedWritesUntilTheEnd asserts that an engine stops while it writes.
func TestBatchedWritesUntilTheEnd(t *testing.T) {
	overBoth(t, func(t *testing.T, s *server, dial func() *client) {
		clients := dialAll(50, dial)
		f := engine.NewFrame(codec.OpText, []byte("again"), engine.Handling{})
		var publish func(*engine.Shard)
		publish = func(shard *engine.Shard) {
			for n := range clients {
				s.peer(n).conn.DeliverInLoop(f)
			}
			shard.Post(taskFunc(publish))
		}
		s.peer(0).conn.Shard().Post(taskFunc(publish))
		for _, c := range clients {
			c.expect("again")
		}
		s.shutdown()
	})
}
