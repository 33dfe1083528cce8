package redisbroker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// manager is a Manager on a Broker.
type manager struct {
	*harness.Server
	redis *server
}

// managers starts Managers, and waits for the links.
func managers(t *testing.T, s *server, count int) []*manager {
	t.Helper()
	var all []*manager
	for range count {
		cfg := s.config()
		cfg.ReconnectWait = 10 * time.Millisecond
		b := newBroker(t, cfg)
		opts := []ws.Option{ws.WithAuthenticate(harness.ByQuery), ws.WithMaxRoomsPerClient(0), ws.WithBroker(b)}
		all = append(all, &manager{harness.Start(t, opts...), s})
	}
	for _, m := range all {
		m.awaitLink()
	}
	return all
}

// awaitLink waits until publishes are accepted.
func (m *manager) awaitLink() {
	m.T.Helper()
	harness.Eventually(m.T, func() bool { return m.BroadcastToRoom("nobody", nil, nil) == nil }, "the link is down")
}

// join connects a member of rooms.
func (m *manager) join(query string, rooms ...string) (*harness.Client, *ws.Client) {
	m.T.Helper()
	c, sc := m.DialClient(harness.Native, strings.Fields(query)...)
	for _, room := range rooms {
		require.NoError(m.T, sc.JoinRoom(room))
	}
	return c, sc
}

// await waits until the server has count subscriptions of a channel.
func (m *manager) await(channel string, count int) {
	m.T.Helper()
	const script = "return tostring(redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2])"
	harness.Eventually(m.T, func() bool {
		return m.redis.do("EVAL", script, "0", channel) == strconv.Itoa(count)
	}, "not subscribed to %s", channel)
}

func TestManagers(t *testing.T) {
	m := managers(t, newServer(t), 3)
	a, sa := m[0].join("user=7 id=a", "r")
	b, _ := m[1].join("user=7 id=b", "r")
	m[0].await("ws.r.r", 2)
	m[0].await("ws.u.7", 2)

	const count = 1000
	var want []string
	for i := range count {
		want = append(want, fmt.Sprint("message ", i))
		require.NoError(t, m[0].BroadcastToRoom("r", []byte(want[i]), sa))
	}
	b.Expect(want...)
	require.NoError(t, m[2].BroadcastToRoom("r", []byte("to both"), nil))
	a.Expect("to both")
	b.Expect("to both")
	require.NoError(t, m[2].BroadcastToRoom("r", []byte("without a"), sa))
	b.Expect("without a")
	require.NoError(t, m[2].BroadcastToUser(7, []byte("to the user")))
	a.Expect("to the user")
	b.Expect("to the user")
	m[1].BroadcastAll([]byte("to all"))
	a.Expect("to all")
	b.Expect("to all")

	m[2].DeleteRoom("r")
	for _, m := range m {
		harness.Eventually(t, func() bool { return m.GetRoomCount() == 0 }, "the room stays")
	}
	require.NoError(t, m[2].DisconnectUser("7", 4403, "signed out"))
	require.Equal(t, "signed out", a.ExpectClose(4403))
	require.Equal(t, "signed out", b.ExpectClose(4403))
}

// TestManagersAfterARestart holds that the members of each room read a gap before its next message.
func TestManagersAfterARestart(t *testing.T) {
	s := newServer(t)
	m := managers(t, s, 2)
	const count, perClient = 5000, 50 // so few that no client reads too slowly for its gaps
	var rooms []string
	for i := range count {
		rooms = append(rooms, fmt.Sprint("room ", i))
	}
	var clients []*harness.Client
	for part := range slices.Chunk(rooms, perClient) {
		c, _ := m[0].join(fmt.Sprint("id=", len(clients)), part...)
		clients = append(clients, c)
	}
	s.kill()
	for _, m := range m {
		harness.Eventually(t, func() bool {
			return errors.Is(m.BroadcastToRoom("nobody", nil, nil), ws.ErrBrokerUnavailable)
		}, "the publisher does not learn of the end of the server")
	}
	require.True(t, s.start())
	for _, m := range m {
		m.awaitLink()
	}
	gaps := make(map[string]bool)
	for i, room := range rooms {
		require.NoError(t, m[1].BroadcastToRoom(room, []byte(room), nil))
		for text := ""; text != room; {
			text = string(clients[i/perClient].Next().Payload)
			var gap struct{ Event, Room string }
			if json.Unmarshal([]byte(text), &gap) == nil { // the name of a room is no JSON
				require.Equal(t, "ws.gap", gap.Event)
				gaps[gap.Room] = true
			}
		}
		require.True(t, gaps[room], "no gap before the message of %s", room)
	}
}
