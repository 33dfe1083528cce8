package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

// startHistory runs a server whose rooms have a history: a short one if their name begins so.
func startHistory(t testing.TB, opts ...ws.Option) *harness.Server {
	t.Helper()
	s := harness.Start(t, opts...)
	require.NoError(t, ws.HandleJoin(s.Manager, func(_ *ws.Client, room string) ([]ws.RoomOption, error) {
		size := 1000
		if strings.HasPrefix(room, "short") {
			size = 8
		}
		return []ws.RoomOption{ws.WithHistory(ws.History{Size: size})}, nil
	}))
	return s
}

// publish publishes the number i to the room.
func publish(t testing.TB, s *harness.Server, room string, i int) {
	t.Helper()
	p, err := s.PublishEvent(context.Background(), room, "number", i)
	assert.NoError(t, err)
	assert.EqualValues(t, i, p.Offset)
}

// view is a member's view of a room: the offsets that it has read, or that it was told are lost.
// Its fields belong to the callbacks until the client has ended.
type view struct {
	position   client.Position
	read, lost int
	epochs     int // gaps because of a new epoch
}

// follow checks a room against the oracle: message number i has the data i and the offset i, so
// messages and gaps tile 1, 2, 3 and so on.
func follow(t testing.TB, room *client.Room) *view {
	v := new(view)
	room.On("number", func(n client.Notify) { v.number(t, n) })
	room.OnGap(func(g client.Gap) {
		assert.NotEqual(t, "unknown", g.Reason, "a message is missing, and no gap has named it")
		if g.Reason == "epoch" {
			v.epochs++
		} else {
			assert.Equal(t, v.position.Offset, g.After, "a gap out of its place")
		}
		v.position = client.Position{Epoch: g.Epoch, Offset: g.Next - 1}
		v.lost += int(g.Lost())
	})
	room.OnLost(func(err error) { assert.NoError(t, err, "the server refuses a join") })
	return v
}

// number checks a message.
func (v *view) number(t testing.TB, n client.Notify) {
	var i int64
	assert.NoError(t, n.Decode(&i))
	assert.Equal(t, n.Position.Offset, i, "another message under this offset")
	assert.Equal(t, v.position.Offset+1, i, "a message out of its place")
	v.position = n.Position
	v.read++
}

// enter joins the room of name and follows it from its first message on.
func enter(t testing.TB, c *client.Client, name string) *view {
	t.Helper()
	v := follow(t, c.Room(name))
	require.NoError(t, c.Connect(within(t)))
	joined, err := c.Room(name).Join(within(t))
	require.NoError(t, err)
	require.Zero(t, joined.Offset)
	return v
}

// TestTiling runs random schedules of publications, cuts, moves and pauses. At the end each client
// has read every message, or was told that it is lost, in order and once.
func TestTiling(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startHistory(t)
		proxy := newCutter(t, s.AddrOf(w), 3)
		var read, lost int
		for i := range harness.FewerUnderRace(200) {
			r, l := schedule(t, s, proxy, uint64(i))
			read, lost = read+r, lost+l
			if t.Failed() {
				t.Fatalf("schedule %d", i)
			}
		}
		t.Logf("%d faults, %d messages read, %d named as lost", proxy.count(), read, lost)
	})
}

// schedule plays one schedule with two members and two publishers.
func schedule(t *testing.T, s *harness.Server, proxy *cutter, seed uint64) (read, lost int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	name := fmt.Sprint([]string{"short ", "long "}[r.IntN(2)], seed)
	proxy.setRate([]float64{0, 0.02, 0.1}[r.IntN(3)])
	var views []*view
	var clients []*client.Client
	for range 2 {
		c := newClient(t, "ws://"+proxy.addr()+"/ws")
		clients, views = append(clients, c), append(views, enter(t, c, name))
	}
	total := 20 + r.IntN(100)
	publishAll(t, s, name, total, r, proxy)
	proxy.setRate(0)
	for i, c := range clients {
		harness.Eventually(t, func() bool { return c.Room(name).Position().Offset == int64(total) },
			"schedule %d: client %d is not at %d", seed, i, total)
		closeClient(t, c)
		assert.EqualValues(t, total, views[i].position.Offset)
		assert.Equal(t, total, views[i].read+views[i].lost)
		assert.Zero(t, views[i].epochs)
		if strings.HasPrefix(name, "long") {
			assert.Zero(t, views[i].lost, "lost within the window")
		}
		read, lost = read+views[i].read, lost+views[i].lost
	}
	return read, lost
}

// publishAll publishes from two goroutines, with pauses, cuts and notices in between.
func publishAll(t *testing.T, s *harness.Server, name string, total int, r *rand.Rand, proxy *cutter) {
	var mu sync.Mutex // holds the numbers in order
	published := 0
	next := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if published == total {
			return false
		}
		published++
		publish(t, s, name, published)
		return true
	}
	var publishers sync.WaitGroup
	for range 2 {
		chance := rand.New(rand.NewPCG(r.Uint64(), 4))
		publishers.Go(func() {
			for next() {
				switch chance.IntN(60) {
				case 0, 1, 2, 3, 4:
					<-time.After(time.Duration(chance.IntN(3000)) * time.Microsecond)
				case 5:
					proxy.cutAll()
				case 6:
					notice(s)
				}
			}
		})
	}
	publishers.Wait()
}

