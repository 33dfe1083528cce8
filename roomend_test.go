package ws_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// roomRecorder is a recorder that also hears of the end of rooms.
type roomRecorder struct{ *recorder }

func (r roomRecorder) RoomEnded(id string) { r.set("members "+id, -1) }

// Whatever ends a room, the optional second interface of Metrics hears of it last, and
// the bus publishes it.
func TestRoomEnds(t *testing.T) {
	r := roomRecorder{newRecorder()}
	s := start(t, ws.WithMetrics(r), func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = 5*time.Millisecond, 50*time.Millisecond
	})
	events := s.events(ws.EventRoomEnded, ws.EventRoomLeft)
	ended := func(id string, types ...ws.EventType) {
		t.Helper()
		eventually(t, func() bool { return r.get("members "+id) == -1 }, "%s has %d members", id, r.get("members "+id))
		for _, want := range types {
			e := receive(t, events, "no %s", want)
			assert.Equal(t, want, e.Type)
			assert.Equal(t, id, e.Data)
			assert.Equal(t, want == ws.EventRoomEnded, e.Client == nil)
		}
	}
	c, sc := s.dialClient(native)
	require.NoError(t, sc.JoinRoom("left"))
	sc.LeaveRoom("left")
	ended("left", ws.EventRoomLeft, ws.EventRoomEnded)
	require.NoError(t, sc.JoinRoom("deleted"))
	s.DeleteRoom("deleted")
	ended("deleted", ws.EventRoomEnded, ws.EventRoomLeft)
	_, err := s.CreateRoom("empty", nil)
	require.NoError(t, err)
	ended("empty", ws.EventRoomEnded)
	require.NoError(t, sc.JoinRoom("empty"))
	assert.Equal(t, 1, r.get("members empty"), "a room of the same ID")
	c.abort()
	ended("empty", ws.EventRoomLeft, ws.EventRoomEnded)
}

// A panic in RoomEnded ends there.
func TestRoomEndedThatPanics(t *testing.T) {
	s := start(t, ws.WithMetrics(panickingRoomMetrics{}))
	_, sc := s.dialClient(native)
	require.NoError(t, sc.JoinRoom("r"))
	sc.LeaveRoom("r")
	require.NoError(t, sc.JoinRoom("r"))
}

type panickingRoomMetrics struct{ ws.NoopMetrics }

func (panickingRoomMetrics) RoomEnded(string) { panic("metrics") }

// A join that is refused creates no room, not even for a moment.
func TestRefusedJoinCreatesNoRoom(t *testing.T) {
	s := start(t, ws.WithMaxRoomsPerClient(1))
	ended := s.events(ws.EventRoomEnded)
	_, sc := s.dialClient(native)
	require.NoError(t, sc.JoinRoom("r"))
	for i := range 100 {
		require.ErrorIs(t, sc.JoinRoom(fmt.Sprint("another ", i)), ws.ErrTooManyRooms)
	}
	sc.LeaveRoom("r")
	assert.Equal(t, "r", receive(t, ended, "no event").Data)
}

// No room is created after Shutdown.
func TestCreateRoomAfterShutdown(t *testing.T) {
	s := start(t)
	s.shutdown()
	_, err := s.CreateRoom("r", nil)
	require.ErrorIs(t, err, ws.ErrManagerStopped)
	assert.Zero(t, s.GetRoomCount())
}
