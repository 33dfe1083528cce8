//go:build linux

package integration_test

import (
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

// A drain comes while publishers publish, handlers run and the clients send: the clients read
// each message that was accepted for them, and each message that they have sent before their
// close frame is handled.
func TestScenarioDrainUnderLoad(t *testing.T) {
	for _, mode := range []ws.HandlerMode{ws.Pooled, ws.Inline} {
		name := map[ws.HandlerMode]string{ws.Pooled: "pooled", ws.Inline: "inline"}[mode]
		t.Run(name, func(t *testing.T) { drainUnderLoad(t, mode) })
	}
}

func drainUnderLoad(t *testing.T, mode ws.HandlerMode) {
	const clients, publishers = 200, 4
	handled := make([]atomic.Int64, clients)
	s := startScenario(t, ws.WithHandlerMode(mode), ws.WithMessageQueueSize(1<<20), harness.WithDeepQueue,
		func(c *ws.Config) { c.CloseTimeout = harness.Patience })
	s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
		handled[c.UserID].Add(1)
		if err := c.SendBinary(payload); err != nil {
			assert.ErrorIs(t, err, ws.ErrConnectionClosed)
		}
	})
	swarm := newSwarm(t)
	conns, sent := make([]*swarmConn, clients), make([]atomic.Int64, clients)
	logs := make([]numberLog, clients)
	sides := make([]*ws.Client, clients)
	for i := range conns {
		query := queryOf(i, i)
		logs[i] = make(numberLog, publishers+1)
		way := []harness.Way{harness.Native, harness.NetHTTP}[i%2]
		conns[i] = swarm.dial(s.AddrOf(way), dialOptions{query: query, onMessage: logs[i].take})
		sides[i] = serverSide(s, query)
	}
	var stop atomic.Bool
	var working sync.WaitGroup
	defer working.Wait()
	defer stop.Store(true)
	accepted := make([]numberLog, publishers) // by publisher, then client
	for p := range publishers {
		accepted[p] = make(numberLog, clients)
		working.Go(func() { sendUntil(&stop, sides, p, accepted[p]) })
	}
	working.Go(func() { countSent(conns, sent, publishers, &stop) })
	for i, c := range conns {
		harness.Eventually(t, func() bool { return c.received.Load() >= 20 }, "messages on connection %d", i)
	}
	endsInTime(t, "Drain", func() {
		assert.NoError(t, s.Drain(t.Context(), ws.DrainConfig{Grace: -1, Window: time.Second}))
	})
	stop.Store(true)
	endsInTime(t, "publishers and clients", working.Wait)

	assert.Equal(t, clients, s.DrainStats().Closed)
	for i, c := range conns {
		harness.Eventually(t, c.over.Load, "end of connection %d", i)
		require.EqualValues(t, 1012, c.closeCode.Load(), "connection %d", i)
		require.True(t, c.orderly.Load(), "connection %d was reset", i)
		harness.Eventually(t, func() bool { return handled[i].Load() == sent[i].Load() },
			"client %d: %d sent, %d handled", i, sent[i].Load(), handled[i].Load())
		for p := range publishers {
			require.Equal(t, accepted[p][i], logs[i][p], "publisher %d to client %d", p, i)
		}
	}
	assert.Zero(t, s.Stats().Unhandled)
}

// sendUntil sends numbered messages to each client in turn, until stop. It notes in accepted
// those that were accepted, by client.
func sendUntil(stop *atomic.Bool, sides []*ws.Client, p int, accepted numberLog) {
	pace := time.NewTicker(time.Millisecond) // so that the clients can read all of it
	defer pace.Stop()
	for n := uint32(0); !stop.Load(); n++ {
		i := int(n) % len(sides)
		if sides[i].SendBytes(stamp(p, n)) == nil {
			accepted[i] = append(accepted[i], n)
		}
		if i == 0 {
			<-pace.C
		}
	}
}

// countSent sends numbered messages on all connections until stop, and counts those that were
// sent before the close frame.
func countSent(conns []*swarmConn, sent []atomic.Int64, sender int, stop *atomic.Bool) {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for n := uint32(0); !stop.Load(); n++ {
		<-pace.C
		for i, c := range conns {
			if c.send(gobwas.OpBinary, stamp(sender, n)) == nil {
				sent[i].Add(1)
			}
		}
	}
}
