package engine_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Where the loop's epoll is unknown, the bytes of a paused connection are held
// up to a bound. Beyond it the connection ends.
func TestPauseWithoutReadinessIsBounded(t *testing.T) {
	t.Parallel()
	const held = 10_000
	s := start(t, func(cfg *engine.Config, s *server) {
		cfg.NoReadiness, cfg.MailboxBytes, cfg.Loops = true, held, 1
		s.onMessage = func(p *peer, _ codec.Opcode, _ []byte) { p.conn.PauseInLoop() }
	})
	c := s.dial()
	c.send("this one pauses")
	shard := s.Shards()[0]
	s.eventually(func() bool { return shard.Stats().Paused == 1 }, "not paused")
	c.raw(strings.Repeat("x", held)) // nothing handles them
	s.eventually(func() bool { return shard.Stats().HeldBytes == held }, "the bytes are not held")
	assert.False(t, s.peer(0).conn.Closed())
	c.raw("x")
	c.expectClose(codec.ClosePolicyViolation)
	end := <-s.peer(0).ends
	assert.Equal(t, codec.ClosePolicyViolation, end.Code)
	assert.Equal(t, "client sends faster than its messages are handled", end.Reason)
	assert.Zero(t, shard.Stats().HeldBytes)
	assert.Zero(t, shard.Stats().Paused)
	assert.Zero(t, s.invalid.Load(), "the client did nothing wrong")
	s.dial().send("others are served")
	s.eventually(func() bool { return shard.Stats().Paused == 1 }, "not served")
}

// Bursts that fit into the bound are handled in order, whether the loop's epoll is
// known or not.
func TestPauseKeepsBurstsInOrder(t *testing.T) {
	const messages = 2000
	for name, unknown := range map[string]bool{"epoll known": false, "epoll unknown": true} {
		t.Run(name, func(t *testing.T) {
			resume := make(chan *peer, messages)
			s := start(t, func(cfg *engine.Config, s *server) {
				cfg.NoReadiness, cfg.MailboxBytes, cfg.MessageQueueSize = unknown, 1<<20, messages
				s.onMessage = func(p *peer, op codec.Opcode, payload []byte) {
					_ = p.conn.SendPayload(op, payload, engine.LaneNormal)
					if payload[len(payload)-1] == '7' {
						p.conn.PauseInLoop()
						resume <- p
					}
				}
			})
			go func() { // ends with the test
				for p := range resume {
					p.conn.Resume()
				}
			}()
			defer close(resume)
			c := s.dial()
			var burst strings.Builder
			for n := range messages {
				burst.WriteString(frame(gobwas.OpText, seq(n)))
			}
			c.raw(burst.String())
			for n := range messages {
				c.expect(seq(n))
			}
			assert.EqualValues(t, messages/10, pauses(s))
		})
	}
}

// If a paused client ends its stream, all its messages are handled first.
func TestPausedConnectionEndsBehindItsMessages(t *testing.T) {
	const messages = 2000
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			resume := make(chan *peer, messages)
			var handled []string // by the loop, before the connection has ended
			configure := func(_ *engine.Config, s *server) {
				s.onMessage = func(p *peer, _ codec.Opcode, payload []byte) {
					handled = append(handled, string(payload))
					p.conn.PauseInLoop()
					resume <- p
				}
			}
			var s *server
			var c *client
			if secure {
				ts := startTLS(t, configure)
				s, c = ts.server, ts.dialTLS(tls.VersionTLS13)
			} else {
				s = start(t, configure)
				c = s.dial()
			}
			var burst strings.Builder
			var want []string
			for n := range messages {
				want = append(want, seq(n))
				burst.WriteString(frame(gobwas.OpText, seq(n)))
			}
			c.raw(burst.String())
			require.NoError(t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
			go func() { // ends with the test
				for p := range resume {
					p.conn.Resume()
				}
			}()
			defer close(resume)
			end := receiveEnd(t, s.peer(0))
			assert.Equal(t, codec.CloseAbnormal, end.Code)
			assert.Equal(t, want, handled)
		})
	}
}

// pauses returns the number of pauses.
func pauses(s *server) (n uint64) {
	for _, shard := range s.Shards() {
		n += shard.Stats().PausedTotal
	}
	return n
}

