package ws_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestManyRooms joins and leaves rooms at random, beside a plain list.
func TestManyRooms(t *testing.T) {
	s := harness.Start(t)
	_, c := s.DialClient(harness.Native)
	require.NoError(t, c.JoinRoom("only"))
	assert.False(t, ws.HasLazyState(c), "one room needs none")
	c.LeaveRoom("only")
	want := []string{}
	for step := range 2000 {
		rooms := 5 + 95*(step/500%2) // few, many, few and many
		id := fmt.Sprint(rand.IntN(rooms))
		in := -1
		for i := range want {
			if want[i] == id {
				in = i
			}
		}
		switch {
		case in < 0:
			require.NoError(t, c.JoinRoom(id))
			want = append(want, id)
		case rand.IntN(2) == 0:
			c.LeaveRoom(id)
			want = append(want[:in], want[in+1:]...)
		default:
			require.Error(t, c.JoinRoom(id))
		}
		require.Equal(t, want, c.GetRooms(), "in the order of joining")
	}
	c.SetMetadata("k", "v")
	for _, id := range want {
		c.LeaveRoom(id)
	}
	assert.Empty(t, c.GetRooms())
	value, _ := c.GetMetadata("k")
	assert.Equal(t, "v", value, "metadata stays")

	_, other := s.DialClient(harness.Native)
	require.NoError(t, other.JoinRoom("a"))
	require.NoError(t, other.JoinRoom("b"))
	assert.True(t, ws.HasLazyState(other))
	other.LeaveRoom("a")
	assert.Equal(t, []string{"b"}, other.GetRooms())
	assert.False(t, ws.HasLazyState(other), "given back")
}