// notice asks all clients to move.
func notice(s *harness.Server) {
	const text = `{"type":"notify","event":"ws.reconnect","data":{"retry_ms":0,"resume":true}}`
	s.RangeClients(func(c *ws.Client) bool {
		_ = c.SendBytes([]byte(text)) // fails if the client has gone
		return true
	})
}

// onlyClient returns the ID of the server's only client, or "" if there are others.
func onlyClient(s *harness.Server) (id string) {
	s.RangeClients(func(c *ws.Client) bool { id = c.ID; return true })
	if s.GetClientCount() != 1 {
		return ""
	}
	return id
}

// TestMovesLoseNothing moves a member to a new connection again and again, while messages are
// published. It reads all of them, and its state stays open.
func TestMovesLoseNothing(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startHistory(t)
		var phases []client.Phase
		c := newClient(t, "ws://"+s.AddrOf(w)+"/ws", client.WithOnState(func(s client.State) {
			phases = append(phases, s.Phase)
		}))
		v := enter(t, c, "long")
		const moves = 20
		for i := range moves {
			before := onlyClient(s)
			notice(s)
			for j := range 20 {
				publish(t, s, "long", 20*i+j+1)
			}
			harness.Eventually(t, func() bool { return onlyClient(s) != "" && onlyClient(s) != before }, "no move")
		}
		harness.Eventually(t, func() bool { return c.Room("long").Position().Offset == 20*moves }, "not all messages")
		closeClient(t, c)
		assert.Equal(t, []int{20 * moves, 0}, []int{v.read, v.lost})
		assert.Equal(t, []client.Phase{client.Connecting, client.Open, client.Closed}, phases)
	})
}

// TestRestartOfHistory holds that a member learns of the new epoch after a restart of the server.
func TestRestartOfHistory(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		first := startHistory(t)
		at := newSite(first.AddrOf(w))
		c := newClient(t, "ws://example.com/ws", client.WithDialer(at.dial))
		room := c.Room("long")
		v := enter(t, c, "long")
		publish(t, first, "long", 1)
		harness.Eventually(t, func() bool { return room.Position().Offset == 1 }, "no message")
		before := room.Position()
		second := startHistory(t)
		at.move(second.AddrOf(w))
		first.Stop()
		harness.Eventually(t, func() bool { return room.Position() != before }, "no gap")
		assert.NotEqual(t, before.Epoch, room.Position().Epoch)
		assert.Zero(t, room.Position().Offset)
		publish(t, second, "long", 1)
		harness.Eventually(t, func() bool { return room.Position().Offset == 1 }, "no message")
		closeClient(t, c)
		assert.Equal(t, []int{2, 0, 1}, []int{v.read, v.lost, v.epochs})
	})
}

// TestJoinOptions joins with last, from a position, and strictly.
func TestJoinOptions(t *testing.T) {
	s := startHistory(t)
	writer := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws")
	enter(t, writer, "short")
	for i := range 20 {
		publish(t, s, "short", i+1)
	}
	harness.Eventually(t, func() bool { return writer.Room("short").Position().Offset == 20 }, "not all messages")
	epoch := writer.Room("short").Position().Epoch

	for name, test := range map[string]struct {
		options   []client.JoinOption
		replaying int64
		gap       bool
	}{
		"live":     {nil, 0, false},
		"last":     {[]client.JoinOption{client.Last(3)}, 3, false},
		"since":    {[]client.JoinOption{client.Since(client.Position{Epoch: epoch, Offset: 15})}, 5, false},
		"expired":  {[]client.JoinOption{client.Since(client.Position{Epoch: epoch, Offset: 2})}, 8, true},
		"at once":  {[]client.JoinOption{client.Since(client.Position{Epoch: epoch, Offset: 20}), client.Strict()}, 0, false},
		"last all": {[]client.JoinOption{client.Last(1000)}, 8, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws")
			room := c.Room("short")
			numbers, gaps := make(chan int64, 100), make(chan client.Gap, 100)
			room.On("number", func(n client.Notify) { numbers <- n.Position.Offset })
			room.OnGap(func(g client.Gap) { gaps <- g })
			require.NoError(t, c.Connect(within(t)))
			joined, err := room.Join(within(t), test.options...)
			require.NoError(t, err)
			assert.Equal(t, client.Joined{Epoch: epoch, Offset: 20, Replaying: test.replaying}, joined)
			if test.gap {
				want := client.Gap{Room: "short", Epoch: epoch, After: 2, Next: 13, Reason: "expired"}
				assert.Equal(t, want, harness.Receive(t, gaps, "no gap"))
			}
			for i := 21 - test.replaying; i <= 20; i++ {
				assert.Equal(t, i, harness.Receive(t, numbers, "no message"))
			}
			require.NoError(t, room.Leave(within(t)))
			assert.Empty(t, numbers)
			assert.Empty(t, gaps)
		})
	}
	strict := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws")
	require.NoError(t, strict.Connect(within(t)))
	_, err := strict.Room("short").Join(within(t), client.Since(client.Position{Epoch: epoch, Offset: 2}), client.Strict())
	var refused *client.ServerError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, 409, refused.Code)
}
