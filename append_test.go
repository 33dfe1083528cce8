package ws_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestDeleteRoomForgets holds that DeleteRoom ends the history for all nodes.
func TestDeleteRoomForgets(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	far := nodes[1].member("r")
	far.Join("")
	for i := range 3 {
		nodes[0].say(i)
	}
	take(far, 0, 1, 2)
	nodes[0].DeleteRoom("r")
	harness.Eventually(t, func() bool { _, ok := nodes[1].GetRoom("r"); return !ok }, "the room stays")
	for _, n := range nodes {
		_, err := n.CreateRoom("r", nil, ws.WithHistory(ws.History{}))
		require.NoError(t, err)
	}
	at := nodes[0].say(3) // waits for the end of the old history
	assert.EqualValues(t, 1, at.Offset)
	late := nodes[1].member("r")
	assert.Equal(t, 1, late.Join(`"last":10`))
	take(late, 3)
}

// TestRoomThatIsPublishedToStays holds that an empty room does not end while its node publishes to it.
func TestRoomThatIsPublishedToStays(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	n := storedNodes(t, 1, ws.History{TTL: ttl}, func(c *ws.Config) {
		c.Room.EmptyRoomTTL, c.Room.CleanupInterval = ttl, time.Millisecond
	})[0]
	rounds, began := 0, time.Now()
	var used time.Time // before the last use of the room
	harness.Eventually(t, func() bool {
		now := time.Now()
		_, err := n.CreateRoom("r", nil, ws.WithHistory(ws.History{TTL: ttl}))
		if time.Since(used) < ttl/2 { // after a pause of the machine the room may have ended
			require.ErrorIs(t, err, ws.ErrRoomExists, "the room has ended")
			rounds++
		} else if err != nil {
			require.ErrorIs(t, err, ws.ErrRoomExists)
		}
		at, err := n.PublishEvent(context.Background(), "r", "n", 1)
		require.NoError(t, err)
		require.NotZero(t, at)
		used = now
		return rounds >= 20 && time.Since(began) > 2*ttl
	}, "%d rounds without a pause", rounds)
	harness.Eventually(t, func() bool { return n.GetRoomCount() == 0 }, "a silent room stays")
}

// TestRoomOfJoinThatIsPublishedToStays holds that a room that a join has created does not end with its
// last member while a message that the node has published in it is on its way from the store.
func TestRoomOfJoinThatIsPublishedToStays(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{})[0]
	m := n.member("joined")
	m.Join("")
	n.link.LoseStored(1)
	first, err := n.PublishEvent(context.Background(), "joined", "n", 1)
	require.NoError(t, err)
	m.Send(harness.Request("ws.leave", "leave", `{"room":"joined"}`))
	m.ExpectReply("leave", 200, "success")
	second, err := n.PublishEvent(context.Background(), "joined", "n", 2)
	require.NoError(t, err)
	assert.Equal(t, ws.Position{Epoch: first.Epoch, Offset: first.Offset + 1}, second)
}

// TestStoredOptions holds that a history takes no options that exclude members, and that the bounds of
// the room hold in the log and in the store.
func TestStoredOptions(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{Size: 3})
	_, err := nodes[0].PublishEvent(context.Background(), "r", "n", 1, ws.HighPriority())
	require.ErrorIs(t, err, ws.ErrHistoryOption)
	_, err = nodes[0].PublishEvent(context.Background(), "r", "n", func() {})
	require.Error(t, err)
	m := nodes[1].member("r")
	m.Join("")
	for i := range 10 {
		nodes[0].say(i)
		take(m, i)
	}
	for _, n := range nodes { // the log of one, the store of the other
		late := n.member("r")
		late.Position = ws.Position{Epoch: m.Position.Epoch, Offset: 2}
		assert.Equal(t, 3, late.Rejoin())
		require.Equal(t, "ws.gap", late.Take().Event)
		assert.Equal(t, ws.RoomGap{
			Room: "r", Epoch: m.Position.Epoch, After: 2, Next: 8, Reason: ws.GapExpired,
		}, late.Gaps[0])
		take(late, 7, 8, 9)
	}
}

// TestDeleteRoomFromManySides holds that removals of one history that are asked for at the same time
// wait for each other in their order: Shutdown ends.
func TestDeleteRoomFromManySides(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{})[0]
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 5000 {
				n.DeleteRoom("r")
			}
		})
	}
	all.Wait()
	n.Stop()
}
