package ws_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/presence"
)

// quickCluster has short times.
var quickCluster = ws.WithCluster(ws.ClusterConfig{
	Heartbeat: 200 * time.Millisecond, UnsubscribeDelay: 10 * time.Millisecond,
})

// steadyCluster is quickCluster for tests in which no node dies: a pause of the machine is no death.
var steadyCluster = ws.WithCluster(ws.ClusterConfig{
	Heartbeat: 2 * time.Second, UnsubscribeDelay: 10 * time.Millisecond,
})

// startPresentNodes returns nodes whose clients may join any room, which has the presence.
func startPresentNodes(t *testing.T, count int, p ws.Presence, cluster ws.Option) []clusterNode {
	t.Helper()
	nodes := startNodes(t, count, cluster)
	for _, n := range nodes {
		handlePresence(t, n.Server, p)
	}
	return nodes
}

// id returns the ID of the node.
func (n clusterNode) id() string {
	nodes := n.Nodes()
	return nodes[slices.IndexFunc(nodes, func(node ws.Node) bool { return node.Self })].ID
}

// awaitPresent waits until the node knows these users of room "r", and no others.
func (n clusterNode) awaitPresent(names string) {
	n.T.Helper()
	var at ws.RoomPresence
	harness.Eventually(n.T, func() bool {
		at, _ = n.RoomPresence("r")
		var got []string
		for _, u := range at.Members {
			got = append(got, u.User+u.Client)
		}
		return strings.Join(got, " ") == names
	}, "want %q", names)
}

// TestPresenceOfNodes holds that the members on all nodes see each user once, with devices on several
// nodes.
func TestPresenceOfNodes(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		nodes := startPresentNodes(t, 3, fast, steadyCluster)
		var clients []*watcher
		for i, n := range nodes {
			clients = append(clients, enter(n.Server, w, fmt.Sprint("user=", 1+i)))
		}
		both := enter(nodes[1].Server, w, "user=1")
		for _, c := range clients {
			c.sees("1 2 3")
		}
		harness.Eventually(t, func() bool {
			at, err := nodes[2].RoomPresence("r")
			return err == nil && at.Clients == 4 && at.Users == 3
		}, "other numbers")
		clients[0].ask("ws.leave")
		nodes[0].awaitPresent("")
		enter(nodes[0].Server, w, "user=4").sees("1 2 3 4")
		for _, c := range clients[1:] {
			c.sees("1 2 3 4")
			assert.NotContains(t, c.news, "-1", "a user with a device on another node has left")
		}
		both.ask("ws.leave")
		clients[2].sees("2 3 4")
		clients[1].sees("2 3 4")
	})
}

