package ws_test

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// storedNodes returns running nodes on one hub whose clients join rooms with a history, which each
// node has.
func storedNodes(t *testing.T, count int, h ws.History, opts ...ws.Option) []clusterNode {
	t.Helper()
	hub := wstest.NewHub()
	var nodes []clusterNode
	for range count {
		nodes = append(nodes, storedNode(t, hub, h, opts...))
	}
	for _, n := range nodes {
		n.awaitLink()
	}
	return nodes
}

func storedNode(t *testing.T, hub *wstest.Hub, h ws.History, opts ...ws.Option) clusterNode {
	n := startNode(t, hub, opts...)
	require.NoError(t, ws.HandleJoin(n.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		return []ws.RoomOption{ws.WithHistory(h)}, nil
	}))
	_, err := n.CreateRoom("r", nil, ws.WithHistory(h))
	require.NoError(t, err)
	return n
}

// member connects a client that has not joined yet.
func (n clusterNode) member(room string) *harness.Member {
	return dialMember(n.Server, harness.Native, room)
}

// say publishes a number to the room "r".
func (n clusterNode) say(number int) ws.Position {
	n.T.Helper()
	at, err := n.PublishEvent(context.Background(), "r", "n", number)
	require.NoError(n.T, err)
	return at
}

// take reads messages, which have to be these numbers. A gap without a room, after a break of the link,
// may come before them.
func take(m *harness.Member, numbers ...int) {
	m.T.Helper()
	for _, number := range numbers {
		payload := m.Next().Payload
		for isPlainGap(payload) {
			payload = m.Next().Payload
		}
		msg, err := m.Follow(payload)
		require.NoError(m.T, err, "%s", payload)
		require.Equal(m.T, "n", msg.Event, "%s", msg.Data)
		require.JSONEq(m.T, strconv.Itoa(number), string(msg.Data))
	}
}

// TestStoredHistory holds that members on all nodes get the messages of all nodes in one order, also from
// the store, with the same positions.
func TestStoredHistory(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		nodes := storedNodes(t, 3, ws.History{})
		if shared {
			nodes[0].hub.ShareOffsets()
		}
		early := nodes[1].member("r")
		assert.Zero(t, early.Join(""))
		for i := range 30 {
			_, err := nodes[2].PublishEvent(context.Background(), "r", "n", i)
			require.NoError(t, err)
			if i%3 == 0 {
				_, err = nodes[0].CreateRoom("other"+strconv.Itoa(i), nil, ws.WithHistory(ws.History{}))
				require.NoError(t, err)
				_, err = nodes[0].PublishEvent(context.Background(), "other"+strconv.Itoa(i), "n", i)
				require.NoError(t, err)
			}
			take(early, i)
		}
		late := nodes[0].member("r")
		assert.Equal(t, 10, late.Join(`"last":10`))
		late.Position.Offset = 0
		for i := 20; i < 30; i++ {
			var got harness.RoomMessage
			require.NoError(t, json.Unmarshal(late.Next().Payload, &got))
			assert.JSONEq(t, strconv.Itoa(i), string(got.Data))
			late.Position.Offset = got.Offset
		}
		assert.Equal(t, early.Position, late.Position)
		at := nodes[0].say(30)
		take(early, 30)
		take(late, 30)
		assert.Equal(t, at, early.Position)
		assert.Equal(t, at, late.Position)
	}
}

// TestStoredHistoryOfOneLoad holds that the joins of many clients read the store once.
func TestStoredHistoryOfOneLoad(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	for i := range 10 {
		nodes[0].say(i)
	}
	var members []*harness.Member
	for range 40 {
		members = append(members, nodes[1].member("r"))
	}
	release := nodes[1].link.HoldReads()
	for i, m := range members {
		m.Send(harness.Request("ws.join", strconv.Itoa(i), `{"room":"r","last":5}`))
	}
	harness.Eventually(t, func() bool { return nodes[1].Stats().Cluster.Loads == 1 }, "no load")
	release()
	for i, m := range members {
		m.ExpectReply(strconv.Itoa(i), 200, "success")
		for n := 5; n < 10; n++ {
			var got harness.RoomMessage
			require.NoError(t, json.Unmarshal(m.Next().Payload, &got))
			assert.JSONEq(t, strconv.Itoa(n), string(got.Data))
		}
	}
	assert.EqualValues(t, 1, nodes[1].Stats().Cluster.Loads)
	assert.Zero(t, nodes[0].Stats().Cluster.Loads)
}

// TestStoredHistoryCools holds that a room without members is read again for the next one.
func TestStoredHistoryCools(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{}, ws.WithCluster(ws.ClusterConfig{UnsubscribeDelay: 5 * time.Millisecond}))[0]
	topic := ws.Topic{Kind: ws.TopicHistory, Name: "r"}
	for round := range 5 {
		m := n.member("r")
		replayed := m.Join(`"since":{"epoch":"epoch1","offset":0}`)
		assert.Equal(t, round, replayed)
		m.Position = ws.Position{Epoch: "epoch1"}
		for i := range round {
			take(m, i)
		}
		n.awaitTopic(topic, true)
		n.say(round)
		take(m, round)
		require.NoError(t, m.Close())
		n.awaitTopic(topic, false)
		harness.Eventually(t, func() bool { return n.Stats().HistoryMemory == 0 }, "the log stays")
	}
	assert.EqualValues(t, 5, n.Stats().Cluster.Loads)
}
