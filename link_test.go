package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// TestLinkDown holds that each publish is refused at once while the link is down, and reaches nobody.
func TestLinkDown(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	near := nodes[0].join("r", "user=7")
	nodes[0].link.Cut()
	harness.Eventually(t, func() bool { return !nodes[0].Stats().Cluster.Up }, "the link stays up")
	_, err := nodes[0].Publish("r", []byte("x"))
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	_, err = nodes[0].Publish("other room", []byte("x"))
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	require.ErrorIs(t, nodes[0].BroadcastToUser(7, []byte("x")), ws.ErrBrokerUnavailable)
	_, err = nodes[0].PublishEvent(context.Background(), "r", "e", 1)
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	nodes[0].BroadcastAll([]byte("x"))
	assert.EqualValues(t, 5, nodes[0].Stats().Cluster.Refused)
	nodes[0].link.Mend()
	expectGap(near, "", "r")
	nodes[0].awaitLink() // the gaps may come a moment before
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("after"), nil))
	near.Expect("after")
}

// TestLocalFallback holds that members of the own node are served while the link is down, and that the
// others learn of the loss before any later message.
func TestLocalFallback(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{LocalFallback: true}))
	near, far := nodes[0].join("r"), nodes[1].join("r")
	nodes[0].link.Cut()
	harness.Eventually(t, func() bool { return !nodes[0].Stats().Cluster.Up }, "the link stays up")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("here"), nil))
	require.NoError(t, nodes[0].BroadcastToRoom("only there", []byte("lost"), nil))
	near.Expect("here")
	nodes[0].link.Mend()
	nodes[0].awaitLink()
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("everywhere"), nil))
	expectGap(far, "r")
	far.Expect("everywhere")
}

// TestLinkQueueFull holds that a slow link refuses publishes, never delays them, and loses nothing that
// was accepted.
func TestLinkQueueFull(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{QueueBytes: 100_000}))
	far := nodes[1].join("r")
	nodes[0].link.Stall()
	text := strings.Repeat("x", 1000)
	publish := func(i int) error { return nodes[0].BroadcastToRoom("r", []byte(strconv.Itoa(i)+text), nil) }
	sent := 0
	for ; ; sent++ {
		if err := publish(sent); err != nil {
			require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
			break
		}
	}
	assert.InDelta(t, 100_000/1160, sent, 5)
	assert.LessOrEqual(t, nodes[0].Stats().Cluster.QueuedBytes, int64(100_000))
	nodes[0].link.Release()
	for i := range sent {
		far.Expect(strconv.Itoa(i) + text)
	}
	harness.Eventually(t, func() bool { return publish(sent) == nil }, "the queue stays full")
	far.Expect(strconv.Itoa(sent) + text)
}

// TestTooLargeForBroker holds that nobody gets a message that the broker does not take, and that its publisher
// learns of it at once.
func TestTooLargeForBroker(t *testing.T) {
	t.Parallel()
	hub := wstest.NewHub()
	opts := ws.WithCluster(ws.ClusterConfig{Heartbeat: 50 * time.Millisecond, LocalFallback: true})
	a, b := startNode(t, hub, opts), startNode(t, hub, opts)
	a.awaitLink()
	b.awaitLink()
	for _, n := range []clusterNode{a, b} { // a node that is heard late is a loss
		harness.Eventually(t, func() bool { return len(n.Nodes()) == 2 }, "the nodes do not know each other")
	}
	near, far := a.join("r"), b.join("r")
	large := make([]byte, 1000)
	require.NoError(t, a.BroadcastToRoom("r", large, nil))
	far.Expect(string(large))
	near.Expect(string(large))
	a.link.Limit(1000)
	harness.Eventually(t, func() bool { // with a heartbeat
		return errors.Is(a.BroadcastToRoom("no members", large, nil), ws.ErrMessageTooLarge)
	}, "the limit is not known")
	require.ErrorIs(t, a.BroadcastToRoom("r", large, nil), ws.ErrMessageTooLarge)
	require.NoError(t, a.BroadcastToRoom("r", []byte("small"), nil))
	near.Expect("small")
	far.Expect("small")
	before := b.Stats().Cluster
	for i := range 500 { // too many for one sum
		require.NoError(t, a.BroadcastToRoom("room "+strconv.Itoa(i), nil, nil))
	}
	harness.Eventually(t, func() bool { return b.Stats().Cluster.Received >= before.Received+20 }, "no sums")
	assert.Equal(t, before.Holes, b.Stats().Cluster.Holes, "a sum was too large")
}

