package ws_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestRoomLimits(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMaxRoomsPerClient(2), ws.WithMaxRoomName(8))
		_, c := s.DialClient(w)
		require.NoError(t, c.JoinRoom("one"))
		require.NoError(t, c.JoinRoom("12345678"))
		require.ErrorIs(t, c.JoinRoom("three"), ws.ErrTooManyRooms)
		require.ErrorIs(t, c.JoinRoom("one"), ws.ErrAlreadyInRoom)
		require.ErrorIs(t, c.JoinRoom("123456789"), ws.ErrInvalidRoom)
		_, err := s.CreateRoom("123456789", nil)
		require.ErrorIs(t, err, ws.ErrInvalidRoom)
		require.ErrorIs(t, s.BroadcastToRoom("123456789", nil, nil), ws.ErrRoomNotFound)
		assert.Equal(t, 2, s.GetRoomCount(), "a refused join leaves no room")
		c.LeaveRoom("one")
		require.NoError(t, c.JoinRoom("three"))
		assert.Equal(t, []string{"12345678", "three"}, c.GetRooms())
	})
}

func TestRoomLimitsByDefault(t *testing.T) {
	s := harness.Start(t)
	_, c := s.DialClient(harness.Native)
	require.NoError(t, c.JoinRoom(strings.Repeat("n", 256)))
	require.ErrorIs(t, c.JoinRoom(strings.Repeat("n", 257)), ws.ErrInvalidRoom)
	for i := range 1023 {
		require.NoError(t, c.JoinRoom(fmt.Sprint(i)))
	}
	require.ErrorIs(t, c.JoinRoom("one more"), ws.ErrTooManyRooms)
}

// A room that a join has made ends with its last member, whichever way that goes;
// one of CreateRoom stays.
func TestJoinedRoomsEndWithTheirLastMember(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, func(c *ws.Config) { c.Room.MaxRoomSize = 2 })
		_, err := s.CreateRoom("kept", nil)
		require.NoError(t, err)
		a, ann := s.DialClient(w)
		_, bob := s.DialClient(w)
		for _, room := range []string{"kept", "made", "also made"} {
			require.NoError(t, ann.JoinRoom(room))
			require.NoError(t, bob.JoinRoom(room))
		}
		ann.LeaveRoom("made")
		assert.Equal(t, 3, s.GetRoomCount())
		bob.LeaveRoom("made")
		_, ok := s.GetRoom("made")
		assert.False(t, ok)
		assert.Equal(t, 2, s.GetRoomCount())
		bob.LeaveRoom("also made")
		a.Abort()
		harness.Eventually(t, func() bool { return s.GetRoomCount() == 1 }, "the room of a client that has gone stays")
		bob.LeaveRoom("kept")
		_, ok = s.GetRoom("kept")
		assert.True(t, ok)
	})
}

// Clients that join and leave one room at once: each join succeeds, and in the end
// there is no room.
func TestJoinedRoomsEndWhileOthersJoin(t *testing.T) {
	s := harness.Start(t)
	var working sync.WaitGroup
	for range 6 {
		_, c := s.DialClient(harness.Native)
		working.Go(func() {
			for range 2000 {
				if !assert.NoError(t, c.JoinRoom("r")) || !assert.NoError(t, s.BroadcastToRoom("r", []byte("m"), c)) {
					return
				}
				c.LeaveRoom("r")
			}
		})
	}
	working.Wait()
	assert.Zero(t, s.GetRoomCount())
}

// All that publishes, or makes a room, says so once Shutdown has begun.
func TestErrManagerStopped(t *testing.T) {
	s := harness.Start(t)
	_, err := s.CreateRoom("r", nil)
	require.NoError(t, err)
	s.Stop()
	b := []byte("m")
	for name, call := range map[string]func() error{
		"BroadcastToRoom":         func() error { return s.BroadcastToRoom("r", b, nil) },
		"BroadcastToRoom, absent": func() error { return s.BroadcastToRoom("absent", b, nil) },
		"BroadcastPrepared":       func() error { return s.BroadcastPrepared("r", ws.Prepare(ws.OpText, b), nil) },
		"BroadcastToUser":         func() error { return s.BroadcastToUser(1, b) },
		"Publish":                 func() error { _, err := s.Publish("r", b); return err },
		"PublishContext":          func() error { _, err := s.PublishContext(context.Background(), "r", b); return err },
		"PublishToUser":           func() error { _, err := s.PublishToUser("1", b); return err },
	} {
		assert.ErrorIs(t, call(), ws.ErrManagerStopped, name)
	}
}

// A client whose closing has begun is in no room, though its connection stays for
// CloseTimeout: its place in a room of limited size is free, and nothing that is
// published is queued for it.
func TestClosingClientsLeaveTheirRooms(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for name, closing := range map[string]func(*harness.Client, *ws.Client){
			"by the application": func(_ *harness.Client, sc *ws.Client) { sc.CloseWithCode(4000, "") },
			"for a violation":    func(c *harness.Client, _ *ws.Client) { c.WriteRaw("\xff\xff\xff\xff\xff\xff") },
		} {
			t.Run(name, func(t *testing.T) {
				s := harness.Start(t, func(c *ws.Config) { c.Room.MaxRoomSize, c.CloseTimeout = 1, time.Hour })
				left := s.Events(ws.EventRoomLeft, ws.EventClientDisconnected)
				c, sc := s.DialClient(w) // never answers the close frame
				require.NoError(t, sc.JoinRoom("r"))
				d, err := s.Publish("r", []byte("before"))
				require.NoError(t, err)
				c.Expect("before")
				began := time.Now()
				closing(c, sc)
				harness.Eventually(t, func() bool { return len(s.GetRoomMembers("r")) == 0 }, "it stays in its room")
				assert.Empty(t, sc.GetRooms())
				require.ErrorIs(t, sc.JoinRoom("r"), ws.ErrConnectionClosed)
				assert.EqualValues(t, 1, d.Queued())
				_, other := s.DialClient(w)
				require.NoError(t, other.JoinRoom("r"), "its place is not free")
				e := harness.Receive(t, left, "no event")
				assert.Equal(t, ws.EventRoomLeft, e.Type)
				open := s.GetClientCount()
				// After a violation the connection lingers for a second, less the time of a tick.
				if name == "by the application" || time.Since(began) < time.Second/2 {
					assert.Equal(t, 2, open, "its connection is open still")
				}
				c.Abort()
				e = harness.Receive(t, left, "no event")
				require.Equal(t, ws.EventClientDisconnected, e.Type)
				assert.Equal(t, []string{"r"}, e.Data.(*ws.CloseError).Rooms)
			})
		}
	})
}

// askingMetrics asks a client for its rooms whenever one of the room calls comes.
type askingMetrics struct {
	ws.NoopMetrics
	client atomic.Pointer[ws.Client]
}

func (m *askingMetrics) SetRoomCount(int) { m.ask() }

func (m *askingMetrics) SetRoomMemberCount(string, int) { m.ask() }

func (m *askingMetrics) ask() {
	if c := m.client.Load(); c != nil {
		c.GetRooms()
	}
}

// Metrics are called with no lock of the client held, also when the last member of a
// room leaves it.
func TestMetricsMayAskTheClientForItsRooms(t *testing.T) {
	m := new(askingMetrics)
	s := harness.Start(t, ws.WithMetrics(m))
	_, c := s.DialClient(harness.Native)
	m.client.Store(c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(t, c.JoinRoom("r"))
		c.LeaveRoom("r")
	}()
	harness.Receive(t, done, "a call hangs")
	assert.Zero(t, s.GetRoomCount())
}
