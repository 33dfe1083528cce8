package ws_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

func ofRoom(name string) func(ws.Topic) bool {
	return func(topic ws.Topic) bool { return topic == ws.Topic{Kind: ws.TopicRoom, Name: name} }
}

// awaitCover waits until the node to finds losses in the room of c: some heartbeats of the other one, each
// with a sum.
func awaitCover(from, to clusterNode, c *harness.Client, room string) {
	from.T.Helper()
	for range 4 {
		require.NoError(from.T, from.BroadcastToRoom(room, []byte("cover"), nil))
		c.Expect("cover")
		before := to.Stats().Cluster.Received
		harness.Eventually(from.T, func() bool { return to.Stats().Cluster.Received >= before+3 }, "no heartbeats")
	}
}

// TestSilentLoss holds that a loss which no broker reports is a gap: ahead of the next message, and also
// if it was the last message.
func TestSilentLoss(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{Heartbeat: 200 * time.Millisecond}))
	far := nodes[1].join("r", "user=7")
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicUser, Name: "7"}, true)
	awaitCover(nodes[0], nodes[1], far, "r")
	for range 2 {
		nodes[1].link.Drop(ofRoom("r"))
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("lost"), nil))
		harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.QueuedBytes == 0 }, "not sent")
		nodes[1].link.Drop(nil)
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("found"), nil))
		var got []string
		for range 2 { // the gap is behind a message if a round has ended between the two
			text := string(far.Next().Payload)
			if strings.Contains(text, "ws.gap") {
				text = "gap"
			}
			got = append(got, text)
		}
		require.ElementsMatch(t, []string{"gap", "found"}, got)
		nodes[1].link.Drop(ofRoom("r"))
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("lost"), nil))
		expectGap(far, "r")
	}
	nodes[1].link.Drop(func(topic ws.Topic) bool { return topic.Kind == ws.TopicUser })
	require.NoError(t, nodes[0].BroadcastToUser(7, []byte("lost")))
	expectGap(far, "")
	nodes[1].link.Drop(func(topic ws.Topic) bool { return topic.Kind == ws.TopicAll })
	nodes[0].BroadcastAll([]byte("lost"))
	expectGap(far, "")
	nodes[1].link.Drop(nil)
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("found"), nil))
	far.Expect("found")
	harness.Eventually(t, func() bool { return nodes[1].Stats().Cluster.Holes == 6 }, "not counted")
}

// TestLossBeforeTheSubscription holds that clients learn of the messages of other nodes that were published after
// JoinRoom has returned, or the user has connected, and before the node was subscribed; and of no earlier
// ones.
func TestLossBeforeTheSubscription(t *testing.T) {
	t.Parallel()
	hub, beats := wstest.NewHub(), ws.WithCluster(ws.ClusterConfig{Heartbeat: 200 * time.Millisecond})
	other := startNode(t, hub, beats)
	other.awaitLink()
	publish := func(room, text string) {
		t.Helper()
		require.NoError(t, other.BroadcastToRoom(room, []byte(text), nil))
		harness.Eventually(t, func() bool { return other.Stats().Cluster.QueuedBytes == 0 }, "not sent")
	}
	n, link := slowNode(t, hub, beats)
	harness.Eventually(t, func() bool { return len(n.Nodes()) == 2 && len(other.Nodes()) == 2 }, "not met")
	gaps := n.Stats().Cluster.Gaps
	publishBefore := func(room string) { // and the sum with the message comes before the join
		before := n.Stats().Cluster.Received
		publish(room, "before")
		harness.Eventually(t, func() bool { return n.Stats().Cluster.Received >= before+3 }, "no heartbeats")
	}
	publishBefore("r")
	far, sc := n.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	harness.Receive(t, link.asked, "no subscription")
	publish("r", "lost")
	link.held <- struct{}{}
	n.awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: "r"}, true)
	expectGap(far, "r")
	awaitCover(other, n, far, "r")

	user, _ := n.DialClient(harness.Native, "user=7")
	harness.Receive(t, link.asked, "no subscription")
	require.NoError(t, other.BroadcastToUser(7, []byte("lost")))
	harness.Eventually(t, func() bool { return other.Stats().Cluster.QueuedBytes == 0 }, "not sent")
	link.held <- struct{}{}
	expectGap(user, "")

	publishBefore("s")
	quiet, sc := n.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("s"))
	harness.Receive(t, link.asked, "no subscription")
	link.release()
	n.awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: "s"}, true)
	awaitCover(other, n, quiet, "s")
	st := n.Stats().Cluster
	assert.EqualValues(t, gaps+2, st.Gaps)
	assert.Zero(t, st.Holes, "it is no fault of the broker")
}

