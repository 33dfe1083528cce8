//go:build linux

package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Shutdown comes while publishers publish, handlers run and clients dial: every
// client reads a close frame behind whole messages in order, and everything
// ends.
func TestScenarioShutdownUnderLoad(t *testing.T) {
	for _, mode := range []ws.HandlerMode{ws.Pooled, ws.Inline} {
		name := map[ws.HandlerMode]string{ws.Pooled: "pooled", ws.Inline: "inline"}[mode]
		t.Run(name, func(t *testing.T) { shutdownUnderLoad(t, mode) })
	}
}

func shutdownUnderLoad(t *testing.T, mode ws.HandlerMode) {
	const clients, publishers = 200, 4
	s := startScenario(t, ws.WithHandlerMode(mode), func(c *ws.Config) {
		c.Broadcast.QueueSize = 64
		c.MailboxSize = 1 << 20
		c.CloseTimeout = harness.Patience // all clients answer, be it slowly
	})
	var opened, closed atomic.Int64
	s.Subscribe(ws.EventClientConnected, func(ws.Event) { opened.Add(1) })
	s.Subscribe(ws.EventClientDisconnected, func(ws.Event) { closed.Add(1) })
	s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
		if err := c.SendBinary(payload); err != nil {
			assert.True(t, errors.Is(err, ws.ErrConnectionClosed) || errors.Is(err, ws.ErrChannelFull), "%v", err)
		}
	})
	swarm := newSwarm(t)
	conns := make([]*swarmConn, clients)
	logs := make([]numberLog, clients)
	sides := make([]*ws.Client, clients)
	for i := range conns {
		query := queryOf(1, i)
		logs[i] = make(numberLog, publishers+1)
		way := []harness.Way{harness.Native, harness.NetHTTP}[i/2%2]
		conns[i] = swarm.dial(s.AddrOf(way), dialOptions{query: query, onMessage: logs[i].take})
		sides[i] = serverSide(s, query)
		require.NoError(t, sides[i].JoinRoom("all"))
	}
	var stop atomic.Bool
	var working sync.WaitGroup
	defer working.Wait()
	defer stop.Store(true)
	accepted := make([]numberLog, publishers) // direct sends by publisher, then client
	for p := range publishers {
		accepted[p] = make(numberLog, clients)
		working.Go(func() { publishUntil(&stop, s, sides, p, accepted[p]) })
	}
	working.Go(func() { sendAll(conns, publishers, &stop) })
	late := make([]*swarmConn, 0, 64)
	working.Go(func() { // clients that come during the shutdown
		for !stop.Load() && len(late) < cap(late) {
			c, err := swarm.tryDial(s.AddrOf(harness.Native), dialOptions{})
			if err != nil {
				return // refused or reset: it is too late
			}
			late = append(late, c)
		}
	})
	for i, c := range conns {
		harness.Eventually(t, func() bool { return c.received.Load() >= 20 }, "messages on connection %d", i)
	}
	endsInTime(t, "Shutdown", func() { s.Stop() })
	stop.Store(true)
	endsInTime(t, "publishers and clients", working.Wait)

	for i, c := range append(conns, late...) {
		harness.Eventually(t, c.over.Load, "end of connection %d", i)
		require.EqualValues(t, 1001, c.closeCode.Load(), "connection %d got neither all nor a close frame", i)
		require.True(t, c.orderly.Load(), "connection %d was reset", i)
		require.Empty(t, c.buf, "connection %d ended within a frame", i)
	}
	for i := range conns {
		ascendingLogs(t, logs[i], i)
		for p := range publishers {
			publisherPrefix(t, accepted[p][i], logs[i][p], p, i)
		}
	}
	assert.EqualValues(t, clients+len(late), opened.Load())
	assert.EqualValues(t, opened.Load(), closed.Load())
	afterShutdown(t, s.Manager, sides[0])
}

