package ws_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// oneBlockingLoop is the options of a manager with one event loop, which a
// client can hold up with the message "block".
func oneBlockingLoop(c *ws.Config) {
	c.Loops, c.HandlerMode = 1, ws.Inline
}

// blockLoop holds up the only event loop until release is called.
func (s *server) blockLoop(c *client) (release func()) {
	s.t.Helper()
	entered, done := make(chan struct{}), make(chan struct{})
	s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
		close(entered)
		<-done
	})
	c.send("block")
	receive(s.t, entered, "the handler did not run")
	s.HandleRaw(nil)
	release = sync.OnceFunc(func() { close(done) })
	s.t.Cleanup(release)
	return release
}

func TestRooms(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		assert.Zero(t, s.GetRoomCount())
		meta := map[string]any{"topic": "tests"}
		r, err := s.CreateRoom("lobby", meta)
		require.NoError(t, err)
		meta["topic"] = "changed"
		assert.Equal(t, "lobby", r.ID())
		assert.Equal(t, map[string]any{"topic": "tests"}, r.Metadata())
		_, err = s.CreateRoom("lobby", nil)
		require.ErrorIs(t, err, ws.ErrRoomExists)
		_, ok := s.GetRoom("attic")
		assert.False(t, ok)
		assert.Nil(t, s.GetRoomMembers("attic"))
		assert.Empty(t, s.GetRoomMembers("lobby"))

		_, a := s.dialClient(w)
		_, b := s.dialClient(w)
		require.NoError(t, a.JoinRoom("lobby"))
		require.ErrorIs(t, a.JoinRoom("lobby"), ws.ErrAlreadyInRoom)
		require.NoError(t, b.JoinRoom("lobby"))
		require.NoError(t, a.JoinRoom("attic"), "a missing room is created")
		assert.Equal(t, 2, s.GetRoomCount())
		assert.ElementsMatch(t, []*ws.Client{a, b}, s.GetRoomMembers("lobby"))
		assert.ElementsMatch(t, []string{"lobby", "attic"}, a.GetRooms())
		assert.Equal(t, []string{"lobby"}, b.GetRooms())
		r, ok = s.GetRoom("lobby")
		require.True(t, ok)
		assert.Equal(t, 2, r.MemberCount())

		a.LeaveRoom("lobby")
		a.LeaveRoom("lobby")
		a.LeaveRoom("nowhere")
		assert.Equal(t, []*ws.Client{b}, s.GetRoomMembers("lobby"))
		assert.Equal(t, []string{"attic"}, a.GetRooms())
		require.NoError(t, a.JoinRoom("lobby"), "again")
	})
}

func TestRoomFull(t *testing.T) {
	s := start(t, func(c *ws.Config) { c.Room.MaxRoomSize = 2 })
	_, a := s.dialClient(native)
	_, b := s.dialClient(overNet)
	_, c := s.dialClient(native)
	require.NoError(t, a.JoinRoom("r"))
	require.NoError(t, b.JoinRoom("r"))
	require.ErrorIs(t, c.JoinRoom("r"), ws.ErrRoomFull)
	assert.Empty(t, c.GetRooms())
	require.ErrorIs(t, a.JoinRoom("r"), ws.ErrAlreadyInRoom, "a member of a full room")
	b.LeaveRoom("r")
	require.NoError(t, c.JoinRoom("r"))
	a.Close()
	require.ErrorIs(t, a.JoinRoom("other"), ws.ErrConnectionClosed)
}

// Of many that join at once, as many get in as there is room.
func TestRoomFullUnderConcurrency(t *testing.T) {
	const limit, guests = 7, 30
	s := start(t, func(c *ws.Config) { c.Room.MaxRoomSize = limit })
	clients := make([]*ws.Client, guests)
	for i := range clients {
		_, clients[i] = s.dialClient([]way{native, overNet}[i%2])
	}
	var joined, full atomic.Int64
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			switch err := c.JoinRoom("r"); {
			case err == nil:
				joined.Add(1)
			case errors.Is(err, ws.ErrRoomFull):
				full.Add(1)
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, limit, joined.Load())
	assert.EqualValues(t, guests-limit, full.Load())
	assert.Len(t, s.GetRoomMembers("r"), limit)
}

