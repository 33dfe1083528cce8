package ws_test

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// slowLink is a link whose subscriptions to rooms and users wait.
type slowLink struct {
	*wstest.Link
	asked   chan struct{} // gets a token when a call waits
	release func()        // lets them go on
	held    chan struct{} // a token lets one of them go on
}

func (l slowLink) Subscribe(topics []ws.Topic) error {
	if slices.ContainsFunc(topics, func(t ws.Topic) bool { return t.Kind == ws.TopicRoom || t.Kind == ws.TopicUser }) {
		select {
		case l.asked <- struct{}{}:
		default:
		}
		<-l.held
	}
	return l.Link.Subscribe(topics)
}

// slowNode starts a node with a slowLink on the hub.
func slowNode(t *testing.T, hub *wstest.Hub, opts ...ws.Option) (clusterNode, slowLink) {
	link := slowLink{Link: hub.Link(), asked: make(chan struct{}, 8), held: make(chan struct{})}
	link.release = sync.OnceFunc(func() { close(link.held) })
	n := startNode(t, hub, append(opts, ws.WithBroker(link))...)
	t.Cleanup(link.release)
	require.NoError(t, ws.HandleJoin(n.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }))
	n.link = link.Link
	n.awaitLink()
	return n, link
}

func sendJoin(c *harness.Client, id, room string) {
	c.Send(harness.Request("ws.join", id, fmt.Sprintf(`{"room":%q}`, room)))
}

// TestJoinIsAnsweredWhenSubscribed holds that a join by ws.join is answered when the messages of other
// nodes reach the room, and that later ones do not wait.
func TestJoinIsAnsweredWhenSubscribed(t *testing.T) {
	t.Parallel()
	hub := wstest.NewHub()
	n, link := slowNode(t, hub)
	other := startNode(t, hub)
	other.awaitLink()
	first, sc := n.DialClient(harness.Native)
	sendJoin(first, "1", "r")
	harness.Receive(t, link.asked, "no subscription")
	assert.Empty(t, sc.GetRooms())
	assert.Zero(t, n.GetRoomCount())
	link.release()
	first.ExpectReply("1", 200, "success")
	require.NoError(t, other.BroadcastToRoom("r", []byte("after"), nil))
	assert.Equal(t, "after", string(first.Next().Payload))
	second, _ := n.DialClient(harness.Native)
	sendJoin(second, "1", "r")
	second.ExpectReply("1", 200, "success")
	require.NoError(t, other.BroadcastToRoom("r", []byte("last"), nil))
	assert.Equal(t, "last", string(second.Next().Payload))
	assert.Equal(t, "last", string(first.Next().Payload))
}

// TestJoinsThatWaitForASubscription holds the other ends of such joins.
func TestJoinsThatWaitForASubscription(t *testing.T) {
	t.Parallel()
	n, link := slowNode(t, wstest.NewHub(), func(c *ws.Config) { c.Room.MaxRoomsPerClient = 2 })
	c, sc := n.DialClient(harness.Native)
	sendJoin(c, "1", "left")
	harness.Receive(t, link.asked, "no subscription")
	sendJoin(c, "2", "left")
	c.ExpectReply("2", 409, "already in room")
	sendJoin(c, "3", "late") // until the wait is over
	sendJoin(c, "4", "third")
	c.ExpectReply("4", 409, "too many rooms")
	sc.LeaveRoom("left")
	c.ExpectReply("1", 409, "left the room")
	c.ExpectReply("3", 200, "success")
	assert.Equal(t, []string{"late"}, sc.GetRooms())
	sendJoin(c, "5", "down")
	sendJoin(c, "6", "down")
	c.ExpectReply("6", 409, "already in room") // so the other one waits
	link.Cut()
	c.ExpectReply("5", 200, "success")
	assert.ElementsMatch(t, []string{"late", "down"}, sc.GetRooms())
}

