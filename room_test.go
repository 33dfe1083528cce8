package ws_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestRooms(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
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

		_, a := s.DialClient(w)
		_, b := s.DialClient(w)
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
	s := harness.Start(t, func(c *ws.Config) { c.Room.MaxRoomSize = 2 })
	_, a := s.DialClient(harness.Native)
	_, b := s.DialClient(harness.NetHTTP)
	_, c := s.DialClient(harness.Native)
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
	s := harness.Start(t, func(c *ws.Config) { c.Room.MaxRoomSize = limit })
	clients := make([]*ws.Client, guests)
	for i := range clients {
		_, clients[i] = s.DialClient([]harness.Way{harness.Native, harness.NetHTTP}[i%2])
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
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery), ws.WithLoops(3))
		const n = 8
		var conns []*harness.Client
		var clients []*ws.Client
		for i := range n { // devices of users 0 (nobody), 1, 2, 3
			c, sc := s.DialClient(w, fmt.Sprint("user=", i%4))
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
						f := c.Next()
						require.Equal(t, "a message", string(f.Payload), "client %d", i)
						require.Equal(t, tt.name == "BroadcastPrepared", f.Header.OpCode == gobwas.OpBinary)
					}
					c.Expect("fence")
				}
			})
		}
		require.ErrorIs(t, s.BroadcastToRoom("nowhere", payload, nil), ws.ErrRoomNotFound)
		require.ErrorIs(t, s.BroadcastPrepared("nowhere", ws.Prepare(ws.OpText, nil), nil), ws.ErrRoomNotFound)
		_, err := s.CreateRoom("empty", nil)
		require.NoError(t, err)
		require.NoError(t, s.BroadcastToRoom("empty", payload, nil))

		// A device that went away is no device any more.
		conns[3].Abort()
		harness.Eventually(t, func() bool { return s.GetClientCount() == n-1 }, "still connected")
		s.BroadcastToUser(3, []byte("to the rest"))
		conns[7].Expect("to the rest")
		conns[7].Abort()
		harness.Eventually(t, func() bool { return s.GetClientCount() == n-2 }, "still connected")
		s.BroadcastToUser(3, []byte("to nobody"))
		_, again := s.DialClient(w, "user=3")
		assert.Equal(t, int64(3), again.UserID)
	})
}

// Messages that are published between JoinRoom and LeaveRoom or DeleteRoom are delivered, and no
// others, also while the event loop is behind.
func TestPublishOrder(t *testing.T) {
	steps := map[string]func(s *harness.Server, c *ws.Client){
		"join":    func(s *harness.Server, c *ws.Client) { assert.NoError(s.T, c.JoinRoom("r")) },
		"leave":   func(_ *harness.Server, c *ws.Client) { c.LeaveRoom("r") },
		"delete":  func(s *harness.Server, _ *ws.Client) { s.DeleteRoom("r") },
		"create":  func(s *harness.Server, _ *ws.Client) { _, err := s.CreateRoom("r", nil); assert.NoError(s.T, err) },
		"publish": func(s *harness.Server, _ *ws.Client) { assert.NoError(s.T, s.BroadcastToRoom("r", []byte("yes"), nil)) },
		"useless": func(s *harness.Server, _ *ws.Client) { assert.NoError(s.T, s.BroadcastToRoom("r", []byte("no"), nil)) },
		"send":    func(s *harness.Server, c *ws.Client) { assert.NoError(s.T, c.SendBytes([]byte("yes"))) },
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
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			run := func(t *testing.T, behind bool) {
				s := harness.Start(t, harness.OneBlockingLoop)
				_, err := s.CreateRoom("r", nil)
				require.NoError(t, err)
				blocker := s.Dial(w)
				c, sc := s.DialClient(w)
				release := func() {}
				if behind {
					release = s.BlockLoop(blocker)
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
					text := string(c.Next().Payload)
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
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		var conns []*harness.Client
		var clients []*ws.Client
		for range 10 {
			c, sc := s.DialClient(w)
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
			conns[i].Expect("still here")
		}
		assert.Len(t, s.GetRoomMembers("r"), 10)
	})
}

// A client that is gone is in no room.
func TestDisconnectLeavesRooms(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		c, sc := s.DialClient(w)
		stays, staysClient := s.DialClient(w)
		for i := range 20 {
			require.NoError(t, sc.JoinRoom(fmt.Sprint(i)))
		}
		require.NoError(t, staysClient.JoinRoom("0"))
		c.Abort()
		harness.Eventually(t, func() bool { return len(s.GetRoomMembers("0")) == 1 }, "still a member")
		harness.Eventually(t, func() bool { return s.GetClientCount() == 1 }, "still connected")
		for i := range 20 {
			assert.NotContains(t, s.GetRoomMembers(fmt.Sprint(i)), sc)
		}
		assert.Empty(t, sc.GetRooms())
		assert.Equal(t, 1, s.GetRoomCount(), "the rooms of that client alone have ended")
		require.NoError(t, s.BroadcastToRoom("0", []byte("hi"), nil))
		stays.Expect("hi")
	})
}