func TestBroadcasts(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithAuthenticate(byQuery), ws.WithLoops(3))
		const n = 8
		var conns []*client
		var clients []*ws.Client
		for i := range n { // devices of users 0 (nobody), 1, 2, 3
			c, sc := s.dialClient(w, fmt.Sprint("user=", i%4))
			conns, clients = append(conns, c), append(clients, sc)
		}
		for _, c := range clients[:5] {
			require.NoError(t, c.JoinRoom("r"))
		}
		all := []int{0, 1, 2, 3, 4, 5, 6, 7}
		payload := []byte("a message")
		tests := []struct {
			name string
			send func() error
			want []int
		}{
			{"BroadcastAll", func() error { s.BroadcastAll(payload); return nil }, all},
			{"BroadcastToRoom", func() error { return s.BroadcastToRoom("r", payload, nil) }, all[:5]},
			{"exclude a member", func() error { return s.BroadcastToRoom("r", payload, clients[2]) }, []int{0, 1, 3, 4}},
			{"exclude somebody else", func() error { return s.BroadcastToRoom("r", payload, clients[7]) }, all[:5]},
			{"BroadcastPrepared", func() error {
				return s.BroadcastPrepared("r", ws.Prepare(ws.OpBinary, payload), clients[0])
			}, all[1:5]},
			{"BroadcastToUser", func() error { s.BroadcastToUser(3, payload); return nil }, []int{3, 7}},
			{"user without a device", func() error { s.BroadcastToUser(99, payload); return nil }, nil},
			{"user 0 is nobody", func() error { s.BroadcastToUser(0, payload); return nil }, nil},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				copy(payload, "a message")
				require.NoError(t, tt.send())
				copy(payload, "XXXXXXXXX") // it was borrowed
				s.BroadcastAll([]byte("fence"))
				for i, c := range conns {
					if slices.Contains(tt.want, i) {
						f := c.read()
						require.Equal(t, "a message", string(f.Payload), "client %d", i)
						require.Equal(t, tt.name == "BroadcastPrepared", f.Header.OpCode == gws.OpBinary)
					}
					c.expect("fence")
				}
			})
		}
		require.ErrorIs(t, s.BroadcastToRoom("nowhere", payload, nil), ws.ErrRoomNotFound)
		require.ErrorIs(t, s.BroadcastPrepared("nowhere", ws.Prepare(ws.OpText, nil), nil), ws.ErrRoomNotFound)
		_, err := s.CreateRoom("empty", nil)
		require.NoError(t, err)
		require.NoError(t, s.BroadcastToRoom("empty", payload, nil))

		// A device that went away is no device any more.
		conns[3].abort()
		eventually(t, func() bool { return s.GetClientCount() == n-1 }, "still connected")
		s.BroadcastToUser(3, []byte("to the rest"))
		conns[7].expect("to the rest")
		conns[7].abort()
		eventually(t, func() bool { return s.GetClientCount() == n-2 }, "still connected")
		s.BroadcastToUser(3, []byte("to nobody"))
		_, again := s.dialClient(w, "user=3")
		assert.Equal(t, int64(3), again.UserID)
	})
}

// What is published between JoinRoom and LeaveRoom or DeleteRoom is delivered,
// and nothing else, also while the event loop is behind.
func TestPublishOrder(t *testing.T) {
	steps := map[string]func(s *server, c *ws.Client){
		"join":    func(s *server, c *ws.Client) { assert.NoError(s.t, c.JoinRoom("r")) },
		"leave":   func(_ *server, c *ws.Client) { c.LeaveRoom("r") },
		"delete":  func(s *server, _ *ws.Client) { s.DeleteRoom("r") },
		"create":  func(s *server, _ *ws.Client) { _, err := s.CreateRoom("r", nil); assert.NoError(s.t, err) },
		"publish": func(s *server, _ *ws.Client) { assert.NoError(s.t, s.BroadcastToRoom("r", []byte("yes"), nil)) },
		"useless": func(s *server, _ *ws.Client) { assert.NoError(s.t, s.BroadcastToRoom("r", []byte("no"), nil)) },
		"send":    func(s *server, c *ws.Client) { assert.NoError(s.t, c.SendBytes([]byte("yes"))) },
	}
	tests := []struct {
		name  string
		steps []string
	}{
		{"join then publish", []string{"join", "publish"}},
		{"publish then leave", []string{"join", "publish", "leave", "useless"}},
		{"leave and join", []string{"join", "leave", "join", "publish", "leave"}},
		{"publish then delete", []string{"join", "publish", "delete"}},
		{"delete and create", []string{"join", "publish", "delete", "create", "useless", "join", "publish"}},
		{"delete and join", []string{"join", "publish", "delete", "join", "publish", "delete"}},
		{"direct and room", []string{"join", "send", "publish", "send", "publish", "leave", "send"}},
	}
	onBothWays(t, func(t *testing.T, w way) {
		for _, tt := range tests {
			run := func(t *testing.T, behind bool) {
				s := start(t, oneBlockingLoop)
				_, err := s.CreateRoom("r", nil)
				require.NoError(t, err)
				blocker := s.dial(w)
				c, sc := s.dialClient(w)
				release := func() {}
				if behind {
					release = s.blockLoop(blocker)
				}
				want := []string{}
				for _, step := range tt.steps {
					steps[step](s, sc)
					if step == "publish" || step == "send" {
						want = append(want, "yes")
					}
				}
				require.NoError(t, sc.SendBytes([]byte("end")))
				release()
				got := []string{}
				for {
					text := string(c.read().Payload)
					if text == "end" {
						break
					}
					got = append(got, text)
				}
				assert.Equal(t, want, got)
				assert.False(t, sc.IsClosed(), "the connection stays")
			}
			t.Run(tt.name, func(t *testing.T) { run(t, false) })
			t.Run(tt.name+" while the loop is behind", func(t *testing.T) { run(t, true) })
		}
	})
}

