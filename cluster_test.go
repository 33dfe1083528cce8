package ws_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// clusterNode is a running node of a cluster with its link.
type clusterNode struct {
	*harness.Server
	link *wstest.Link
}

// startNodes returns running nodes on one hub.
func startNodes(t *testing.T, count int, opts ...ws.Option) []clusterNode {
	t.Helper()
	hub := wstest.NewHub()
	var nodes []clusterNode
	for range count {
		link := hub.Link()
		opts := append([]ws.Option{ws.WithAuthenticate(harness.ByQuery), ws.WithBroker(link)}, opts...)
		nodes = append(nodes, clusterNode{harness.Start(t, opts...), link})
	}
	for _, n := range nodes {
		n.awaitLink()
	}
	return nodes
}

// awaitLink waits until the link of the node is up.
func (n clusterNode) awaitLink() {
	n.T.Helper()
	harness.Eventually(n.T, func() bool { return n.BroadcastToRoom("nobody", nil, nil) == nil }, "the link is down")
}

// join connects a member of the room, and waits for the subscription.
func (n clusterNode) join(room string, query ...string) *harness.Client {
	n.T.Helper()
	c, sc := n.DialClient(harness.Native, query...)
	require.NoError(n.T, sc.JoinRoom(room))
	n.awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: room}, true)
	return c
}

// awaitTopic waits until the node subscribes to the topic, or does not any more.
func (n clusterNode) awaitTopic(topic ws.Topic, subscribed bool) {
	n.T.Helper()
	harness.Eventually(n.T, func() bool {
		return slices.Contains(n.link.Topics(), topic) == subscribed
	}, "subscribed to %v: want %v", topic, subscribed)
}

// TestClusterPublishes holds that each way to publish reaches the clients of all nodes, with the same
// call, whether the own node has clients for it or not.
func TestClusterPublishes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	near := nodes[0].join("r", "user=7", "id=near")
	far := nodes[1].join("r", "user=7", "id=far")
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicUser, Name: "7"}, true)
	nodes[0].awaitTopic(ws.Topic{Kind: ws.TopicUser, Name: "7"}, true)
	for _, n := range []clusterNode{nodes[0], nodes[2]} { // one with members, and one without
		require.NoError(t, n.BroadcastToRoom("r", []byte("room"), nil))
		_, err := n.Publish("r", []byte("published"))
		require.NoError(t, err)
		require.NoError(t, n.BroadcastPrepared("r", ws.Prepare(ws.OpText, []byte("prepared")), nil))
		require.NoError(t, n.BroadcastToUser(7, []byte("user")))
		n.BroadcastAll([]byte("all"))
		_, err = n.PublishEvent(context.Background(), "r", "e", 1)
		require.NoError(t, err)
	}
	want := map[string]int{"room": 2, "published": 2, "prepared": 2, "user": 2, "all": 2, "e": 2}
	for _, c := range []*harness.Client{near, far} {
		got := map[string]int{}
		for range 12 { // the nodes have no order between them
			f := c.Next()
			var e harness.Envelope
			if json.Unmarshal(f.Payload, &e) == nil {
				assert.JSONEq(t, "1", string(e.Data))
				got[e.Event]++
				continue
			}
			got[string(f.Payload)]++
		}
		assert.Equal(t, want, got)
	}
}
