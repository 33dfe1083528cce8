package ws_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// TestSilentHistories holds that the node finds out by itself that a silent room has a message, and
// that another one has a new history.
func TestSilentHistories(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	a, b := nodes[1].member("r"), nodes[1].member("b")
	a.Join("")
	b.Join("")
	_, err := nodes[0].CreateRoom("b", nil, ws.WithHistory(ws.History{}))
	require.NoError(t, err)
	say := func(n int) {
		_, err := nodes[0].PublishEvent(context.Background(), "b", "n", n)
		require.NoError(t, err)
	}
	say(1)
	take(b, 1)
	nodes[1].link.LoseStored(1)
	nodes[0].say(0)
	nodes[0].DeleteRoom("b") // node 1 learns of it by a message
	harness.Eventually(t, func() bool { _, ok := nodes[1].GetRoom("b"); return !ok }, "the room stays")
	take(a, 0)
	assert.Empty(t, a.Gaps)
}

// TestMalformedStoredMessage holds that a message which no node of this version has sent is a gap, and
// holds up no other.
func TestMalformedStoredMessage(t *testing.T) {
	t.Parallel()
	hub := wstest.NewHub()
	nodes := []clusterNode{storedNode(t, hub, ws.History{}), storedNode(t, hub, ws.History{})}
	stranger := hub.Link()
	for _, n := range nodes {
		n.awaitLink()
	}
	m := nodes[0].member("r")
	m.Join("")
	nodes[1].say(1)
	take(m, 1)
	for _, bytes := range []string{"", "\x01\x09\x00\x01n\xff\x01{}", "\x01\x09\x00\x01n\x02{}"} {
		_, err := stranger.Append(context.Background(), "r", []byte(bytes), ws.History{Size: 100})
		require.NoError(t, err)
		require.Equal(t, "ws.gap", m.Take().Event)
	}
	nodes[1].say(2)
	take(m, 2)
	late := nodes[1].member("r")
	assert.Equal(t, 1, late.Join(`"last":10`))
	assert.EqualValues(t, 6, nodes[0].Stats().Cluster.Malformed+nodes[1].Stats().Cluster.Malformed)
}