func TestDeleteRoom(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		var conns []*client
		var clients []*ws.Client
		for range 10 {
			c, sc := s.dialClient(w)
			require.NoError(t, sc.JoinRoom("r"))
			conns, clients = append(conns, c), append(clients, sc)
		}
		s.DeleteRoom("nowhere")
		s.DeleteRoom("r")
		s.DeleteRoom("r")
		_, ok := s.GetRoom("r")
		assert.False(t, ok)
		assert.Zero(t, s.GetRoomCount())
		require.ErrorIs(t, s.BroadcastToRoom("r", []byte("no"), nil), ws.ErrRoomNotFound)
		for i, c := range clients {
			assert.Empty(t, c.GetRooms())
			assert.False(t, c.IsClosed())
			require.NoError(t, c.JoinRoom("r"))
			require.NoError(t, c.SendBytes([]byte("still here")))
			conns[i].expect("still here")
		}
		assert.Len(t, s.GetRoomMembers("r"), 10)
	})
}

// A client that is gone is in no room.
func TestDisconnectLeavesRooms(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		c, sc := s.dialClient(w)
		stays, staysClient := s.dialClient(w)
		for i := range 20 {
			require.NoError(t, sc.JoinRoom(fmt.Sprint(i)))
		}
		require.NoError(t, staysClient.JoinRoom("0"))
		c.abort()
		eventually(t, func() bool { return len(s.GetRoomMembers("0")) == 1 }, "still a member")
		eventually(t, func() bool { return s.GetClientCount() == 1 }, "still connected")
		for i := range 20 {
			assert.NotContains(t, s.GetRoomMembers(fmt.Sprint(i)), sc)
		}
		assert.Empty(t, sc.GetRooms())
		assert.Equal(t, 1, s.GetRoomCount(), "the rooms of that client alone have ended")
		require.NoError(t, s.BroadcastToRoom("0", []byte("hi"), nil))
		stays.expect("hi")
	})
}

func TestEmptyRoomTTL(t *testing.T) {
	s := start(t, func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = 5*time.Millisecond, 50*time.Millisecond
	})
	began := time.Now()
	_, err := s.CreateRoom("never used", nil)
	require.NoError(t, err)
	c, sc := s.dialClient(native)
	for _, room := range []string{"used", "left"} {
		_, err := s.CreateRoom(room, nil)
		require.NoError(t, err)
		require.NoError(t, sc.JoinRoom(room))
	}
	eventually(t, func() bool { _, ok := s.GetRoom("never used"); return !ok }, "the room stays")
	assert.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
	left := time.Now()
	sc.LeaveRoom("left")
	eventually(t, func() bool { _, ok := s.GetRoom("left"); return !ok }, "the room stays")
	assert.GreaterOrEqual(t, time.Since(left), 50*time.Millisecond)
	assert.Equal(t, 1, s.GetRoomCount(), "a room with a member stays")
	c.abort()
	eventually(t, func() bool { return s.GetRoomCount() == 0 }, "the room stays")
}