// publishUntil sends numbered messages to all clients and to each, until stop.
// It notes in accepted the direct sends, by client.
func publishUntil(stop *atomic.Bool, s *harness.Server, sides []*ws.Client, p int, accepted numberLog) {
	for n := uint32(0); !stop.Load(); n++ {
		i := int(n) % len(sides)
		if n%20 == 0 {
			if err := s.BroadcastToRoom("all", stamp(p, n), nil); err != nil {
				assert.ErrorIs(s.T, err, ws.ErrManagerStopped)
			}
		} else if sides[i].SendBytes(stamp(p, n)) == nil {
			accepted[i] = append(accepted[i], n)
		}
	}
}

// sendAll sends numbered messages on all connections until stop.
func sendAll(conns []*swarmConn, sender int, stop *atomic.Bool) {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for n := uint32(0); !stop.Load(); n++ {
		<-pace.C
		for _, c := range conns {
			_ = c.send(gobwas.OpBinary, stamp(sender, n)) // fails once the connection has ended
		}
	}
}

// ascendingLogs checks that a client received each publisher's messages in order.
func ascendingLogs(t *testing.T, log numberLog, client int) {
	t.Helper()
	for p, numbers := range log {
		for k := 1; k < len(numbers); k++ {
			require.Less(t, numbers[k-1], numbers[k], "publisher %d to client %d: out of order", p, client)
		}
	}
}

// publisherPrefix checks that the received direct sends of a publisher are all accepted ones up to
// some point, the close frame.
func publisherPrefix(t *testing.T, accepted, got []uint32, publisher, client int) {
	t.Helper()
	arrived := make(map[uint32]bool, len(got))
	for _, n := range got {
		arrived[n] = true
	}
	missing := false
	for _, n := range accepted {
		if arrived[n] && missing {
			require.Failf(t, "a gap", "publisher %d to client %d: message %d came, an earlier one did not", publisher, client, n)
		}
		missing = missing || !arrived[n]
	}
}

// A client that breaks the protocol after it was told of the end is not kept
// until the close timeout.
func TestScenarioProtocolErrorWhileClosing(t *testing.T) {
	s := startScenario(t, func(c *ws.Config) { c.CloseTimeout = time.Hour })
	swarm := newSwarm(t)
	conn := swarm.dial(s.AddrOf(harness.Native), dialOptions{mute: true, query: queryOf(0, 0)})
	serverSide(s, queryOf(0, 0)).Close()
	harness.Eventually(t, func() bool { return s.Stats().Total.Writes >= 2 }, "the close frame")
	require.NoError(t, conn.send(gobwas.OpText, []byte{0xff})) // no UTF-8
	require.NoError(t, conn.send(gobwas.OpClose, []byte{3, 232}))
	harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "the end of the connection")
}

// afterShutdown makes every call that there is on a manager that was shut down, and on a client of
// it, if it had one: they return as documented, and none hangs.
func afterShutdown(t *testing.T, m *ws.Manager, c *ws.Client) {
	t.Helper()
	endsInTime(t, "a call after Shutdown", func() {
		for range 3 {
			if err := m.BroadcastToRoom("all", []byte("x"), nil); err != nil {
				assert.True(t, errors.Is(err, ws.ErrRoomNotFound) || errors.Is(err, ws.ErrManagerStopped), "%v", err)
			}
			m.BroadcastAll([]byte("x"))
			m.BroadcastToUser(1, []byte("x"))
		}
		assert.ErrorIs(t, m.BroadcastToRoom("nowhere", []byte("x"), nil), ws.ErrRoomNotFound)
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/ws?user=1&id=1", nil)
		assert.ErrorIs(t, m.HandleUpgrade(w, r), ws.ErrManagerStopped)
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		st := m.Stats()
		assert.Zero(t, st.Clients)
		assert.Zero(t, st.Total.Connections)
		assert.Zero(t, m.GetClientCount())
		m.RangeClients(func(*ws.Client) bool {
			assert.Fail(t, "a client is left")
			return false
		})
		assert.Empty(t, m.GetRoomMembers("all"))
		m.DeleteRoom("all")
		_ = m.Addr()
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		assert.NoError(t, m.Shutdown(ctx))
		assert.NoError(t, m.Run()) // stopped already, or
		if c == nil {
			return
		}
		assert.True(t, c.IsClosed())
		assert.ErrorIs(t, c.SendBytes([]byte("x")), ws.ErrConnectionClosed)
		assert.ErrorIs(t, c.SendBytesHigh([]byte("x")), ws.ErrConnectionClosed)
		assert.ErrorIs(t, c.SendPrepared(ws.Prepare(ws.OpBinary, []byte("x"))), ws.ErrConnectionClosed)
		assert.ErrorIs(t, c.JoinRoom("all"), ws.ErrConnectionClosed)
		c.LeaveRoom("all")
		c.Close()
		assert.Empty(t, c.GetRooms())
		assert.Zero(t, c.QueuedBytes())
	})
}

