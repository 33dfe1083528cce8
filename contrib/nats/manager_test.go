package natsbroker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	"github.com/qi-realtime/ws/internal/harness"
)

// manager is a Manager on a Broker.
type manager struct {
	*harness.Server
	broker *natsbroker.Broker
}

// managers starts a Manager for each server, and waits for the links.
func managers(t *testing.T, urls ...string) []*manager {
	t.Helper()
	return managersWith(t, 0, urls...)
}

// managersWith is managers with a heartbeat.
func managersWith(t *testing.T, heartbeat time.Duration, urls ...string) []*manager {
	t.Helper()
	var all []*manager
	for _, u := range urls {
		b := newBroker(t, natsbroker.Config{Servers: []string{u}, ReconnectWait: 10 * time.Millisecond})
		opts := []ws.Option{
			ws.WithAuthenticate(harness.ByQuery), ws.WithMaxRoomsPerClient(0), ws.WithBroker(b),
			ws.WithCluster(ws.ClusterConfig{Heartbeat: heartbeat}),
		}
		all = append(all, &manager{harness.Start(t, opts...), b})
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

// join connects a member of rooms, and waits for the subscriptions.
func (m *manager) join(query string, rooms ...string) (*harness.Client, *ws.Client) {
	m.T.Helper()
	c, sc := m.DialClient(harness.Native, strings.Fields(query)...)
	for _, room := range rooms {
		require.NoError(m.T, sc.JoinRoom(room))
	}
	for _, room := range rooms {
		m.await(ws.TopicRoom, room)
	}
	return c, sc
}

// await waits until the server has the subscription of this manager.
func (m *manager) await(kind ws.TopicKind, name string) {
	m.T.Helper()
	harness.Eventually(m.T, func() bool {
		return natsbroker.Subscribed(m.broker, ws.Topic{Kind: kind, Name: name})
	}, "not subscribed to %s", name)
}

func TestManagers(t *testing.T) {
	s := newServer(t, natsserver.Options{})
	m := managers(t, s.ClientURL(), s.ClientURL(), s.ClientURL())
	a, sa := m[0].join("user=7 id=a", "r")
	b, _ := m[1].join("user=7 id=b", "r")
	m[0].await(ws.TopicUser, "7")
	m[1].await(ws.TopicUser, "7")

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
		harness.Eventually(t, func() bool { return len(m.Nodes()) == 3 }, "a node is not seen")
	}
	require.NoError(t, m[2].DisconnectUser("7", 4403, "signed out"))
	require.Equal(t, "signed out", a.ExpectClose(4403))
	require.Equal(t, "signed out", b.ExpectClose(4403))
}

// TestManagersAfterARestart holds that the members of each room read a gap before its next message.
func TestManagersAfterARestart(t *testing.T) {
	o := natsserver.Options{Port: freePort(t)}
	s := newServer(t, o)
	m := managers(t, s.ClientURL(), s.ClientURL())
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
	s.Shutdown()
	s.WaitForShutdown()
	for _, m := range m {
		harness.Eventually(t, func() bool {
			return errors.Is(m.BroadcastToRoom("nobody", nil, nil), ws.ErrBrokerUnavailable)
		}, "the publisher does not learn of the end of the server")
	}
	newServer(t, o)
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

// TestTooLargeForServer holds that the publisher of a message beyond max_payload learns of it.
func TestTooLargeForServer(t *testing.T) {
	s := newServer(t, natsserver.Options{MaxPayload: 1000})
	m := managers(t, s.ClientURL())[0]
	c, _ := m.join("", "r")
	require.ErrorIs(t, m.BroadcastToRoom("r", make([]byte, 1000), nil), ws.ErrMessageTooLarge)
	require.NoError(t, m.BroadcastToRoom("r", make([]byte, 900), nil))
	require.Len(t, c.Next().Payload, 900)
}
