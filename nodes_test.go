package ws_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestNodes holds that nodes know each other, and forget one that has died.
func TestNodes(t *testing.T) {
	t.Parallel()
	cluster := ws.WithCluster(ws.ClusterConfig{Name: "east", Heartbeat: 500 * time.Millisecond})
	nodes := startNodes(t, 3, cluster)
	nodes[0].join("r")
	var lists [3][]ws.Node
	for i, n := range nodes {
		harness.Eventually(t, func() bool {
			list := n.Nodes()
			lists[i] = list
			return len(list) == 3 && list[0].Clients == 1 && list[0].Rooms == 1
		}, "the nodes do not know each other")
	}
	list := lists[1]
	assert.False(t, list[0].Self)
	assert.True(t, list[1].Self)
	for i, node := range list {
		assert.Equal(t, "east", node.Name)
		assert.Equal(t, lists[0][i].ID, node.ID)
		assert.False(t, node.Draining)
	}
	harness.Eventually(t, func() bool { return nodes[1].Stats().Cluster.Nodes == 3 }, "a node is not counted")
	nodes[2].link.Die()
	for _, n := range nodes[:2] {
		harness.Eventually(t, func() bool { return len(n.Nodes()) == 2 }, "the dead node stays")
	}
	harness.Eventually(t, func() bool { return len(nodes[2].Nodes()) == 1 }, "a node that hears nobody knows others")
	nodes[2].link.Cut()
	nodes[2].link.Mend()
	harness.Eventually(t, func() bool { return len(nodes[0].Nodes()) == 3 }, "the node does not come back")
}

// TestGapOfDeadNode holds that the last messages of a node that vanishes are a gap, because they are possibly lost
// with it, and that a node which stops is none.
func TestGapOfDeadNode(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3, ws.WithCluster(ws.ClusterConfig{Heartbeat: 200 * time.Millisecond}))
	far := nodes[0].join("r")
	nodes[1].Stop()
	harness.Eventually(t, func() bool { return len(nodes[0].Nodes()) == 2 }, "the node is still known")
	var beats atomic.Int32
	nodes[0].link.Drop(func(topic ws.Topic) bool {
		if topic.Kind == ws.TopicNode {
			beats.Add(1)
		}
		return false
	})
	harness.Eventually(t, func() bool { return beats.Load() >= 20 }, "no heartbeats")
	assert.EqualValues(t, 1, nodes[0].Stats().Cluster.Breaks)
	nodes[2].link.Die()
	expectGap(far, "", "r")
	assert.EqualValues(t, 2, nodes[0].Stats().Cluster.Breaks)
}

// TestLateMessages holds that messages which have waited for the link until the others have given the node up are a
// gap.
func TestLateMessages(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{Heartbeat: 200 * time.Millisecond}))
	far := nodes[1].join("r")
	nodes[0].link.Stall()
	for _, text := range []string{"under way", "late", "late"} {
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte(text), nil))
	}
	sent := time.Now()
	expectGap(far, "", "r")
	<-time.After(time.Until(sent.Add(3100 * time.Millisecond))) // 15 heartbeats, and a little
	nodes[0].link.Release()
	far.Expect("under way")
	expectGap(far, "r")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("after"), nil))
	far.Expect("after")
	assert.EqualValues(t, 2, nodes[0].Stats().Cluster.Unsent)
}

// TestNodesWithoutBroker holds that a manager without a broker has no nodes.
func TestNodesWithoutBroker(t *testing.T) {
	t.Parallel()
	m, err := ws.NewManager()
	require.NoError(t, err)
	assert.Nil(t, m.Nodes())
	assert.Zero(t, m.Stats().Cluster)
}
