package redisbroker_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
	"github.com/qi-realtime/ws/internal/harness"
)

// historyManagers starts Managers that have the room "r" with a history, and waits for the links.
func historyManagers(t *testing.T, s *server, count int) []*manager {
	t.Helper()
	var all []*manager
	for range count {
		cfg := s.config()
		cfg.ReconnectWait = 10 * time.Millisecond
		b, err := redisbroker.NewHistoryBroker(withDefaults(cfg))
		require.NoError(t, err)
		m := &manager{harness.Start(t, ws.WithAuthenticate(harness.ByQuery), ws.WithBroker(b)), s}
		require.NoError(t, ws.HandleJoin(m.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
			return []ws.RoomOption{ws.WithHistory(keep)}, nil
		}))
		_, err = m.CreateRoom("r", nil, ws.WithHistory(keep))
		require.NoError(t, err)
		all = append(all, m)
	}
	for _, m := range all {
		m.awaitLink()
	}
	return all
}

// member connects a client that joins the room from a position, or for live messages.
func (m *manager) member(from ws.Position) *harness.Member {
	m.T.Helper()
	member := &harness.Member{Client: m.Dial(harness.Native), Room: "r", Position: from}
	if from.Epoch == "" {
		member.Join("")
	} else {
		member.Rejoin()
	}
	return member
}

// follow reads the messages of the room up to the position. A gap
// without a room, after a break of the link, is not of the room.
func follow(m *harness.Member, to ws.Position) {
	m.T.Helper()
	for m.Position != to {
		payload := m.Next().Payload
		var gap harness.RoomMessage
		require.NoError(m.T, json.Unmarshal(payload, &gap))
		if gap.Room == "" && gap.Event == "ws.gap" {
			continue
		}
		_, err := m.Follow(payload)
		require.NoError(m.T, err, "%s", payload)
	}
}

// TestManagersWithHistories holds one order on all nodes, and that a client that comes back to another
// node reads exactly the rest.
func TestManagersWithHistories(t *testing.T) {
	nodes := historyManagers(t, newServer(t), 3)
	var members []*harness.Member
	for _, m := range nodes {
		members = append(members, m.member(ws.Position{}))
	}
	const publishers, each = 8, 50
	var running sync.WaitGroup
	for p := range publishers {
		running.Go(func() {
			for i := range each {
				_, err := nodes[p%3].PublishEvent(t.Context(), "r", "n", i)
				assert.NoError(t, err)
			}
		})
	}
	running.Wait()
	last := ws.Position{Epoch: members[0].Position.Epoch, Offset: publishers * each}
	for _, m := range members {
		follow(m, last)
		require.Len(t, m.Got, publishers*each)
		require.Empty(t, m.Gaps)
	}
	again := nodes[2].member(ws.Position{Epoch: last.Epoch, Offset: 123})
	follow(again, last)
	require.Len(t, again.Got, publishers*each-123)
	require.Empty(t, again.Gaps)
}

// TestManagersAfterAFailover promotes a replica that lacks the last messages. Each member, and a client that
// comes back, reads a gap for the new epoch before any other message.
func TestManagersAfterAFailover(t *testing.T) {
	primary := newServer(t, "--repl-diskless-sync-delay", "0")
	port := strconv.Itoa(primary.port)
	replica := newServer(t, "--replicaof", "127.0.0.1", port)
	eventually(t, func() bool {
		return strings.Contains(replica.do("INFO", "replication"), "master_link_status:up")
	}, "no replication")
	nodes := historyManagers(t, primary, 2)
	members := []*harness.Member{nodes[0].member(ws.Position{}), nodes[1].member(ws.Position{})}
	publish := func() ws.Position {
		at, err := nodes[0].PublishEvent(t.Context(), "r", "n", 1)
		require.NoError(t, err)
		return at
	}
	publish()
	require.Equal(t, "1", primary.do("WAIT", "1", "60000"))
	replica.do("REPLICAOF", "127.0.0.1", "1") // where nobody is
	publish()
	old := publish()
	for _, m := range members {
		follow(m, old)
	}
	primary.kill()
	for _, m := range nodes {
		eventually(t, func() bool { return !m.Stats().Cluster.Up }, "the end of the primary goes unseen")
	}
	replica.do("REPLICAOF", "NO", "ONE")
	replica.do("CONFIG", "SET", "port", port)
	for _, m := range nodes {
		m.awaitLink()
	}
	head := publish()
	require.EqualValues(t, 2, head.Offset)
	require.NotEqual(t, old.Epoch, head.Epoch)
	for _, m := range append(members, nodes[1].member(old)) {
		follow(m, head)
		require.Len(t, m.Gaps, 1)
		require.Equal(t, ws.GapEpoch, m.Gaps[0].Reason)
		require.Equal(t, head.Epoch, m.Gaps[0].Epoch)
	}
}
