package ws_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestJoinAheadOfTheLog holds that a client whose position is ahead of its new node reads no gap, and that
// one with a position that the store never had does.
func TestJoinAheadOfTheLog(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	slow, fast := nodes[1].member("r"), nodes[0].member("r")
	slow.Join("")
	fast.Join("")
	nodes[1].link.LoseStored(3)
	for i := range 3 {
		nodes[0].say(i)
	}
	take(fast, 0, 1, 2)
	moved := nodes[1].member("r")
	moved.Position = fast.Position
	assert.Zero(t, moved.Rejoin())
	nodes[0].say(3)
	for _, m := range []*harness.Member{fast, moved} {
		take(m, 3)
	}
	take(slow, 0, 1, 2, 3)
	liar := nodes[1].member("r")
	liar.Position = ws.Position{Epoch: fast.Position.Epoch, Offset: 1000}
	liar.Rejoin()
	require.Equal(t, "ws.gap", liar.Take().Event)
	assert.Equal(t, ws.RoomGap{
		Room: "r", Epoch: fast.Position.Epoch, After: 1000, Next: 5, Reason: ws.GapEpoch,
	}, liar.Gaps[0])
}

// TestJoinKnowsANewerEpoch holds that the node reads the store for a client that comes from a new history.
func TestJoinKnowsANewerEpoch(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	old, fresh := nodes[1].member("r"), nodes[0].member("r")
	old.Join("")
	nodes[0].say(0)
	take(old, 0)
	nodes[0].hub.Wipe()
	nodes[1].link.LoseStored(1)
	nodes[0].say(1)
	fresh.Join("")
	moved := nodes[1].member("r")
	moved.Position = fresh.Position
	assert.Zero(t, moved.Rejoin())
	require.Equal(t, "ws.gap", old.Take().Event)
	assert.Equal(t, ws.GapEpoch, old.Gaps[0].Reason)
	nodes[0].say(2)
	for _, m := range []*harness.Member{old, fresh, moved} {
		take(m, 2)
	}
	assert.Empty(t, moved.Gaps)
}

// TestJoinsThatWait holds the ends of joins while the node reads the store.
func TestJoinsThatWait(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{}, func(c *ws.Config) { c.Room.MaxRoomsPerClient = 2 })[0]
	release := n.link.HoldReads()
	defer release()
	c, sc := n.DialClient(harness.Native)
	join := func(id, room string) { c.Send(harness.Request("ws.join", id, fmt.Sprintf(`{"room":%q}`, room))) }
	join("1", "r")
	harness.Eventually(t, func() bool { return n.Stats().Cluster.Loads == 1 }, "no load")
	join("2", "r")
	c.ExpectReply("2", 409, "already in room")
	join("3", "other")
	join("4", "third")
	c.ExpectReply("4", 409, "too many rooms")
	sc.LeaveRoom("r")
	c.ExpectReply("1", 409, "left the room")
	n.DeleteRoom("other") // the join begins another one
	errs := make(chan error, 1)
	_, second := n.DialClient(harness.Native)
	go func() { errs <- second.JoinRoom("r") }() // ends with the test
	harness.Eventually(t, func() bool { return n.GetRoomCount() == 2 }, "the rooms of joins that wait end")
	release()
	require.NoError(t, harness.Receive(t, errs, "JoinRoom does not return"))
	c.ExpectReply("3", 200, "success")
	assert.Equal(t, []string{"other"}, sc.GetRooms())
	assert.Equal(t, []string{"r"}, second.GetRooms())
}

// TestJoinIsRefusedWhenTheLinkBreaks holds that a join that waits gets an error, which the client tries
// again, and leaves no room behind.
func TestJoinIsRefusedWhenTheLinkBreaks(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{})[0]
	release := n.link.HoldReads()
	c, sc := n.DialClient(harness.Native)
	c.Send(harness.Request("ws.join", "1", `{"room":"new"}`))
	harness.Eventually(t, func() bool { return n.Stats().Cluster.Loads == 1 }, "no load")
	n.link.Cut()
	release()
	c.ExpectReply("1", 503, "broker unavailable")
	harness.Eventually(t, func() bool { return n.GetRoomCount() == 1 }, "the room stays")
	n.link.Mend()
	expectGap(c, "")
	n.awaitLink() // the gap may come a moment before
	require.NoError(t, sc.JoinRoom("r"))
}

