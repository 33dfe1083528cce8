package ws_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// TestRoomNamesOfAnyBytes holds that rooms and users are told apart whatever bytes their names have.
func TestRoomNamesOfAnyBytes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	for _, room := range []string{"", " ", "a.b.*.>", "\x00\xff\r\n", "日本", strings.Repeat("n", 256)} {
		far := nodes[1].join(room)
		require.NoError(t, nodes[0].BroadcastToRoom(room, []byte("for "+room), nil))
		assert.Equal(t, "for "+room, string(far.Next().Payload))
	}
	require.ErrorIs(t, nodes[0].BroadcastToRoom(strings.Repeat("n", 257), nil, nil), ws.ErrInvalidRoom)
}

// TestHostileMessages holds that bytes which no node has sent are counted, and cost nothing else.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	n := startNodes(t, 1)[0]
	c := n.join("r", "user=7")
	room, user := ws.Topic{Kind: ws.TopicRoom, Name: "r"}, ws.Topic{Kind: ws.TopicUser, Name: "7"}
	n.awaitTopic(user, true)
	nodes := ws.Topic{Kind: ws.TopicNode, Name: "nodes"}
	for _, hostile := range []struct {
		topic ws.Topic
		bytes string
	}{
		{room, ""},
		{room, "\x02\x01\x00\x01nhello"},                   // another version
		{room, "\x01\x63\x00\x01nhello"},                   // another kind
		{room, "\x01\x01\x00\xff\xff\xff\xff\xff\xff\x7f"}, // a huge length
		{user, "\x01\x05\x00\x01n\x00"},                    // half a close code
		{room, "\x01\x05\x00\x01n\x03\xe8bye"},             // a disconnect of a room
		{nodes, "\x01\x06\x00\x01n{"},                      // half a heartbeat
	} {
		n.hub.Publish(hostile.topic, []byte(hostile.bytes))
	}
	n.hub.Publish(nodes, []byte("\x01\x04\x00\x01nno such room"))
	n.hub.Publish(nodes, []byte("\x01\x04\x00\x01nr")) // a room with members ends by its own topic
	n.hub.Publish(room, []byte("\x01\x01\x00\x01nhello"))
	c.Expect("hello")
	assert.EqualValues(t, 7, n.Stats().Cluster.Malformed)
	assert.Len(t, n.GetRoomMembers("r"), 1)
}

// TestMessageForNobody holds that a message for a room without members here is dropped and counted.
func TestMessageForNobody(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2, ws.WithCluster(ws.ClusterConfig{UnsubscribeDelay: 1 << 60}))
	_, sc := nodes[1].DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicRoom, Name: "r"}, true)
	sc.LeaveRoom("r")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("x"), nil))
	harness.Eventually(t, func() bool { return nodes[1].Stats().Cluster.Unwanted == 1 }, "not counted")
}

// TestUndelivered holds that a message which does not find space in the ring of an event loop is a gap in its
// room, ahead of any later message, and nowhere else.
func TestUndelivered(t *testing.T) {
	t.Parallel()
	hub := wstest.NewHub()
	from := startNode(t, hub)
	to := startNode(t, hub, harness.OneBlockingLoop, func(c *ws.Config) {
		c.Broadcast.QueueSize, c.Broadcast.Timeout = 4, time.Second // a busy loop takes the last message in time
	})
	from.awaitLink()
	to.awaitLink()
	far, other := to.join("r"), to.join("other")
	release := to.BlockLoop(to.Dial(harness.Native))
	const messages = 7
	for i := range messages {
		require.NoError(t, from.BroadcastToRoom("r", []byte(strconv.Itoa(i)), nil))
	}
	harness.Eventually(t, func() bool { return to.Stats().Cluster.Received >= messages }, "not received")
	harness.Eventually(t, func() bool { return to.Stats().Cluster.Undelivered > 0 }, "all are delivered")
	release()
	require.NoError(t, from.BroadcastToRoom("r", []byte(strconv.Itoa(messages)), nil))
	gaps := 0
	for next, gap := 0, false; next <= messages; {
		text := string(far.Next().Payload)
		if strings.Contains(text, "ws.gap") {
			assert.Contains(t, text, `"room":"r"`)
			gap, gaps = true, gaps+1
			continue
		}
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		require.True(t, n == next || n > next && gap, "%d in place of %d", n, next)
		next, gap = n+1, false
	}
	assert.Positive(t, gaps)
	require.NoError(t, from.BroadcastToRoom("other", []byte("no gap here"), nil))
	other.Expect("no gap here")
}
