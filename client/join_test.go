package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestManyJoins joins more rooms than a rate limit permits at once, twice: at first and after a cut
// during which the server's own check of joins is out of order. No room is lost, nor any message.
func TestManyJoins(t *testing.T) {
	s := harness.Start(t, ws.WithRateLimit(ws.RateLimit{Messages: 10}))
	var mu sync.Mutex
	failures := 0 // guarded by mu
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		mu.Lock()
		defer mu.Unlock()
		if failures > 0 {
			failures--
			return nil, ws.NewClientError(503, "out of order").WithData(map[string]int{"retry_ms": 5})
		}
		return []ws.RoomOption{ws.WithHistory(ws.History{Size: 10})}, nil
	}))
	proxy := newCutter(t, s.AddrOf(harness.Native), 1)
	var stopped error
	c := newClient(t, "ws://"+proxy.addr()+"/ws", client.WithOnState(func(s client.State) {
		if s.Phase == client.Closed {
			stopped = s.Err
		}
	}))
	const rooms = 30
	views := make([]*view, rooms)
	var joins sync.WaitGroup
	for i := range rooms {
		views[i] = follow(t, c.Room(fmt.Sprint(i)))
		joins.Go(func() {
			_, err := c.Room(fmt.Sprint(i)).Join(within(t))
			assert.NoError(t, err)
		})
	}
	require.NoError(t, c.Connect(within(t)))
	joins.Wait()
	publishToAll(t, s, c, rooms, 1) // a room in which nothing was published ends with its last member
	mu.Lock()
	failures = 3
	mu.Unlock()
	proxy.cutAll()
	publishToAll(t, s, c, rooms, 2)
	closeClient(t, c)
	for _, v := range views {
		assert.Equal(t, []int{2, 0}, []int{v.read, v.lost})
	}
	assert.ErrorIs(t, stopped, client.ErrClosed)
}

// publishToAll publishes message i to the rooms, and waits until the client has read it.
func publishToAll(t *testing.T, s *harness.Server, c *client.Client, rooms, i int) {
	t.Helper()
	for room := range rooms {
		publish(t, s, fmt.Sprint(room), i)
	}
	for room := range rooms {
		harness.Eventually(t, func() bool { return c.Room(fmt.Sprint(room)).Position().Offset == int64(i) },
			"message %d of room %d is not read", i, room)
	}
}

// TestJoinGivesUp ends the wait of a join that the server refuses with 429 again and again.
func TestJoinGivesUp(t *testing.T) {
	s := harness.Start(t)
	asked := make(chan bool, 1000)
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		select {
		case asked <- true:
		default:
		}
		return nil, ws.NewClientError(429, "later").WithData(map[string]int{"retry_ms": 1})
	}))
	c := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws")
	require.NoError(t, c.Connect(within(t)))
	ctx, cancel := context.WithCancel(within(t))
	go func() {
		for range 3 {
			<-asked
		}
		cancel()
	}()
	_, err := c.Room("r1").Join(ctx)
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Room("r1").Join(ctx) // it is not in the room
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
