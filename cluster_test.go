package ws_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// clusterNode is a running node of a cluster with its link.
type clusterNode struct {
	*harness.Server
	hub  *wstest.Hub
	link *wstest.Link
}

// startNodes returns running nodes on one hub.
func startNodes(t *testing.T, count int, opts ...ws.Option) []clusterNode {
	t.Helper()
	hub := wstest.NewHub()
	var nodes []clusterNode
	for range count {
		n := startNode(t, hub, opts...)
		n.awaitLink()
		n.awaitTopic(ws.Topic{Kind: ws.TopicNode, Name: "nodes"}, true)
		nodes = append(nodes, n)
	}
	for _, n := range nodes { // before that, a loss may be found that the broker reports, too
		harness.Eventually(t, func() bool { return len(n.Nodes()) >= count }, "not met")
	}
	return nodes
}

func startNode(t *testing.T, hub *wstest.Hub, opts ...ws.Option) clusterNode {
	link := hub.Link()
	opts = append([]ws.Option{ws.WithAuthenticate(harness.ByQuery), ws.WithBroker(link)}, opts...)
	return clusterNode{harness.Start(t, opts...), hub, link}
}

// awaitLink waits until the link of the node is up.
func (n clusterNode) awaitLink() {
	n.T.Helper()
	harness.Eventually(n.T, func() bool { return n.Stats().Cluster.Up }, "the link is down")
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

// TestClusterInterest holds that at rest a node subscribes to the rooms with members and the users
// with devices, whatever joins and leaves came before.
func TestClusterInterest(t *testing.T) {
	t.Parallel()
	n := startNodes(t, 1, ws.WithCluster(ws.ClusterConfig{UnsubscribeDelay: 10 * time.Millisecond}))[0]
	n.awaitTopic(ws.Topic{Kind: ws.TopicNode, Name: "nodes"}, true)
	base := len(n.link.Topics())
	var clients []*ws.Client
	var conns []*harness.Client
	for i := range 8 {
		c, sc := n.DialClient(harness.Native, "user="+strconv.Itoa(1+i%2))
		conns, clients = append(conns, c), append(clients, sc)
	}
	rooms := []string{"a", "b", "c", ""}
	var group sync.WaitGroup
	for i, c := range clients {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2000 {
				switch room := rooms[rng.IntN(len(rooms))]; rng.IntN(10) {
				case 0:
					n.DeleteRoom(room)
				case 1:
					_, _ = n.CreateRoom(room, nil)
				case 2, 3, 4, 5:
					_ = c.JoinRoom(room)
				default:
					c.LeaveRoom(room)
				}
			}
		})
	}
	group.Wait()
	want := func() (topics []ws.Topic) {
		n.RangeRooms(func(r *ws.Room) bool {
			if r.MemberCount() > 0 {
				topics = append(topics, ws.Topic{Kind: ws.TopicRoom, Name: r.ID()})
			}
			return true
		})
		for _, user := range []string{"1", "2"} {
			if len(n.UserClients(user)) > 0 {
				topics = append(topics, ws.Topic{Kind: ws.TopicUser, Name: user})
			}
		}
		return topics
	}
	atRest := func() bool {
		topics := want()
		got := n.link.Topics()
		for _, topic := range topics {
			if !slices.Contains(got, topic) {
				return false
			}
		}
		return len(got) == base+len(topics)
	}
	harness.Eventually(t, atRest, "subscribed to other topics than wanted")
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	harness.Eventually(t, func() bool { return len(n.link.Topics()) == base }, "subscriptions stay")
}

// TestClusterDebounce holds that a room which is empty for a moment stays subscribed.
func TestClusterDebounce(t *testing.T) {
	t.Parallel()
	n := startNodes(t, 1, ws.WithCluster(ws.ClusterConfig{UnsubscribeDelay: time.Hour}))[0]
	_, sc := n.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	topic := ws.Topic{Kind: ws.TopicRoom, Name: "r"}
	n.awaitTopic(topic, true)
	sc.LeaveRoom("r")
	require.NoError(t, sc.JoinRoom("other"))
	n.awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: "other"}, true)
	assert.Contains(t, n.link.Topics(), topic)
}

// TestClusterShutdown holds that all that was published before Shutdown reaches the other nodes.
func TestClusterShutdown(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	far := nodes[1].join("r")
	const messages = 2000
	for i := range messages {
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte(strconv.Itoa(i)), nil))
	}
	require.NoError(t, nodes[0].Drain(context.Background(), ws.DrainConfig{Grace: -1, Window: -1}))
	nodes[0].Stop()
	for i := range messages {
		far.Expect(strconv.Itoa(i))
	}
	require.ErrorIs(t, nodes[0].BroadcastToRoom("r", nil, nil), ws.ErrManagerStopped)
	harness.Eventually(t, func() bool { return len(nodes[1].Nodes()) == 1 }, "the stopped node stays")
}

// TestClusterRefusesHistory holds that a history is refused without a HistoryBroker, because the nodes
// would not share it.
func TestClusterRefusesHistory(t *testing.T) {
	t.Parallel()
	hub := wstest.NewHub()
	plain := struct{ ws.Broker }{hub.Link()}
	n := startNode(t, hub, ws.WithBroker(plain))
	_, err := n.CreateRoom("r", nil, ws.WithHistory(ws.History{}))
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
	_, sc := n.DialClient(harness.Native)
	_, err = sc.JoinRoomFrom("r", ws.Since{}, ws.WithHistory(ws.History{}))
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
}

// TestClusterConfigIsChecked holds the bounds of ClusterConfig.
func TestClusterConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]ws.ClusterConfig{
		"QueueBytes": {QueueBytes: -1}, "UnsubscribeDelay": {UnsubscribeDelay: -1}, "Heartbeat": {Heartbeat: -1},
		"Name": {Name: strings.Repeat("n", 257)},
	} {
		_, err := ws.NewManager(ws.WithCluster(cfg))
		require.ErrorIs(t, err, ws.ErrInvalidConfig)
		assert.ErrorContains(t, err, "Cluster."+name)
	}
	_, err := ws.NewManager(ws.WithBroker(wstest.NewHub().Link()), ws.WithInbox(ws.Inbox{}))
	require.ErrorIs(t, err, ws.ErrInvalidConfig)
}