func TestEmptyRoomTTL(t *testing.T) {
	const ttl = time.Second // longer than a busy machine needs between CreateRoom and JoinRoom
	s := harness.Start(t, func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = 5*time.Millisecond, ttl
	})
	began := time.Now()
	_, err := s.CreateRoom("never used", nil)
	require.NoError(t, err)
	c, sc := s.DialClient(harness.Native)
	for _, room := range []string{"used", "left"} {
		_, err := s.CreateRoom(room, nil)
		require.NoError(t, err)
		require.NoError(t, sc.JoinRoom(room))
	}
	harness.Eventually(t, func() bool { _, ok := s.GetRoom("never used"); return !ok }, "the room stays")
	assert.GreaterOrEqual(t, time.Since(began), ttl)
	left := time.Now()
	sc.LeaveRoom("left")
	harness.Eventually(t, func() bool { _, ok := s.GetRoom("left"); return !ok }, "the room stays")
	assert.GreaterOrEqual(t, time.Since(left), ttl)
	assert.Equal(t, 1, s.GetRoomCount(), "a room with a member stays")
	c.Abort()
	harness.Eventually(t, func() bool { return s.GetRoomCount() == 0 }, "the room stays")
}

// The TTLs of messages and of empty rooms follow the clock of the engine: on a Simnet the time of
// the wall ends nothing, and a leap of the network's clock does.
func TestTTLsFollowTheClockOfTheEngine(t *testing.T) {
	const ttl = 10 * time.Millisecond
	s := startSim(t, 0, func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = time.Millisecond, ttl
	})
	_, err := s.CreateRoom("plain", nil)
	require.NoError(t, err)
	_, err = s.CreateRoom("r", nil, ws.WithHistory(ws.History{TTL: ttl}))
	require.NoError(t, err)
	_, err = s.PublishEvent(context.Background(), "r", "n", 1)
	require.NoError(t, err)
	kept := s.Stats().HistoryMemory
	began := time.Now()
	harness.Eventually(t, func() bool { return time.Since(began) > 20*ttl }, "the wall clock stands still")
	assert.Equal(t, 2, s.GetRoomCount())
	assert.Equal(t, kept, s.Stats().HistoryMemory)
	s.net.Advance(time.Hour)
	harness.Eventually(t, func() bool { return s.GetRoomCount() == 0 }, "the rooms stay")
	harness.Eventually(t, func() bool { return s.Stats().HistoryMemory == 0 }, "the history has not ended")
}

// A member that does not read loses messages, is not closed, and holds nobody up.
func TestSlowMember(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const queue, n = 16, 200
		s := harness.Start(t, ws.WithMessageQueueSize(queue), harness.WithDeepQueue)
		slow, slowClient := s.DialClient(w)
		fast, fastClient := s.DialClient(w)
		require.NoError(t, slowClient.JoinRoom("r"))
		require.NoError(t, fastClient.JoinRoom("r"))
		s.Stall(slowClient)
		for i := range n {
			text := fmt.Sprint("message ", i)
			require.NoError(t, s.BroadcastToRoom("r", []byte(text), nil))
			fast.Expect(text)
		}
		harness.Eventually(t, func() bool { return s.Stats().Total.Drops.Full == n-(queue-1) },
			"dropped %d", s.Stats().Total.Drops.Full)
		assert.False(t, slowClient.IsClosed())
		slow.Expect(harness.BigMessage)
		for i := range queue - 1 {
			slow.Expect(fmt.Sprint("message ", i))
		}
		harness.Eventually(t, func() bool { return slowClient.QueuedBytes() == 0 }, "not drained")
		require.NoError(t, s.BroadcastToRoom("r", []byte("again"), nil))
		slow.Expect("again")
	})
}

func TestBroadcastTimeout(t *testing.T) {
	s := harness.Start(t, harness.OneBlockingLoop, func(c *ws.Config) {
		c.Broadcast.QueueSize, c.Broadcast.Timeout = 8, 50*time.Millisecond
	})
	metrics := s.Dial(harness.Native)
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	release := s.BlockLoop(metrics)
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
		c.Expect(fmt.Sprint(i))
	}
	harness.Receive(t, done, "LeaveRoom did not return")
	require.NoError(t, sc.SendBytes([]byte("after")))
	c.Expect("after")
}