// TestBrokenRoute holds that all rooms have a gap when nothing has come from another node for a while.
func TestBrokenRoute(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{Heartbeat: 200 * time.Millisecond}))
	far, other := nodes[1].join("r"), nodes[1].join("other")
	awaitCover(nodes[0], nodes[1], far, "r")
	var beats atomic.Int32
	nodes[1].link.Drop(func(topic ws.Topic) bool {
		if topic.Kind == ws.TopicNode {
			beats.Add(1)
		}
		return true
	})
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("lost"), nil))
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.QueuedBytes == 0 }, "not sent")
	harness.Eventually(t, func() bool { // the sum with the message is dropped, too
		return len(nodes[1].Nodes()) == 1 && beats.Load() >= 12
	}, "the node is still known")
	nodes[1].link.Drop(nil)
	expectGap(far, "", "r")
	expectGap(other, "", "other")
}

// TestLateReconnect holds that a node which connects anew, long after another one has, is no loss.
func TestLateReconnect(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{Heartbeat: 200 * time.Millisecond}))
	far := nodes[1].join("r")
	awaitCover(nodes[0], nodes[1], far, "r")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("in a round"), nil))
	far.Expect("in a round")
	nodes[0].link.Cut()
	nodes[1].link.Cut()
	nodes[1].link.Mend()
	expectGap(far, "", "r")
	harness.Eventually(t, func() bool { return len(nodes[1].Nodes()) == 1 }, "the node is still known")
	nodes[0].link.Mend()
	harness.Eventually(t, func() bool {
		st := nodes[0].Stats().Cluster
		return st.Breaks == 2 && st.Up
	}, "no second connection")
	awaitCover(nodes[0], nodes[1], far, "r")
	st := nodes[1].Stats().Cluster
	assert.EqualValues(t, 2, st.Breaks)
	assert.Zero(t, st.Holes)
}

// TestNoSilentLoss holds that nodes find no losses where none are, while rooms come and go, numbers are
// summed up often, and a node starts again.
func TestNoSilentLoss(t *testing.T) {
	t.Parallel()
	cluster := ws.WithCluster(ws.ClusterConfig{UnsubscribeDelay: time.Millisecond, Heartbeat: 2 * time.Second})
	nodes := startNodes(t, 3, cluster)
	long := strings.Repeat("n", 250) // so that some 130 rooms fill a sum
	room := func(rng *rand.Rand) string { return long + strconv.Itoa(rng.IntN(300)) }
	ends := time.Now().Add(2 * time.Second)
	var group sync.WaitGroup
	for i, n := range nodes[:2] {
		_, sc := n.DialClient(harness.Native)
		group.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for time.Now().Before(ends) {
				_, _ = sc.JoinRoom(room(rng)), n.BroadcastToRoom(room(rng), []byte("x"), nil)
				sc.LeaveRoom(room(rng))
				if rng.IntN(10) == 0 {
					<-time.After(time.Millisecond)
				}
			}
		})
	}
	nodes[2].Stop()
	again := startNode(t, nodes[0].hub, cluster)
	again.awaitLink()
	group.Wait()
	var beats atomic.Int32
	nodes[1].link.Drop(func(topic ws.Topic) bool {
		if topic.Kind == ws.TopicNode {
			beats.Add(1)
		}
		return false
	})
	harness.Eventually(t, func() bool { return beats.Load() >= 10 }, "no heartbeats") // of three nodes
	for _, n := range append(nodes[:2:2], again) {
		st := n.Stats().Cluster
		assert.Zero(t, st.Holes)
		assert.Zero(t, st.Malformed)
		assert.EqualValues(t, 1, st.Breaks)
	}
	assert.NotZero(t, nodes[0].Stats().Cluster.Received)
}
