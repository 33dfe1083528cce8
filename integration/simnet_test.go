package integration_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// A manager on a Simnet works as on sockets: clients connect, join, echo, publish, leave, and read
// a close frame at its end.
func TestManagerOnSimnet(t *testing.T) {
	const clients, members = 1000, 100
	mem := ws.NewSimnet()
	var received atomic.Int64 // bytes of messages
	mem.OnFrame = func(_ int, frame []byte) {
		if op, payload := codec.SplitFrame(frame); !op.IsControl() {
			received.Add(int64(len(payload)))
		}
	}
	m, err := ws.NewManager(ws.WithHandlerMode(ws.Inline), ws.WithLoops(3), func(c *ws.Config) { c.Simnet = mem })
	require.NoError(t, err)
	m.HandleRaw(harness.Echo)
	run := make(chan error, 1)
	go func() { run <- m.Run() }()

	mem.Connect(clients, []byte(harness.UpgradeRequest("/ws", "")))
	mem.Wait()
	require.Equal(t, clients, m.GetClientCount())
	assert.Nil(t, m.Addr())
	for i := range clients {
		mem.Send(i, []byte(harness.Frame(1, fmt.Sprintf("%04d", i))))
	}
	mem.Wait()
	assert.EqualValues(t, 4*clients, received.Swap(0))

	joined := 0
	m.RangeClients(func(c *ws.Client) bool {
		assert.NoError(t, c.JoinRoom("room"))
		joined++
		return joined < members
	})
	d, err := m.Publish("room", []byte("to the room"))
	require.NoError(t, err)
	mem.Wait()
	assert.EqualValues(t, members, d.Queued())
	assert.EqualValues(t, members*len("to the room"), received.Swap(0))
	m.BroadcastAll([]byte("to all"))
	mem.Wait()
	assert.EqualValues(t, clients*len("to all"), received.Swap(0))
	for _, c := range m.GetRoomMembers("room") {
		c.LeaveRoom("room")
	}
	require.ErrorIs(t, m.BroadcastToRoom("room", []byte("to nobody"), nil), ws.ErrRoomNotFound)
	mem.Wait()
	assert.Zero(t, received.Load())

	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	require.NoError(t, m.Shutdown(ctx))
	require.NoError(t, <-run)
	assert.Zero(t, m.GetClientCount())
	assert.EqualValues(t, clients, mem.Stats().Closes)
}

// HandleUpgrade brings sockets, which a Simnet has no loop for.
func TestSimnetRefusesHandleUpgrade(t *testing.T) {
	s := harness.Start(t, func(c *ws.Config) { c.ListenAddr, c.Simnet = "", ws.NewSimnet() })
	c := s.DialTCP(harness.NetHTTP)
	c.WriteRaw(harness.UpgradeRequest("/ws", ""))
	require.ErrorContains(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"), "no sockets")
	assert.Zero(t, s.GetClientCount())
}