// TestInlineHandlersOfStoredHistory holds that no call waits on an event loop.
func TestInlineHandlersOfStoredHistory(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{}, ws.WithHandlerMode(ws.Inline))[0]
	require.NoError(t, n.Register("try", func(c *ws.Client, _ *ws.Message) error {
		_, published := n.PublishEvent(context.Background(), "r", "n", 1)
		_, position := n.RoomPosition("r")
		for i, err := range []error{published, position, c.JoinRoom("r")} {
			assert.ErrorIs(t, err, ws.ErrOnEventLoop, strconv.Itoa(i))
		}
		return ws.NewClientError(418, "tried")
	}))
	m := n.member("r")
	m.Send(harness.Request("try", "1", "{}"))
	m.ExpectReply("1", 418, "tried")
	m.Join("") // does not wait on the loop
	n.say(1)
	take(m, 1)
}

// TestStopEndsJoins holds that Shutdown does not wait for joins that wait.
func TestStopEndsJoins(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{})[0]
	release := n.link.HoldReads()
	defer release()
	c, sc := n.DialClient(harness.Native)
	errs := make(chan error, 1)
	go func() { errs <- sc.JoinRoom("r") }() // ends with the test
	harness.Eventually(t, func() bool { return n.Stats().Cluster.Loads == 1 }, "no load")
	stopped := make(chan struct{})
	go func() { // ends with the test
		defer close(stopped)
		n.Stop()
	}()
	c.Finish(1001)
	require.ErrorIs(t, harness.Receive(t, errs, "JoinRoom does not return"), ws.ErrManagerStopped)
	harness.Receive(t, stopped, "the node does not stop")
}

// TestLeaveOfAJoinThatWaits holds that a client is in no room that it has left, whenever its leave meets
// its join.
func TestLeaveOfAJoinThatWaits(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{}, func(c *ws.Config) { c.Room.MaxRoomsPerClient = 1 })[0]
	c, sc := n.DialClient(harness.Native)
	for i := range 300 {
		release := n.link.HoldReads()
		id := strconv.Itoa(i)
		c.Send(harness.Request("ws.join", "j"+id, fmt.Sprintf(`{"room":"r%d"}`, i)))
		if i%2 == 0 {
			release()
		}
		c.Send(harness.Request("ws.leave", "l"+id, fmt.Sprintf(`{"room":"r%d"}`, i)))
		release()
		for range 2 {
			c.ReadEnvelope()
		}
		require.Empty(t, sc.GetRooms(), "round %d", i)
	}
}

// TestLeaveMeetsJoinsOfManySides holds that each JoinRoom returns, whenever joins of one client meet leaves.
func TestLeaveMeetsJoinsOfManySides(t *testing.T) {
	t.Parallel()
	n := storedNodes(t, 1, ws.History{})[0]
	_, sc := n.DialClient(harness.Native)
	for i := range 30 {
		release := n.link.HoldReads()
		room := strconv.Itoa(i)
		_, err := n.CreateRoom(room, nil, ws.WithHistory(ws.History{}))
		require.NoError(t, err)
		ended := make(chan struct{}, 4)
		for range cap(ended) {
			go func() { // until it has waited
				for errors.Is(sc.JoinRoom(room), ws.ErrAlreadyInRoom) {
				}
				ended <- struct{}{}
			}()
		}
		harness.Eventually(t, func() bool {
			sc.LeaveRoom(room)
			return len(ended) == cap(ended)
		}, "round %d: a JoinRoom never returns", i)
		release()
	}
}