// Peers of a simulated network that are paused at random messages, and resumed
// by another goroutine, keep everything in order. Their messages come in
// pieces.
func TestSimnetPausedPeersKeepTheOrder(t *testing.T) {
	const conns, messages = 40, 100
	resume := make(chan *peer, conns)
	m := startSimnet(t, func(cfg *engine.Config, s *server) {
		cfg.MessageQueueSize = 4 * messages
		s.onMessage = func(p *peer, op codec.Opcode, payload []byte) {
			_ = p.conn.SendPayload(op, payload, engine.LaneNormal)
			if rand.IntN(4) == 0 {
				p.conn.PauseInLoop()
				resume <- p // a paused connection gets no message, so there is space
			}
		}
	})
	go func() { // ends with the test
		for p := range resume {
			p.conn.Resume()
		}
	}()
	defer close(resume)
	m.connect(conns)
	var stream string
	var want []string
	for n := range messages {
		stream += frame(gobwas.OpText, seq(n))
		want = append(want, seq(n))
	}
	for rest := stream; len(rest) > 0; {
		n := min(1+rand.IntN(200), len(rest))
		for peer := range conns {
			m.Send(peer, []byte(rest[:n]))
		}
		rest = rest[n:]
	}
	m.eventually(func() bool { return m.Stats().Messages == conns*messages }, "messages are missing")
	for peer := range conns {
		require.Equal(t, want, m.take(peer), "peer %d", peer)
	}
	m.eventually(func() bool { return paused(m.server) == 0 }, "not all are resumed")
	for _, shard := range m.Shards() {
		assert.Zero(t, shard.Stats().HeldBytes)
	}
}

// paused returns the number of paused connections.
func paused(s *server) (n int) {
	for _, shard := range s.Shards() {
		n += shard.Stats().Paused
	}
	return n
}

// The limit of pings and pongs holds for each tick, also for a connection that
// is resumed in each tick.
func TestPausedConnectionMayPing(t *testing.T) {
	const tick, ticks, pings = 250 * time.Millisecond, 20, 100
	m := startSimnet(t, func(cfg *engine.Config, s *server) {
		cfg.ControlFrameLimit = 1 // 1,000 in a tick; see minControlsPerTick
		s.onMessage = func(p *peer, _ codec.Opcode, _ []byte) { p.conn.PauseInLoop() }
	})
	m.connect(1)
	stream := strings.Repeat(frame(gobwas.OpPing, ""), pings) + frame(gobwas.OpText, "pause")
	for range ticks {
		m.Advance(tick)
		m.Wait()
		m.peer(0).conn.Resume()
		m.Wait()
		m.Send(0, []byte(stream))
		m.Wait()
		require.Equal(t, 1, paused(m.server))
	}
	require.False(t, m.peer(0).conn.Closed())
}

// BenchmarkEchoPaused echoes over a socket, without and with a pause at each
// message, which another goroutine ends: the difference is the cost of both.
func BenchmarkEchoPaused(b *testing.B) {
	for _, pause := range []bool{false, true} {
		b.Run(fmt.Sprintf("pause=%t", pause), func(b *testing.B) {
			resume := make(chan *peer, 1)
			s := start(b, func(_ *engine.Config, s *server) {
				s.onMessage = func(p *peer, op codec.Opcode, payload []byte) {
					if pause {
						p.conn.PauseInLoop()
					}
					_ = p.conn.SendPayload(op, payload, engine.LaneNormal)
					resume <- p
				}
			})
			go func() { // ends with the benchmark
				for p := range resume {
					if pause {
						p.conn.Resume()
					}
				}
			}()
			defer close(resume)
			c := s.dial()
			b.ReportAllocs()
			for b.Loop() {
				c.echo()
			}
		})
	}
}

// BenchmarkPause pauses and resumes all connections of one loop in each turn.
// The metric pauses/s is the number of both in a second.
func BenchmarkPause(b *testing.B) {
	for _, conns := range []int{1, 100} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			s := start(b, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
			for range conns {
				s.dial()
			}
			peers := make([]*peer, conns)
			for n := range peers {
				peers[n] = s.peer(n)
			}
			shard := s.Shards()[0]
			b.ReportAllocs()
			for b.Loop() {
				onLoop(shard, func(*engine.Shard) {
					for _, p := range peers {
						p.conn.PauseInLoop()
						p.conn.Resume()
					}
				})
				for shard.Stats().Paused > 0 {
					runtime.Gosched()
				}
			}
			b.StopTimer()
			require.EqualValues(b, b.N*conns, pauses(s))
			b.ReportMetric(float64(b.N*conns)/b.Elapsed().Seconds(), "pauses/s")
		})
	}
}
