package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

// numbers checks that the messages of an event are 1, 2, 3 and so on. Safe for concurrent use.
type numbers struct {
	t    testing.TB
	last atomic.Int64
}

func (n *numbers) receive(m client.Notify) {
	var i int64
	assert.NoError(n.t, m.Decode(&i))
	assert.Equal(n.t, n.last.Load()+1, i, "%s: a message is lost, or comes twice, or out of its place", m.Event)
	n.last.Store(i)
}

// TestMovesInPlainRooms moves a member of a room without a history again and again, while messages
// are published to the room and to the user. It reads each of them once and in order.
func TestMovesInPlainRooms(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
		require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }))
		proxy := newCutter(t, s.AddrOf(w), 5)
		proxy.setLag(5 * time.Millisecond)
		c := newClient(t, "ws://"+proxy.addr()+"/ws?user=7")
		inRoom, forUser := &numbers{t: t}, &numbers{t: t}
		c.Room("plain").On("number", inRoom.receive)
		c.On("personal", forUser.receive)
		require.NoError(t, c.Connect(within(t)))
		_, err := c.Room("plain").Join(within(t))
		require.NoError(t, err)

		stop, published := make(chan struct{}), int64(0)
		var publisher sync.WaitGroup
		publisher.Go(func() {
			for r := rand.New(rand.NewPCG(1, 1)); ; {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(r.IntN(8000)) * time.Microsecond):
				}
				published++
				_, err := s.PublishEvent(context.Background(), "plain", "number", published)
				assert.NoError(t, err)
				text := fmt.Appendf(nil, `{"type":"notify","event":"personal","data":%d}`, published)
				assert.NoError(t, s.BroadcastToUser(7, text))
			}
		})
		for range harness.FewerUnderRace(40) {
			before := onlyClient(s)
			notice(s)
			harness.Eventually(t, func() bool { return onlyClient(s) != "" && onlyClient(s) != before }, "no move")
		}
		close(stop)
		publisher.Wait()
		harness.Eventually(t, func() bool {
			return inRoom.last.Load() == published && forUser.last.Load() == published
		}, "not all of %d messages", published)
		closeClient(t, c)
		t.Logf("%d messages", published)
	})
}
