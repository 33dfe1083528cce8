package client_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestRoomsAreForgotten joins and leaves many rooms: the client keeps those with callbacks only.
func TestRoomsAreForgotten(t *testing.T) {
	s := startHistory(t)
	c := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws")
	require.NoError(t, c.Connect(within(t)))
	var offs []func()
	for i := range 10 {
		room := c.Room(fmt.Sprint(i))
		_, err := room.Join(within(t))
		require.NoError(t, err)
		offs = append(offs, room.On("a", func(client.Notify) {}), room.On("b", func(client.Notify) {}),
			c.Room(room.Name()).OnGap(func(client.Gap) {}), room.OnLost(func(error) {}))
		if i%2 == 0 {
			require.NoError(t, c.Room(room.Name()).Leave(within(t)))
		}
	}
	assert.Equal(t, 10, c.Rooms())
	for _, off := range offs {
		off()
		off()
	}
	assert.Equal(t, 5, c.Rooms(), "those that were not left")
	for i := range 10 {
		room := c.Room(fmt.Sprint(i))
		_, err := room.Join(within(t))
		if i%2 == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, client.ErrAlreadyJoined)
		}
		require.NoError(t, room.Leave(within(t)))
		require.NoError(t, room.Leave(within(t)))
		room.Ack(1)
		assert.Zero(t, room.Position())
	}
	assert.Zero(t, c.Rooms())
}