// TestFallbackWithFullQueue holds that a message which a full queue has not taken is a gap on the other
// nodes, ahead of the messages that were published after it.
func TestFallbackWithFullQueue(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{QueueBytes: 10_000, LocalFallback: true}))
	far := nodes[1].join("r")
	nodes[0].link.Stall()
	text := strings.Repeat("x", 1000)
	for i := range 20 {
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte(strconv.Itoa(i)+text), nil))
	}
	require.Positive(t, nodes[0].Stats().Cluster.Refused)
	nodes[0].link.Release()
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.QueuedBytes == 0 }, "the queue is not sent")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("end"), nil))
	gap, next := false, 0
	for {
		payload := string(far.Next().Payload)
		switch {
		case payload == "end":
			assert.True(t, gap)
			return
		case strings.Contains(payload, "ws.gap"):
			gap = true
		default:
			require.Equal(t, strconv.Itoa(next)+text, payload)
			next++
		}
	}
}

// TestPublisherOnEventLoop holds that a handler on an event loop never waits for the link.
func TestPublisherOnEventLoop(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithHandlerMode(ws.Inline), ws.WithCluster(ws.ClusterConfig{QueueBytes: 5000}))
	far := nodes[1].join("r")
	require.NoError(t, ws.HandleOnly(nodes[0].Manager, "publish", func(*ws.Client) (*string, error) {
		result := fmt.Sprint(nodes[0].BroadcastToRoom("r", []byte("from a loop"), nil))
		return &result, nil
	}))
	c := nodes[0].Dial(harness.Native)
	nodes[0].link.Stall()
	var last string
	for i := range 100 {
		c.Send(harness.Request("publish", strconv.Itoa(i), ""))
		last = c.ExpectReply(strconv.Itoa(i), 200, "success")
	}
	assert.Contains(t, last, ws.ErrBrokerUnavailable.Error())
	nodes[0].link.Release()
	far.Expect("from a loop")
}

// TestOptionsAcrossNodes holds that options act in the queue of a slow member of another node.
func TestOptionsAcrossNodes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, harness.WithDeepQueue)
	far, sc := nodes[1].DialClient(harness.Native, "id=slow")
	require.NoError(t, sc.JoinRoom("r"))
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: "r"}, true)
	nodes[1].Stall(sc)
	publish := func(text string, opts ...ws.MessageOption) {
		_, err := nodes[0].Publish("r", []byte(text), opts...)
		require.NoError(t, err)
	}
	publish("normal")
	publish("old", ws.ConflateKey("k"))
	publish("new", ws.ConflateKey("k"))
	publish("late", ws.TTL(time.Millisecond))
	publish("never", ws.TTL(-1))
	publish("high", ws.HighPriority())
	publish("binary", ws.Binary())
	p := ws.Prepare(ws.OpBinary, []byte("prepared"), ws.HighPriority())
	require.NoError(t, nodes[0].BroadcastPrepared("r", p, nil))
	harness.Eventually(t, func() bool { return nodes[1].Stats().Cluster.Received > 7 && sc.QueuedBytes() > 0 }, "")
	borrowed := []byte("borrowed")
	require.NoError(t, nodes[0].BroadcastToRoom("r", borrowed, nil))
	copy(borrowed, "BORROWED")
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.QueuedBytes == 0 }, "")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("end"), nil))
	far.Expect(harness.BigMessage)
	var got []string
	for !bytes.Equal([]byte("end"), []byte(last(got))) {
		f := far.Next()
		assert.Equal(t, f.Header.OpCode == gobwas.OpBinary, strings.HasPrefix(string(f.Payload), "b") &&
			string(f.Payload) != "borrowed" || string(f.Payload) == "prepared", "%s", f.Payload)
		got = append(got, string(f.Payload))
	}
	want := []string{"high", "prepared", "normal", "new", "binary", "borrowed", "end"}
	if len(got) == len(want)+1 { // it was written before a millisecond was over
		want = []string{"high", "prepared", "normal", "new", "late", "binary", "borrowed", "end"}
	}
	assert.Equal(t, want, got)
}

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}

