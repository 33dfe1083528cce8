package ws_test

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// expectGap reads the gaps of the rooms, in any order; "" is the gap without a room.
func expectGap(c *harness.Client, rooms ...string) {
	c.T.Helper()
	var got []string
	for range rooms {
		var gap struct {
			Event string     `json:"event"`
			Room  string     `json:"room"`
			Data  ws.RoomGap `json:"data"`
		}
		payload := c.Next().Payload
		require.NoError(c.T, json.Unmarshal(payload, &gap), "%s", payload)
		require.Equal(c.T, "ws.gap", gap.Event)
		require.Equal(c.T, ws.RoomGap{Reason: ws.GapBroker}, gap.Data)
		got = append(got, gap.Room)
	}
	assert.ElementsMatch(c.T, rooms, got)
}

// TestGapAfterBreak holds that members learn of a break of the link once, before any later message
// of their room, and that those who join later do not.
func TestGapAfterBreak(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	events := nodes[1].Events(ws.EventRoomGap)
	far := nodes[1].join("r", "user=7")
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicUser, Name: "7"}, true)
	for i := range 20 {
		nodes[1].link.Cut()
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("lost"), nil))
		harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.QueuedBytes == 0 }, "")
		nodes[1].link.Mend()
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte(strconv.Itoa(i)), nil))
		require.NoError(t, nodes[0].BroadcastToUser(7, []byte("for 7")))
		var got []string
		for range 4 {
			var e struct{ Event, Room string }
			payload := far.Next().Payload
			if json.Unmarshal(payload, &e) == nil && e.Event == "ws.gap" {
				got = append(got, "gap "+e.Room)
			} else {
				got = append(got, string(payload))
			}
		}
		assert.Less(t, indexOf(got, "gap r"), indexOf(got, strconv.Itoa(i)), "%s", got)
		assert.Less(t, indexOf(got, "gap "), indexOf(got, "for 7"), "%s", got)
	}
	for range 40 {
		e := harness.Receive(t, events, "no event")
		assert.Nil(t, e.Client)
		assert.Equal(t, ws.GapBroker, e.Data.(ws.RoomGap).Reason)
	}
	late := nodes[1].join("late")
	require.NoError(t, nodes[0].BroadcastToRoom("late", []byte("first"), nil))
	late.Expect("first")
}

func indexOf(list []string, s string) int {
	for i, other := range list {
		if other == s {
			return i
		}
	}
	return len(list)
}

// TestGapOfLostMessages holds that a broker which has lost messages of a topic causes a gap there, and
// nowhere else.
func TestGapOfLostMessages(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	far, other := nodes[1].join("r", "user=7"), nodes[1].join("other")
	nodes[1].awaitTopic(ws.Topic{Kind: ws.TopicUser, Name: "7"}, true)
	nodes[1].link.Lose(2)
	for _, text := range []string{"lost", "lost", "found"} {
		require.NoError(t, nodes[0].BroadcastToRoom("r", []byte(text), nil))
	}
	expectGap(far, "r")
	expectGap(far, "r")
	far.Expect("found")
	nodes[1].link.Lose(1)
	require.NoError(t, nodes[0].BroadcastToUser(7, []byte("lost")))
	require.NoError(t, nodes[0].BroadcastToUser(7, []byte("found")))
	expectGap(far, "")
	far.Expect("found")
	nodes[1].link.Lose(1)
	nodes[0].BroadcastAll([]byte("lost"))
	nodes[0].BroadcastAll([]byte("found"))
	expectGap(far, "")
	far.Expect("found")
	expectGap(other, "")
	other.Expect("found")
	assert.EqualValues(t, 4, nodes[1].Stats().Cluster.Gaps)
}

// TestUnconfirmedMessages holds that members of other nodes learn of messages that a dead connection
// has taken, before any later message.
func TestUnconfirmedMessages(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	far, other := nodes[1].join("r"), nodes[2].join("other")
	nodes[0].link.Die()
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("into the dark"), nil))
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.Published == 1 }, "not published")
	nodes[0].link.Cut()
	nodes[0].link.Mend()
	harness.Eventually(t, func() bool {
		st := nodes[0].Stats().Cluster
		return st.Breaks == 2 && st.Up
	}, "no second connection")
	require.NoError(t, nodes[0].BroadcastToRoom("r", []byte("light"), nil))
	expectGap(far, "r")
	far.Expect("light")
	require.NoError(t, nodes[0].BroadcastToRoom("other", []byte("no gap here"), nil))
	other.Expect("no gap here")
}

// TestManyUnconfirmedTopics holds that a loss on very many topics is one on all.
func TestManyUnconfirmedTopics(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 2)
	far := nodes[1].join("r")
	nodes[0].link.Die()
	for i := range 1100 {
		require.NoError(t, nodes[0].BroadcastToRoom("room "+strconv.Itoa(i), []byte("x"), nil))
	}
	harness.Eventually(t, func() bool { return nodes[0].Stats().Cluster.Published == 1100 }, "not published")
	nodes[0].link.Cut()
	nodes[0].link.Mend()
	expectGap(far, "", "r")
}

// TestGapBesideStoredHistory holds that a break is a gap in a room with a stored history for the messages outside
// the history: at once if the node knows of such messages, and otherwise ahead of the first one.
func TestGapBesideStoredHistory(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	far := nodes[1].member("r")
	far.Join("")
	cut := func() {
		nodes[1].link.Cut()
		nodes[1].link.Mend()
		nodes[1].awaitLink()
		expectGap(far.Client, "")
	}
	plain := func(n clusterNode, text string) {
		require.NoError(t, n.BroadcastToRoom("r", []byte(text), nil))
	}
	cut()
	nodes[0].say(1)
	take(far, 1)
	plain(nodes[0], "first")
	expectGap(far.Client, "r")
	far.Expect("first")
	plain(nodes[0], "second")
	far.Expect("second")
	nodes[1].link.Cut()
	nodes[1].link.Mend()
	expectGap(far.Client, "", "r")
	nodes[0].say(2)
	take(far, 2)

	own := storedNode(t, nodes[0].hub, ws.History{})
	own.awaitLink()
	near := own.member("r")
	near.Join("")
	plain(own, "own")
	near.Expect("own")
	own.link.Cut()
	own.link.Mend()
	expectGap(near.Client, "", "r")
}
