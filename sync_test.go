package ws_test

import (
	"encoding/json"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// withJoin registers the handlers of HandleJoin.
func withJoin(t *testing.T, m *ws.Manager) {
	t.Helper()
	require.NoError(t, ws.HandleJoin(m, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }))
}

var syncRequest = harness.Request("ws.sync", "sync", "")

// TestSyncFollowsPublishes holds that the answer to ws.sync comes behind all messages that were published
// before it, also those that the event loop has yet to fan out.
func TestSyncFollowsPublishes(t *testing.T) {
	t.Parallel()
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, harness.WithDeepQueue, func(c *ws.Config) { c.Loops = 1 }, mode)
		withJoin(t, s.Manager)
		held, release := make(chan struct{}), make(chan struct{})
		require.NoError(t, s.Register("hold", func(*ws.Client, *ws.Message) error {
			close(held)
			<-release
			return nil
		}, ws.RunInline()))
		c, sc := s.DialClient(w)
		require.NoError(t, sc.JoinRoom("r"))
		c.Sync()
		c.Send(harness.Request("hold", "hold", ""), syncRequest)
		harness.Receive(t, held, "the handler did not run")
		const messages = 200
		for i := range messages {
			require.NoError(t, s.BroadcastToRoom("r", []byte(strconv.Itoa(i)), nil))
		}
		close(release)
		for i := range messages {
			c.Expect(strconv.Itoa(i))
		}
		c.ExpectReply("sync", 200, "success")
	})
}

// lateLink is a link whose messages of rooms come late, as on another way than those of the nodes.
type lateLink struct {
	*wstest.Link
	mu   sync.Mutex
	held []func() // guarded by mu
	hold bool     // guarded by mu
}

type lateNode struct {
	ws.BrokerNode
	link *lateLink
}

func (l *lateLink) Start(node ws.BrokerNode) error { return l.Link.Start(lateNode{node, l}) }

func (n lateNode) Receive(topic ws.Topic, msg []byte) {
	l := n.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold && topic.Kind == ws.TopicRoom {
		msg = append([]byte(nil), msg...)
		l.held = append(l.held, func() { n.BrokerNode.Receive(topic, msg) })
		return
	}
	n.BrokerNode.Receive(topic, msg)
}

// set holds the messages of rooms from now on, or releases them.
func (l *lateLink) set(hold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = hold
	for _, receive := range l.held {
		receive()
	}
	l.held = nil
}

// patiently lets no message and no answer come too late.
func patiently(c *ws.Config) { c.Cluster.Heartbeat = time.Minute }

// lateMember starts a node with a lateLink beside another node, and a member of the room r there.
func lateMember(t *testing.T, opts ...ws.Option) (node, other clusterNode, link *lateLink, member *harness.Client) {
	t.Helper()
	hub := wstest.NewHub()
	link = &lateLink{Link: hub.Link()}
	node = startNode(t, hub, append(opts, ws.WithBroker(link))...)
	node.link = link.Link
	withJoin(t, node.Manager)
	node.awaitTopic(ws.Topic{Kind: ws.TopicNode, Name: "nodes"}, true)
	other = startNode(t, hub, opts...)
	for _, n := range []clusterNode{node, other} {
		harness.Eventually(t, func() bool { return len(n.Nodes()) == 2 }, "the nodes do not know each other")
	}
	return node, other, link, node.join("r")
}

// TestSyncWaitsForOtherNodes holds that the answer to ws.sync comes behind all messages that other nodes had
// published before it, also if these are on their way for long.
func TestSyncWaitsForOtherNodes(t *testing.T) {
	t.Parallel()
	node, other, link, member := lateMember(t, patiently)
	for i := range 20 {
		link.set(true)
		name := strconv.Itoa(i)
		require.NoError(t, other.BroadcastToRoom("r", []byte(name), nil))
		member.Send(syncRequest, harness.Request("ws.ping", "ping", ""))
		member.ExpectReply("ping", 200, "success")
		if i%2 == 0 { // the question has its answer before the message comes
			member.Send(harness.Request("ws.ping", "later", ""))
			<-time.After(20 * time.Millisecond)
			member.ExpectReply("later", 200, "success")
		}
		link.set(false)
		member.Expect(name)
		member.ExpectReply("sync", 200, "success")
	}
	assert.Zero(t, node.Stats().Cluster.Gaps)
}