// TestPresenceMovesBetweenNodes holds that a user who comes back at another node has never left, as in
// a drain.
func TestPresenceMovesBetweenNodes(t *testing.T) {
	p := fast
	p.LeaveHold = time.Hour
	nodes := startPresentNodes(t, 3, p, steadyCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	var moving []*watcher
	for i := range 5 {
		moving = append(moving, enter(nodes[1].Server, harness.Native, fmt.Sprint("user=", 2+i)))
	}
	ann.sees("1 2 3 4 5 6")
	drained := make(chan error, 1)
	go func() {
		drained <- nodes[1].Drain(context.Background(), ws.DrainConfig{Grace: -1, Window: -1, Settle: -1})
	}()
	for _, c := range moving {
		c.ExpectClose(1012)
		c.Finish(1012)
	}
	require.NoError(t, harness.Receive(t, drained, "Drain did not end"))
	for i := range 5 {
		enter(nodes[2].Server, harness.Native, fmt.Sprint("user=", 2+i)).sees("1 2 3 4 5 6")
	}
	nodes[1].Stop()
	harness.Eventually(t, func() bool { return len(nodes[0].Nodes()) == 2 }, "the node stays")
	enter(nodes[2].Server, harness.Native, "user=7")
	ann.sees("1 2 3 4 5 6 7")
	assert.Len(t, ann.news, 6, "%v", ann.news)
}

// TestPresenceOfStoppedNode holds that the users of a node that was shut down leave after LeaveHold.
func TestPresenceOfStoppedNode(t *testing.T) {
	t.Parallel()
	p := fast
	p.LeaveHold = 300 * time.Millisecond
	nodes := startPresentNodes(t, 2, p, steadyCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
	stopped := time.Now()
	go nodes[1].Stop()
	ann.sees("1")
	assert.GreaterOrEqual(t, time.Since(stopped), p.LeaveHold)
}

// TestPresenceOfDeadNode holds that the users of a node that has died leave, that its late messages
// change nothing, and that its users are back when it is.
func TestPresenceOfDeadNode(t *testing.T) {
	p := fast
	p.LeaveHold = time.Hour
	nodes := startPresentNodes(t, 3, p, quickCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
	id := nodes[1].id()
	nodes[1].link.Die()
	ann.sees("1")
	delta := presence.Delta{Version: 1 << 60, Joins: []string{"u3"}}
	late := cluster.Message{Kind: cluster.Presence, Origin: []byte(id), Payload: delta.Append(nil)}
	unwanted := nodes[0].Stats().Cluster.Unwanted
	nodes[0].hub.Publish(ws.Topic{Kind: ws.TopicRoom, Name: "r"}, late.Append(nil))
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.Unwanted > unwanted }, "the message was taken")
	enter(nodes[2].Server, harness.Native, "user=4")
	ann.sees("1 4")
	enter(nodes[1].Server, harness.Native, "user=5")
	nodes[1].link.Cut()
	nodes[1].link.Mend()
	ann.sees("1 2 4 5")
}

// TestPresenceOfReplacedNode holds that a node which starts under the name of a dead one is
// another one.
func TestPresenceOfReplacedNode(t *testing.T) {
	p := fast
	p.LeaveHold = time.Hour
	nodes := startPresentNodes(t, 2, p, quickCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
	nodes[1].link.Die()
	again := startNode(t, nodes[0].hub, quickCluster)
	handlePresence(t, again.Server, p)
	bob := enter(again.Server, harness.Native, "user=3")
	ann.sees("1 3")
	bob.sees("1 3")
}

// TestPresenceWithoutLink holds that the users of other nodes stay while the own link is down, and that
// all changes of that time follow.
func TestPresenceWithoutLink(t *testing.T) {
	nodes := startPresentNodes(t, 2, fast, quickCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	bob := enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
	bob.sees("1 2")
	nodes[0].link.Cut()
	harness.Eventually(t, func() bool { return !nodes[0].Stats().Cluster.Up }, "the link stays up")
	harness.Eventually(t, func() bool { return len(nodes[0].Nodes()) == 1 }, "the other node stays")
	enter(nodes[0].Server, harness.Native, "user=3")
	ann.sees("1 2 3")
	bob.ask("ws.leave")
	nodes[1].awaitPresent("")
	bob = enter(nodes[1].Server, harness.Native, "user=4")
	bob.sees("4")
	nodes[0].link.Mend()
	ann.sees("1 3 4")
	bob.sees("1 3 4")
}

// TestPresenceLost holds that lost messages are made good.
func TestPresenceLost(t *testing.T) {
	t.Parallel()
	nodes := startPresentNodes(t, 2, fast, steadyCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	bob := enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
	for i := range 5 {
		nodes[0].link.Lose(1)
		enter(nodes[1].Server, harness.Native, fmt.Sprint("user=", 3+i))
		nodes[1].awaitPresent("1 2 3 4 5 6 7"[:5+2*i])
		nodes[0].awaitPresent("1 2 3 4 5 6 7"[:5+2*i])
	}
	bob.ask("ws.leave")
	nodes[0].awaitPresent("1 3 4 5 6 7")
}

// TestPresenceLostInSilence holds that users whose join was lost are seen when the sum of its node shows the
// loss, also without a later message.
func TestPresenceLostInSilence(t *testing.T) {
	nodes := startPresentNodes(t, 2, fast, quickCluster)
	far := enter(nodes[1].Server, harness.Native, "user=1")
	near := enter(nodes[0].Server, harness.Native, "user=2")
	far.sees("1 2")
	near.sees("1 2")
	var lost atomic.Int32
	nodes[1].link.Drop(func(topic ws.Topic) bool {
		if topic.Kind == ws.TopicRoom {
			lost.Add(1)
			return true
		}
		return false
	})
	enter(nodes[0].Server, harness.Native, "user=3")
	harness.Eventually(t, func() bool { return lost.Load() > 0 }, "nothing was sent")
	nodes[1].link.Drop(nil)
	far.sees("1 2 3")
}

// TestPresenceRefusesMalformed holds that malformed messages are counted, and change nothing.
func TestPresenceRefusesMalformed(t *testing.T) {
	t.Parallel()
	nodes := startPresentNodes(t, 2, fast, steadyCluster)
	ann := enter(nodes[0].Server, harness.Native, "user=1")
	harness.Eventually(t, func() bool { return len(nodes[0].Nodes()) == 2 }, "the nodes do not know each other")
	nodes[0].awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: "r"}, true)
	for _, kind := range []cluster.Kind{cluster.Presence, cluster.PresencePage} {
		msg := cluster.Message{Kind: kind, Origin: []byte(nodes[1].id()), Payload: []byte{1}}
		nodes[0].hub.Publish(ws.Topic{Kind: ws.TopicRoom, Name: "r"}, msg.Append(nil))
	}
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.Malformed == 2 }, "not counted")
	enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
}

// TestPresenceOfNodesRandom lets clients come and go on nodes whose links break. At rest all nodes know
// the same users, and their members, too.
func TestPresenceOfNodesRandom(t *testing.T) {
	p := fast
	p.LeaveHold = 50 * time.Millisecond
	nodes := startPresentNodes(t, 3, p, steadyCluster)
	var watchers []*watcher
	for i, n := range nodes {
		watchers = append(watchers, enter(n.Server, harness.Native, fmt.Sprint("user=", 1+i)))
	}
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for range harness.FewerUnderRace(100) {
				c, err := n.TryDial(harness.Native, fmt.Sprint("user=", 4+rng.IntN(6)))
				if err != nil {
					t.Error(err)
					return
				}
				c.Send(harness.Request("ws.join", "j", `{"room":"r"}`))
				switch rng.IntN(8) {
				case 0:
					n.link.Cut()
					n.link.Mend()
				case 1:
					n.link.Lose(1)
				}
				c.Next()
				c.Abort()
			}
		})
	}
	go func() {
		group.Wait()
		for _, n := range nodes {
			n.link.Lose(0)
			harness.Holds(func() bool { return n.BroadcastToRoom("r", []byte("end"), nil) == nil })
		}
	}()
	for _, w := range watchers {
		w.until(func() bool { return slices.Contains(w.other, "end") })
	}
	for i, n := range nodes {
		n.awaitPresent("1 2 3")
		watchers[i].users = nil
		watchers[i].ask("ws.presence")
		watchers[i].sees("1 2 3")
	}
}
