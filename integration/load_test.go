//go:build linux

package integration_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// No goroutine belongs to a connection, whichever way it came: thousands are
// opened, published to and shut down while the number of goroutines stays.
func TestScenarioManyConnectionsTakeNoGoroutines(t *testing.T) {
	for _, way := range []harness.Way{harness.Native, harness.NetHTTP} {
		t.Run(string(way), func(t *testing.T) {
			fanOut(t, way, connections(t, 5000), 10)
		})
	}
}

// fanOut opens n connections, publishes a number of messages to all of
// them, and shuts down.
func fanOut(t *testing.T, way harness.Way, n, messages int) {
	s := startScenario(t, func(c *ws.Config) { c.Authenticate = nil })
	swarm := newSwarm(t)
	conns := make([]*swarmConn, 0, n)
	open := func(upTo int) {
		for len(conns) < upTo {
			conns = append(conns, swarm.dial(s.AddrOf(way), dialOptions{}))
		}
		harness.Eventually(t, func() bool { return s.GetClientCount() == upTo }, "%d clients", upTo)
	}
	open(100)
	before := runtime.NumGoroutine()
	open(n)
	const slack = 16 // handlers of net/http and workers of gnet that are about to end
	harness.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+slack },
		"%d goroutines with 100 connections, with %d: %v", before, n,
		lazyText(func() string { return fmt.Sprint(runtime.NumGoroutine()) }))
	t.Logf("goroutines: %d with 100 connections, %d with %d", before, runtime.NumGoroutine(), n)

	joined := 0
	s.RangeClients(func(c *ws.Client) bool {
		assert.NoError(t, c.JoinRoom("all"))
		joined++
		return true
	})
	require.Equal(t, n, joined)
	require.Len(t, s.GetRoomMembers("all"), n)
	for i := range messages {
		require.NoError(t, s.BroadcastToRoom("all", fmt.Appendf(nil, "message %d", i), nil))
		all := int64(i + 1)
		for i, c := range conns {
			harness.Eventually(t, func() bool { return c.received.Load() >= all }, "message %d on connection %d", all, i)
		}
	}
	assert.Zero(t, s.Stats().Total.Drops.Full)

	s.Stop()
	for i, c := range conns {
		harness.Eventually(t, c.over.Load, "end of connection %d", i)
		require.EqualValues(t, 1001, c.closeCode.Load(), "connection %d", i)
		require.True(t, c.orderly.Load(), "connection %d was reset", i)
		require.EqualValues(t, messages, c.received.Load(), "connection %d", i)
	}
	assert.Zero(t, s.GetClientCount())
	assert.Empty(t, s.GetRoomMembers("all"))
}

// cut ends many connections at once.
type cut func(s *harness.Server, conns []*swarmConn)

func serverCloses(s *harness.Server, _ []*swarmConn) {
	s.RangeClients(func(c *ws.Client) bool {
		c.CloseWithCode(ws.CloseTryAgainLater, "again")
		return true
	})
}

func clientsReset(_ *harness.Server, conns []*swarmConn) {
	for _, c := range conns {
		c.abort()
	}
}

// All clients are cut off at once and are back at once, while the server
// publishes to everybody.
func TestScenarioReconnectStorm(t *testing.T) {
	t.Run("the server closes", func(t *testing.T) { reconnectStorm(t, harness.NetHTTP, 1000, serverCloses) })
	t.Run("the clients reset", func(t *testing.T) { reconnectStorm(t, harness.Native, 1000, clientsReset) })
}

func reconnectStorm(t *testing.T, way harness.Way, n int, cut cut) {
	const dialers = 8
	var connected, disconnected atomic.Int64
	s := startScenario(t)
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { connected.Add(1) })
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { disconnected.Add(1) })
	swarm := newSwarm(t)
	dialAll := func() []*swarmConn {
		conns := make([]*swarmConn, n)
		var wg sync.WaitGroup
		for d := range dialers {
			wg.Go(func() {
				for i := d; i < n; i += dialers {
					c, err := swarm.tryDial(s.AddrOf(way), dialOptions{query: queryOf(i, i)})
					if assert.NoError(t, err) {
						conns[i] = c
					}
				}
			})
		}
		wg.Wait()
		require.False(t, t.Failed())
		return conns
	}
	first := dialAll()

	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		// At a steady pace: in one process with thousands of clients, a publisher at full
		// speed leaves the clients no time to dial.
		for pace := time.NewTicker(10 * time.Millisecond); ; s.BroadcastAll([]byte("to all")) {
			select {
			case <-stop:
				pace.Stop()
				return
			case <-pace.C:
			}
		}
	})
	harness.Eventually(t, func() bool { return first[n-1].received.Load() > 0 }, "a broadcast")
	cut(s, first)
	second := dialAll()
	for i, c := range first {
		harness.Eventually(t, c.over.Load, "end of connection %d", i)
	}
	harness.Eventually(t, func() bool { return s.GetClientCount() == n }, "clients after the storm: %v",
		lazyText(func() string { return fmt.Sprint(s.GetClientCount()) }))
	had := make([]int64, n)
	for i, c := range second {
		had[i] = c.received.Load()
	}
	for i, c := range second {
		harness.Eventually(t, func() bool { return c.received.Load() > had[i] }, "a broadcast on new connection %d", i)
	}
	close(stop)
	publishing.Wait()
	for i, c := range second {
		require.False(t, c.over.Load(), "new connection %d has ended", i)
		require.Len(t, clientsOf(s, int64(i)), 1, "user %d", i)
	}
	s.Stop()
	assert.EqualValues(t, 2*n, connected.Load())
	assert.EqualValues(t, 2*n, disconnected.Load())
}