// Clients that do not answer the close frame are cut off when the context ends,
// and Shutdown says so.
func TestScenarioShutdownCutsOffWhoDoesNotAnswer(t *testing.T) {
	leavesNothing(t)
	m := newManager(t)
	s := harness.Run(t, m)
	swarm := newSwarm(t)
	for range 50 {
		swarm.dial(s.AddrOf(harness.Native), dialOptions{mute: true})
		swarm.dial(s.AddrOf(harness.NetHTTP), dialOptions{mute: true})
	}
	harness.Eventually(t, func() bool { return m.GetClientCount() == 100 }, "100 clients")
	s.Abandon()
	s.Web.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	endsInTime(t, "Shutdown", func() { assert.ErrorIs(t, m.Shutdown(ctx), context.DeadlineExceeded) })
	require.NoError(t, harness.Receive(t, s.Ran, "Run's return"))
	assert.Zero(t, m.GetClientCount())
}

// A context that has ended already ends everything at once, at any time: it
// never leaves a manager behind that runs on.
func TestScenarioShutdownWithEndedContext(t *testing.T) {
	for _, when := range []string{"running", "with a client", "starting", "never run"} {
		t.Run(when, func(t *testing.T) {
			leavesNothing(t)
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			for range 8 { // the outcome must not depend on chance
				m := newManager(t)
				ran := make(chan error, 1)
				switch when {
				case "running", "with a client":
					go func() { ran <- m.Run() }()
					require.NotNil(t, m.Addr())
				case "starting":
					go func() { ran <- m.Run() }()
				default:
					ran <- nil
				}
				if when == "with a client" {
					newSwarm(t).dial(m.Addr().String(), dialOptions{mute: true})
				}
				endsInTime(t, "Shutdown", func() {
					if err := m.Shutdown(ended); err != nil {
						assert.ErrorIs(t, err, context.Canceled)
					}
				})
				require.NoError(t, harness.Receive(t, ran, "Run's return"))
				afterShutdown(t, m, nil)
			}
		})
	}
}