// expectGaps reads the gaps of a member of r, in any order, and then the answer to ws.sync.
func expectGaps(t *testing.T, member *harness.Client) {
	t.Helper()
	gaps := 0
	for {
		e := member.ReadEnvelope()
		if e.RequestID == "sync" {
			require.Equal(t, 200, e.Code)
			require.GreaterOrEqual(t, gaps, 2, "no gap in the room, or for the client")
			return
		}
		require.Equal(t, "ws.gap", e.Event)
		require.Contains(t, string(e.Data), "broker")
		gaps++
	}
}

// TestSyncTellsOfLosses holds that the client reads gaps ahead of the answer if messages are possibly lost: a message
// does not come, the other node does not answer, or the link is down.
func TestSyncTellsOfLosses(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(other clusterNode, link *lateLink){
		"message": func(other clusterNode, link *lateLink) {
			link.Drop(func(topic ws.Topic) bool { return topic.Kind == ws.TopicRoom })
			require.NoError(t, other.BroadcastToRoom("r", []byte("lost"), nil))
			harness.Eventually(t, func() bool { return other.Stats().Cluster.QueuedBytes == 0 }, "not sent")
		},
		"node": func(other clusterNode, _ *lateLink) { other.link.Die() },
		"link": func(_ clusterNode, link *lateLink) { link.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node, other, link, member := lateMember(t)
			fail(other, link)
			if name == "link" {
				harness.Eventually(t, func() bool { return !node.Stats().Cluster.Up }, "the link is up")
			}
			events := node.Events(ws.EventRoomGap)
			member.Send(syncRequest)
			expectGaps(t, member)
			harness.Receive(t, events, "no event")
		})
	}
}

// TestSyncWithoutPeers holds that a node alone answers at once, also one that others have left.
func TestSyncWithoutPeers(t *testing.T) {
	t.Parallel()
	node, other, _, member := lateMember(t, patiently)
	other.Stop()
	harness.Eventually(t, func() bool { return len(node.Nodes()) == 1 }, "the stopped node stays")
	member.Send(syncRequest)
	member.ExpectReply("sync", 200, "success")
	assert.Zero(t, node.Stats().Cluster.Gaps)
}

// TestSyncIsBounded holds that a client has eight requests without an answer at most, and that a notification
// has no effect.
func TestSyncIsBounded(t *testing.T) {
	t.Parallel()
	_, other, link, member := lateMember(t, patiently)
	link.set(true)
	require.NoError(t, other.BroadcastToRoom("r", []byte("late"), nil))
	harness.Eventually(t, func() bool {
		link.mu.Lock()
		defer link.mu.Unlock()
		return len(link.held) == 1
	}, "not published")
	member.Send(`{"type":"notify","event":"ws.sync"}`)
	for i := range 8 {
		member.Send(harness.Request("ws.sync", strconv.Itoa(i), ""))
	}
	member.Send(harness.Request("ws.sync", "more", ""))
	member.ExpectReply("more", 429, "")
	link.set(false)
	member.Expect("late")
	for i := range 8 {
		member.ExpectReply(strconv.Itoa(i), 200, "success")
	}
	member.Send(syncRequest)
	member.ExpectReply("sync", 200, "success")
}

// TestSyncTellsOfEarlierLosses holds that the client reads the gaps of an earlier loss ahead of the answer, also those
// whose turn has yet to come.
func TestSyncTellsOfEarlierLosses(t *testing.T) {
	t.Parallel()
	n := startNodes(t, 1, harness.WithDeepQueue, func(c *ws.Config) { c.Room.MaxRoomsPerClient = 0 })[0]
	withJoin(t, n.Manager)
	member, sc := n.DialClient(harness.Native)
	const rooms = 3000
	for i := range rooms {
		require.NoError(t, sc.JoinRoom(strconv.Itoa(i)))
	}
	before := n.Stats().Cluster.Breaks
	n.link.Cut()
	n.link.Mend()
	harness.Eventually(t, func() bool { return n.Stats().Cluster.Breaks > before }, "no loss")
	n.awaitLink()
	member.Send(syncRequest)
	told := make(map[string]bool)
	for {
		var e struct {
			Event, Room string
			RequestID   string `json:"request_id"`
		}
		require.NoError(t, json.Unmarshal(member.Next().Payload, &e))
		if e.RequestID == "sync" {
			break
		}
		require.Equal(t, "ws.gap", e.Event)
		told[e.Room] = true
	}
	assert.Equal(t, rooms+1, len(told)) // not Len, which prints all of them
}
