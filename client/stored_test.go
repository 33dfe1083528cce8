package client_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// storedRoom is the room r on two nodes with one store. The room other has as many messages.
type storedRoom struct {
	t     *testing.T
	hub   *wstest.Hub
	nodes []*harness.Server
	last  client.Position // of the newest message
}

func startStored(t *testing.T, shared bool) *storedRoom {
	r := &storedRoom{t: t, hub: wstest.NewHub()}
	if shared {
		r.hub.ShareOffsets()
	}
	for range 2 {
		s := startHistory(t, ws.WithBroker(r.hub.Link()))
		for _, room := range []string{"r", "other"} {
			_, err := s.CreateRoom(room, nil, ws.WithHistory(ws.History{}))
			require.NoError(t, err)
		}
		harness.Eventually(t, func() bool { return s.Stats().Cluster.Up }, "the node is not up")
		r.nodes = append(r.nodes, s)
	}
	return r
}

// publish publishes the numbers first to last to both rooms, from both nodes in turns.
func (r *storedRoom) publish(first, last int) {
	r.t.Helper()
	for i := first; i <= last; i++ {
		for _, room := range []string{"other", "r"} {
			at, err := r.nodes[i%2].PublishEvent(context.Background(), room, "number", i)
			require.NoError(r.t, err)
			r.last = client.Position{Epoch: at.Epoch, Offset: int64(at.Offset)}
		}
	}
}

// await waits until the client is at the newest message.
func (r *storedRoom) await(c *client.Client) {
	r.t.Helper()
	harness.Eventually(r.t, func() bool { return c.Room("r").Position() == r.last }, "the client is not at %v", r.last)
}

// storedReader has all that a client was told of. Its fields belong to the callbacks until the client
// has ended.
type storedReader struct {
	numbers []int
	reasons []string // of gaps
}

// join lets a new client join through a dialer.
func (r *storedRoom) join(at *site, opts ...client.JoinOption) (*client.Client, *storedReader) {
	r.t.Helper()
	c, v := newClient(r.t, "ws://example.com/ws", client.WithDialer(at.dial)), &storedReader{}
	room := c.Room("r")
	room.On("number", func(n client.Notify) {
		var i int
		assert.NoError(r.t, n.Decode(&i))
		v.numbers = append(v.numbers, i)
	})
	room.OnGap(func(g client.Gap) { v.reasons = append(v.reasons, g.Reason) })
	room.OnLost(func(err error) { assert.NoError(r.t, err, "the server refuses a join") })
	require.NoError(r.t, c.Connect(within(r.t)))
	_, err := room.Join(within(r.t), opts...)
	require.NoError(r.t, err)
	return c, v
}

// TestStoredHistory has clients follow a room in a store: live, over a move to the other node, late, and
// when the store loses all histories. The offsets have holes if the rooms share them.
func TestStoredHistory(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared offsets ", shared), func(t *testing.T) {
			r := startStored(t, shared)
			at := newSite(r.nodes[0].AddrOf(harness.Native))
			c, v := r.join(at)
			r.publish(1, 20)
			r.await(c)

			at.move(r.nodes[1].AddrOf(harness.Native))
			r.nodes[0].RangeClients(func(c *ws.Client) bool { c.CloseWithCode(1012, ""); return true })
			r.publish(21, 40)
			r.await(c)
			late, w := r.join(newSite(r.nodes[0].AddrOf(harness.Native)), client.Last(3))
			r.await(late)
			assert.Equal(t, shared, r.last.Offset > 40)

			r.hub.Wipe()
			r.publish(41, 41)
			r.await(c) // perhaps behind the gap
			r.await(late)
			r.publish(42, 42)
			r.await(c)
			r.await(late)
			closeClient(t, c)
			closeClient(t, late)
			assert.Equal(t, numbersTo(40), v.numbers[:40])
			assert.Equal(t, []int{38, 39, 40}, w.numbers[:3])
			for _, v := range []*storedReader{v, w} {
				assert.Equal(t, []string{"epoch"}, v.reasons)
				assert.Equal(t, 42, v.numbers[len(v.numbers)-1])
			}
		})
	}
}

func numbersTo(last int) (list []int) {
	for i := range last {
		list = append(list, i+1)
	}
	return list
}