// TestExclusionAcrossNodes holds that a client is excluded by its ID also where it is after it has
// moved.
func TestExclusionAcrossNodes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	_, before := nodes[0].DialClient(harness.Native, "id=mover")
	require.NoError(t, before.JoinRoom("r"))
	moved, other := nodes[1].join("r", "id=mover"), nodes[1].join("r", "id=other")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("for others"), before))
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("for all"), nil))
	other.Expect("for others", "for all")
	moved.Expect("for all")
}

// TestStormOnTwoNodes publishes from 8 goroutines on two nodes at once: the members of both get each
// message once, and those of each publisher in order.
func TestStormOnTwoNodes(t *testing.T) {
	t.Parallel()
	const publishers, messages = 8, 500
	nodes := startNodes(t, 2, func(c *ws.Config) { c.MessageQueueSize = publishers * messages })
	members := []*harness.Client{nodes[0].join("r"), nodes[1].join("r")}
	var group sync.WaitGroup
	for p := range publishers {
		group.Go(func() {
			for i := range messages {
				assert.NoError(t, nodes[p%2].BroadcastToRoom("r", fmt.Appendf(nil, "%d %d", p, i), nil))
			}
		})
	}
	for _, c := range members {
		next := make([]int, publishers)
		for range publishers * messages {
			var p, i int
			_, err := fmt.Sscanf(string(c.Next().Payload), "%d %d", &p, &i)
			require.NoError(t, err)
			require.Equal(t, next[p], i, "publisher %d", p)
			next[p]++
		}
	}
	group.Wait()
	for _, n := range nodes {
		harness.Eventually(t, func() bool {
			return n.Stats().Cluster.Published == publishers/2*messages
		}, "a message is not counted")
		assert.Zero(t, n.Stats().Cluster.Malformed)
	}
}

// TestDisconnectUserAcrossNodes closes the devices of a user on all nodes, and no others.
func TestDisconnectUserAcrossNodes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	near, far := nodes[0].join("r", "username=ann"), nodes[1].join("r", "username=ann")
	other := nodes[1].join("r", "username=bob")
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicUser, Name: "ann"}, true)
	require.NoError(t, nodes[0].DisconnectUser("ann", 4403, "signed out"))
	for _, c := range []*harness.Client{near, far} {
		assert.Equal(t, "signed out", c.ExpectClose(4403))
	}
	require.NoError(t, nodes[0].DisconnectUser("", 4403, ""))
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("still here"), nil))
	other.Expect("still here")
	nodes[0].link.Cut()
	harness.Eventually(t, func() bool { return !nodes[0].Stats().Cluster.Up }, "the link stays up")
	require.ErrorIs(t, nodes[0].DisconnectUser("bob", 4403, ""), ws.ErrBrokerUnavailable)
}

// TestDeleteRoomAcrossNodes holds that a room ends on all nodes, with and without members, behind the
// messages that were published before.
func TestDeleteRoomAcrossNodes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	_, err := nodes[2].CreateRoom("r", nil)
	require.NoError(t, err)
	far := nodes[1].join("r")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("last words"), nil))
	nodes[0].DeleteRoom("r")
	far.Expect("last words")
	for _, n := range nodes {
		harness.Eventually(t, func() bool { return n.GetRoomCount() == 0 }, "the room stays")
	}
	nodes[1].BroadcastAll([]byte("still connected"))
	far.Expect("still connected")
}