// clientsOf returns the connected clients of a user.
func clientsOf(s *harness.Server, user int64) (clients []*ws.Client) {
	s.RangeClients(func(c *ws.Client) bool {
		if c.UserID == user {
			clients = append(clients, c)
		}
		return true
	})
	return clients
}

// dropMeter counts the drops that reach the metrics.
type dropMeter struct {
	ws.NoopMetrics
	dropped atomic.Int64
}

func (m *dropMeter) IncrementDroppedMessages() { m.dropped.Add(1) }

// One member in twenty never reads. The others lose nothing and see the order; the queues of the
// slow ones stay within their bounds, and every message that they lose is counted.
func TestScenarioSlowReadersHarmNobody(t *testing.T) {
	const members, every, size = 500, 20, 512
	const queueFrames, queueBytes = 128, 48 << 10 // bytes bind first
	var meter dropMeter
	s := startScenario(t, ws.WithMessageQueueSize(queueFrames), ws.WithQueueBytes(queueBytes), ws.WithMetrics(&meter))
	swarm := newSwarm(t)
	var healthy []*swarmConn
	var slow []*ws.Client
	var disorder atomic.Int64
	for i := range members {
		query := queryOf(0, i)
		d := dialOptions{query: query}
		if d.mute = i%every == 0; d.mute {
			d.recvBuf = 4096
			swarm.dial(s.AddrOf(harness.Native), d)
			slow = append(slow, serverSide(s, query))
			continue
		}
		next := uint64(0)
		d.onMessage = func(payload []byte) {
			if binary.BigEndian.Uint64(payload) != next {
				disorder.Add(1)
			}
			next++
		}
		healthy = append(healthy, swarm.dial(s.AddrOf(harness.Native), d))
	}
	for _, c := range serverSides(s) {
		require.NoError(t, c.JoinRoom("prices"))
	}

	// The publisher is never more than half a queue ahead of the healthy ones,
	// which therefore must not lose anything.
	const burst, least, most = queueBytes / size / 2, 2000, 40_000
	published := 0
	heap := heapInUse()
	full := func() bool {
		for _, c := range slow {
			if c.QueuedBytes() < queueBytes-2*size {
				return false
			}
		}
		return true
	}
	payload := make([]byte, size)
	for published < least || !full() || s.Stats().Total.Drops.Full < uint64(len(slow)*burst) {
		require.Less(t, published, most, "the slow readers' sockets never filled")
		for range burst {
			binary.BigEndian.PutUint64(payload, uint64(published))
			require.NoError(t, s.BroadcastToRoom("prices", payload, nil))
			published++
		}
		for i, c := range healthy {
			harness.Eventually(t, func() bool { return c.received.Load() >= int64(published) },
				"message %d on healthy connection %d", published, i)
		}
		for _, c := range slow {
			require.LessOrEqual(t, c.QueuedBytes(), queueBytes)
		}
	}
	for _, c := range healthy {
		require.EqualValues(t, published, c.received.Load(), "no loss and no duplicate")
	}
	assert.Zero(t, disorder.Load(), "messages out of order")

	// Each message is accounted for: sent, queued or dropped, for each member. A message counts
	// as sent after its write.
	var stats ws.Stats
	queued := 0
	harness.Eventually(t, func() bool {
		stats, queued = s.Stats(), 0
		for _, c := range slow {
			queued += c.QueuedBytes()
		}
		return members*published == int(stats.Total.MessagesOut+stats.Total.Drops.Full)+queued/(size+4)
	}, "of %d messages to each member, some are neither sent, dropped nor queued", published)
	assert.Positive(t, stats.Total.Drops.Full)
	harness.Eventually(t, func() bool {
		return meter.dropped.Load() == int64(stats.Total.Drops.Full)
	}, "drops reach the metrics")
	// Frames are shared; if each slow reader had its own copies, that were its queue.
	grown := int64(heapInUse()) - int64(heap)
	t.Logf("%d messages, %d drops, %d bytes queued for %d slow readers, heap grew by %d bytes",
		published, stats.Total.Drops.Full, queued, len(slow), grown)
	assert.Less(t, grown, int64(len(slow)*queueBytes+4<<20))
}