// Shutdown and Run meet in every order.
func TestScenarioStartAndStopRaces(t *testing.T) {
	ctx := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("Shutdown right after Run", func(t *testing.T) {
		leavesNothing(t)
		for i := range 20 {
			var opts []ws.Option
			if i%2 == 0 {
				opts = append(opts, ws.WithListenAddr("")) // loops without a listener
			}
			m := newManager(t, opts...)
			ran := make(chan error, 1)
			go func() { ran <- m.Run() }()
			endsInTime(t, "Shutdown", func() { assert.NoError(t, m.Shutdown(ctx(t))) })
			require.NoError(t, harness.Receive(t, ran, "Run's return"))
		}
	})
	t.Run("never run", func(t *testing.T) {
		leavesNothing(t)
		m := newManager(t)
		endsInTime(t, "Shutdown", func() { assert.NoError(t, m.Shutdown(ctx(t))) })
		afterShutdown(t, m, nil)
	})
	t.Run("Run twice", func(t *testing.T) {
		s := startScenario(t)
		endsInTime(t, "the second Run", func() { assert.Error(t, s.Run()) })
		require.NotNil(t, s.Addr())
		newSwarm(t).dial(s.AddrOf(harness.Native), dialOptions{})
		s.Stop()
	})
	t.Run("Shutdown from many goroutines", func(t *testing.T) {
		s := startScenario(t)
		swarm := newSwarm(t)
		conns := make([]*swarmConn, 100)
		for i := range conns {
			conns[i] = swarm.dial(s.AddrOf(harness.Native), dialOptions{})
		}
		var stopping sync.WaitGroup
		for range 8 {
			stopping.Go(func() { assert.NoError(t, s.Shutdown(ctx(t))) })
		}
		endsInTime(t, "Shutdown", stopping.Wait)
		s.Stop()
		for i, c := range conns {
			harness.Eventually(t, c.over.Load, "end of connection %d", i)
			require.EqualValues(t, 1001, c.closeCode.Load(), "connection %d", i)
		}
	})
	t.Run("a second Shutdown with less time", func(t *testing.T) {
		s := startScenario(t)
		swarm := newSwarm(t)
		swarm.dial(s.AddrOf(harness.Native), dialOptions{mute: true})
		first := make(chan error, 1)
		go func() { first <- s.Shutdown(ctx(t)) }()
		harness.Eventually(t, func() bool { // its close frame is on the way: it has begun
			return s.Stats().Total.Writes >= 2
		}, "the first Shutdown's close frame")
		hurry, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		endsInTime(t, "the second Shutdown", func() { assert.ErrorIs(t, s.Shutdown(hurry), context.DeadlineExceeded) })
		swarm.close() // now the first may end as well
		swarm.ended = make(chan struct{})
		close(swarm.ended)
		harness.Receive(t, first, "the first Shutdown")
		s.Stop()
	})
}

// Managers start and stop in quick succession with connections in every stage
// of their life.
func TestScenarioQuickCycles(t *testing.T) { quickCycles(t, 50) }

func quickCycles(t *testing.T, cycles int) {
	leavesNothing(t)
	for i := range cycles {
		t.Run(fmt.Sprint(i), func(t *testing.T) { quickCycle(t, i) })
		if t.Failed() {
			return
		}
	}
}

func quickCycle(t *testing.T, i int) {
	s := harness.Run(t, newManager(t, func(c *ws.Config) { c.CloseTimeout = 100 * time.Millisecond }))
	s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	swarm := newSwarm(t)
	var dialing sync.WaitGroup
	var stop atomic.Bool
	for d := range 4 {
		addr := s.AddrOf([]harness.Way{harness.Native, harness.NetHTTP}[d%2])
		dialing.Go(func() {
			for n := 0; !stop.Load() && n < 50; n++ {
				switch d {
				case 2: // in the middle of the handshake
					if fd, err := connectTCP(addr, 0); err == nil {
						c := &swarmConn{swarm: swarm, fd: fd}
						_ = c.raw([]byte(strings.TrimSuffix(harness.UpgradeRequest("/ws", ""), "\n")))
						c.abort()
					}
				default:
					c, err := swarm.tryDial(addr, dialOptions{mute: n%10 == 0})
					if err != nil {
						return // the server has stopped
					}
					_ = c.send(gobwas.OpText, []byte("hello"))
					if n%3 == 0 {
						c.abort()
					}
				}
			}
		})
	}
	harness.Eventually(t, func() bool { return s.Stats().Total.Opened > uint64(i%20) }, "connections")
	endsInTime(t, "Shutdown", func() { s.Stop() })
	stop.Store(true)
	endsInTime(t, "dialing", dialing.Wait)
}