// TestJoinWaitsForItsOwnSubscription holds that a new connection to the broker does not answer the joins
// of rooms whose subscription is yet to come.
func TestJoinWaitsForItsOwnSubscription(t *testing.T) {
	t.Parallel()
	n, link := slowNode(t, wstest.NewHub())
	c, sc := n.DialClient(harness.Native)
	sendJoin(c, "1", "x")
	harness.Receive(t, link.asked, "no subscription")
	answer := func(id string) (code int) { // there are gaps, too
		for {
			if e := c.ReadEnvelope(); e.RequestID == id {
				return e.Code
			}
		}
	}
	link.Cut()
	require.Equal(t, 200, answer("1"))
	link.Mend()
	n.awaitLink()
	sendJoin(c, "2", "y")
	sendJoin(c, "3", "y")
	require.Equal(t, 409, answer("3"))
	link.held <- struct{}{}
	harness.Receive(t, link.asked, "no second subscription")
	c.Send(harness.Request("ws.ping", "4", "")) // which takes longer than a join that goes on
	require.Equal(t, 200, answer("4"))
	require.Equal(t, []string{"x"}, sc.GetRooms())
	link.release()
	require.Equal(t, 200, answer("2"))
	assert.ElementsMatch(t, []string{"x", "y"}, sc.GetRooms())
}

// TestLeaveOfAJoinThatWaitsForASubscription holds that the last request of a client decides, whenever its
// leave meets its join.
func TestLeaveOfAJoinThatWaitsForASubscription(t *testing.T) {
	t.Parallel()
	n, link := slowNode(t, wstest.NewHub(), func(c *ws.Config) { c.Room.MaxRoomsPerClient = 1 })
	link.release()
	c, sc := n.DialClient(harness.Native)
	leave := func(id, room string) { c.Send(harness.Request("ws.leave", id, fmt.Sprintf(`{"room":%q}`, room))) }
	for i := range 300 {
		room := strconv.Itoa(i)
		sendJoin(c, "1", room)
		leave("2", room)
		sendJoin(c, "3", room)
		codes := map[string]int{}
		for range 3 {
			e := c.ReadEnvelope()
			codes[e.RequestID] = e.Code
		}
		require.Equal(t, 200, codes["3"], "%v", codes)
		require.Equal(t, []string{room}, sc.GetRooms())
		leave("4", room)
		c.ExpectReply("4", 200, "success")
		require.Empty(t, sc.GetRooms())
	}
}

// TestJoinWaitsForNoSubscription holds that JoinRoom never waits, and that nobody waits without a link.
func TestJoinWaitsForNoSubscription(t *testing.T) {
	t.Parallel()
	n, link := slowNode(t, wstest.NewHub())
	c, sc := n.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	link.Cut()
	harness.Eventually(t, func() bool { return !n.Stats().Cluster.Up }, "the link stays up")
	sendJoin(c, "1", "other")
	c.ExpectReply("1", 200, "success")
}

// TestJoinsWaitForNoReadOfOthers holds that joins of rooms without a history do not wait for the store.
func TestJoinsWaitForNoReadOfOthers(t *testing.T) {
	t.Parallel()
	n := startNode(t, wstest.NewHub())
	n.awaitLink()
	release := n.link.HoldReads()
	defer release()
	require.NoError(t, ws.HandleJoin(n.Manager, func(_ *ws.Client, room string) ([]ws.RoomOption, error) {
		if room == "plain" {
			return nil, nil
		}
		return []ws.RoomOption{ws.WithHistory(ws.History{})}, nil
	}))
	c, _ := n.DialClient(harness.Native)
	for i := range 24 {
		sendJoin(c, strconv.Itoa(i), "r"+strconv.Itoa(i))
	}
	harness.Eventually(t, func() bool { return n.Stats().Cluster.Loads >= 8 }, "no reads")
	sendJoin(c, "plain", "plain")
	c.ExpectReply("plain", 200, "success")
	assert.Zero(t, n.Stats().Cluster.StoreErrors, "it waited until the reads gave up")
}
