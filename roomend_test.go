package ws_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// roomRecorder is a recorder that also hears of the end of rooms.
type roomRecorder struct{ *harness.Recorder }

func (r roomRecorder) RoomEnded(id string) { r.Set("members "+id, -1) }

// Whatever ends a room, the optional second interface of Metrics hears of it last, and
// the bus publishes it.
func TestRoomEnds(t *testing.T) {
	r := roomRecorder{harness.NewRecorder()}
	s := harness.Start(t, ws.WithMetrics(r), func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = 5*time.Millisecond, 50*time.Millisecond
	})
	events := s.Events(ws.EventRoomEnded, ws.EventRoomLeft)
	ended := func(id string, types ...ws.EventType) {
		t.Helper()
		harness.Eventually(t, func() bool { return r.Get("members "+id) == -1 }, "%s has %d members", id, r.Get("members "+id))
		for _, want := range types {
			e := harness.Receive(t, events, "no %s", want)
			assert.Equal(t, want, e.Type)
			assert.Equal(t, id, e.Data)
			assert.Equal(t, want == ws.EventRoomEnded, e.Client == nil)
		}
	}
	c, sc := s.DialClient(harness.Native)
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
	assert.Equal(t, 1, r.Get("members empty"), "a room of the same ID")
	c.Abort()
	ended("empty", ws.EventRoomLeft, ws.EventRoomEnded)
}

// A panic in RoomEnded ends there.
func TestRoomEndedThatPanics(t *testing.T) {
	s := harness.Start(t, ws.WithMetrics(panickingRoomMetrics{}))
	_, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	sc.LeaveRoom("r")
	require.NoError(t, sc.JoinRoom("r"))
}

type panickingRoomMetrics struct{ ws.NoopMetrics }

func (panickingRoomMetrics) RoomEnded(string) { panic("metrics") }

// A join that is refused creates no room, not even for a moment.
func TestRefusedJoinCreatesNoRoom(t *testing.T) {
	s := harness.Start(t, ws.WithMaxRoomsPerClient(1))
	ended := s.Events(ws.EventRoomEnded)
	_, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	for i := range 100 {
		require.ErrorIs(t, sc.JoinRoom(fmt.Sprint("another ", i)), ws.ErrTooManyRooms)
	}
	sc.LeaveRoom("r")
	assert.Equal(t, "r", harness.Receive(t, ended, "no event").Data)
}

// No room is created after Shutdown.
func TestCreateRoomAfterShutdown(t *testing.T) {
	s := harness.Start(t)
	s.Stop()
	_, err := s.CreateRoom("r", nil)
	require.ErrorIs(t, err, ws.ErrManagerStopped)
	assert.Zero(t, s.GetRoomCount())
}