// A member that does not read loses messages, is not closed, and holds nobody up.
func TestSlowMember(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		const queue, n = 16, 200
		s := start(t, ws.WithMessageQueueSize(queue), withDeepQueue)
		slow, slowClient := s.dialClient(w)
		fast, fastClient := s.dialClient(w)
		require.NoError(t, slowClient.JoinRoom("r"))
		require.NoError(t, fastClient.JoinRoom("r"))
		s.stall(slowClient)
		for i := range n {
			text := fmt.Sprint("message ", i)
			require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
			fast.expect(text)
		}
		eventually(t, func() bool { return s.Stats().Total.Drops.Full == n-(queue-1) }, "dropped %d", s.Stats().Total.Drops.Full)
		assert.False(t, slowClient.IsClosed())
		slow.expect(bigMessage)
		for i := range queue - 1 {
			slow.expect(fmt.Sprint("message ", i))
		}
		eventually(t, func() bool { return slowClient.QueuedBytes() == 0 }, "not drained")
		require.NoError(t, s.BroadcastToRoom("r", []byte("again"), nil))
		slow.expect("again")
	})
}

func TestBroadcastTimeout(t *testing.T) {
	s := start(t, oneBlockingLoop, func(c *ws.Config) {
		c.Broadcast.QueueSize, c.Broadcast.Timeout = 8, 50*time.Millisecond
	})
	metrics := s.dial(native)
	c, sc := s.dialClient(native)
	require.NoError(t, sc.JoinRoom("r"))
	release := s.blockLoop(metrics)
	var sent int
	var err error
	var waited time.Duration
	for err == nil && sent < 100 {
		began := time.Now()
		if err = s.BroadcastToRoom("r", fmt.Append(nil, sent), nil); err == nil {
			sent++
		}
		waited = time.Since(began)
	}
	require.ErrorIs(t, err, ws.ErrBroadcastTimeout)
	assert.GreaterOrEqual(t, waited, 50*time.Millisecond)
	assert.LessOrEqual(t, sent, 8)
	require.ErrorIs(t, s.BroadcastPrepared("r", ws.Prepare(ws.OpText, nil), nil), ws.ErrBroadcastTimeout)
	require.ErrorIs(t, sc.SendBytes([]byte("x")), ws.ErrChannelFull)
	dropped := s.Stats().Total.Drops.Full
	s.BroadcastAll([]byte("x")) // gives up, too
	assert.LessOrEqual(t, dropped, s.Stats().Total.Drops.Full)
	done := make(chan struct{})
	go func() { // these wait, as nothing may be lost
		defer close(done)
		sc.LeaveRoom("r")
	}()
	release()
	for i := range sent {
		c.expect(fmt.Sprint(i))
	}
	receive(t, done, "LeaveRoom did not return")
	require.NoError(t, sc.SendBytes([]byte("after")))
	c.expect("after")
}

// On an event loop a publisher never waits, and what it may not lose is kept.
func TestPublishFromTheLoop(t *testing.T) {
	s := start(t, oneBlockingLoop, func(c *ws.Config) {
		c.Broadcast.QueueSize, c.MessageQueueSize = 8, 1000
	})
	type result struct {
		sent int
		err  error
		took time.Duration
	}
	results := make(chan result, 1)
	require.NoError(t, s.Register("flood", func(c *ws.Client, _ *ws.Message) error {
		began := time.Now()
		if err := c.JoinRoom("r"); err != nil {
			return err
		}
		var r result
		for r.err == nil && r.sent < 5000 {
			if r.err = c.SendBytes(fmt.Append(nil, "direct ", r.sent)); r.err != nil {
				break
			}
			if r.err = s.BroadcastToRoom("r", fmt.Append(nil, "room ", r.sent), nil); r.err == nil {
				r.sent++
			}
		}
		c.LeaveRoom("r")
		c.CloseWithCode(4000, "done")
		r.took = time.Since(began)
		results <- r
		return nil
	}))
	c := s.dial(native)
	c.send(request("flood", "1", ""))
	r := receive(t, results, "the handler did not return")
	require.ErrorIs(t, r.err, ws.ErrChannelFull)
	assert.Less(t, r.took, 2*time.Second)
	assert.Positive(t, r.sent)
	for i := range r.sent {
		c.expect(fmt.Sprint("direct ", i), fmt.Sprint("room ", i))
	}
	c.expectClose(4000)
}