// On an event loop a publisher never waits, and messages that it may not lose are kept.
func TestPublishFromTheLoop(t *testing.T) {
	s := harness.Start(t, harness.OneBlockingLoop, func(c *ws.Config) {
		c.Broadcast.QueueSize, c.Broadcast.Timeout, c.MessageQueueSize = 8, harness.Patience, 1000
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
	c := s.Dial(harness.Native)
	c.Send(harness.Request("flood", "1", ""))
	r := harness.Receive(t, results, "the handler did not return")
	require.ErrorIs(t, r.err, ws.ErrChannelFull)
	assert.Less(t, r.took, harness.Patience/2)
	assert.Positive(t, r.sent)
	for i := range r.sent {
		c.Expect(fmt.Sprint("direct ", i), fmt.Sprint("room ", i))
	}
	c.ExpectClose(4000)
}

// roomRecorder is a recorder that also hears of the end of rooms.
type roomRecorder struct{ *harness.Recorder }

func (r roomRecorder) RoomEnded(id string) { r.Set("members "+id, -1) }

// Whatever ends a room, the optional second interface of Metrics hears of it last, and
// the bus publishes it.
func TestRoomEnds(t *testing.T) {
	r := roomRecorder{harness.NewRecorder()}
	s := harness.Start(t, ws.WithMetrics(r), func(c *ws.Config) {
		c.Room.CleanupInterval, c.Room.EmptyRoomTTL = 5*time.Millisecond, 50*time.Millisecond
	})
	events := s.Events(ws.EventRoomEnded, ws.EventRoomLeft)
	ended := func(id string, types ...ws.EventType) {
		t.Helper()
		harness.Eventually(t, func() bool { return r.Get("members "+id) == -1 },
			"%s has %d members", id, r.Get("members "+id))
		for _, want := range types {
			e := harness.Receive(t, events, "no %s", want)
			assert.Equal(t, want, e.Type)
			assert.Equal(t, id, e.Data)
			assert.Equal(t, want == ws.EventRoomEnded, e.Client == nil)
		}
	}
	c, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("left"))
	sc.LeaveRoom("left")
	ended("left", ws.EventRoomLeft, ws.EventRoomEnded)
	require.NoError(t, sc.JoinRoom("deleted"))
	s.DeleteRoom("deleted")
	ended("deleted", ws.EventRoomEnded, ws.EventRoomLeft)
	_, err := s.CreateRoom("empty", nil)
	require.NoError(t, err)
	ended("empty", ws.EventRoomEnded)
	require.NoError(t, sc.JoinRoom("empty"))
	harness.Eventually(t, func() bool { return r.Get("members empty") == 1 }, "a room of the same ID")
	c.Abort()
	ended("empty", ws.EventRoomLeft, ws.EventRoomEnded)
}

// A panic in RoomEnded ends there.
func TestRoomEndedThatPanics(t *testing.T) {
	s := harness.Start(t, ws.WithMetrics(panickingRoomMetrics{}))
	_, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	sc.LeaveRoom("r")
	require.NoError(t, sc.JoinRoom("r"))
}

type panickingRoomMetrics struct{ ws.NoopMetrics }

func (panickingRoomMetrics) RoomEnded(string) { panic("metrics") }

// A join that is refused creates no room, not even for a moment.
func TestRefusedJoinCreatesNoRoom(t *testing.T) {
	s := harness.Start(t, ws.WithMaxRoomsPerClient(1))
	ended := s.Events(ws.EventRoomEnded)
	_, sc := s.DialClient(harness.Native)
	require.NoError(t, sc.JoinRoom("r"))
	for i := range 100 {
		require.ErrorIs(t, sc.JoinRoom(fmt.Sprint("another ", i)), ws.ErrTooManyRooms)
	}
	sc.LeaveRoom("r")
	assert.Equal(t, "r", harness.Receive(t, ended, "no event").Data)
}

// No room is created after Shutdown.
func TestCreateRoomAfterShutdown(t *testing.T) {
	s := harness.Start(t)
	s.Stop()
	_, err := s.CreateRoom("r", nil)
	require.ErrorIs(t, err, ws.ErrManagerStopped)
	assert.Zero(t, s.GetRoomCount())
}

// The memory of a room without members does not grow with the event loops.
func TestEmptyRoomMemory(t *testing.T) {
	const rooms = 20_000
	for _, loops := range []int{1, 64, 256} {
		t.Run(fmt.Sprint("loops=", loops), func(t *testing.T) {
			var each int64
			for range 5 { // the rest of another test may take memory meanwhile
				m, err := ws.NewManager(ws.WithLoops(loops), ws.WithRoomShards(64))
				require.NoError(t, err)
				before := liveHeap()
				for i := range rooms {
					_, err := m.CreateRoom(strconv.Itoa(i), nil)
					require.NoError(t, err)
				}
				each = (liveHeap() - before) / rooms
				t.Logf("%d B", each)
				require.Equal(t, rooms, m.GetRoomCount())
				if each < 290 { // 243
					break
				}
			}
			assert.Less(t, each, int64(290))
		})
	}
}

// liveHeap returns the bytes of the heap after garbage collection.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
