package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// simRoom is a manager on a simulated network, whose peers keep their messages.
type simRoom struct {
	*ws.Manager
	t   *testing.T
	net *ws.Simnet

	mu       sync.Mutex
	received map[int][]string // by peer
}

// startSim starts a manager with peers that have connected.
func startSim(t *testing.T, peers int, opts ...ws.Option) *simRoom {
	s := &simRoom{t: t, net: ws.NewSimnet(), received: make(map[int][]string)}
	s.net.OnFrame = func(peer int, frame []byte) {
		if op, payload := codec.SplitFrame(frame); !op.IsControl() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.received[peer] = append(s.received[peer], string(payload))
		}
	}
	s.Manager = harness.NewManager(t, append(opts, ws.WithHandlerMode(ws.Inline), ws.WithLoops(1), func(c *ws.Config) {
		c.Simnet, c.ListenAddr, c.MessageQueueSize, c.WriteTimeout = s.net, "", 4, 1000*time.Hour
	})...)
	run := make(chan error, 1)
	go func() { run <- s.Run() }()
	t.Cleanup(func() {
		harness.Shutdown(t, s.Manager)
		require.NoError(t, harness.Receive(t, run, "Run did not return"))
	})
	for i := range peers {
		s.net.Connect(1, []byte(harness.UpgradeRequest("/ws?id="+fmt.Sprint(i), "")))
		s.net.Wait()
	}
	harness.Eventually(t, func() bool { return s.GetClientCount() == peers }, "not all have connected")
	s.net.Wait()
	return s
}

// sleep moves the time, in steps of a second.
func (s *simRoom) sleep(d time.Duration) {
	for range d / time.Second {
		s.net.Advance(time.Second)
		s.net.Wait()
	}
}

// join lets the client of a peer join the room r.
func (s *simRoom) join(peer int, since ws.Since) ws.Joined {
	s.t.Helper()
	c, ok := s.GetClient(fmt.Sprint(peer))
	require.True(s.t, ok)
	joined, err := c.JoinRoomFrom("r", since)
	require.NoError(s.t, err)
	s.net.Wait()
	return joined
}

// member follows the messages that a peer has received.
func (s *simRoom) member(peer int, from ws.Position) *harness.Member {
	s.t.Helper()
	s.net.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &harness.Member{Room: "r", Position: from}
	for _, payload := range s.received[peer] {
		_, err := m.Follow([]byte(payload))
		require.NoError(s.t, err, "%s", payload)
	}
	return m
}

func byID(c *ws.Config) { c.Authenticate = harness.ByQuery }

// The TTL of messages ends in the middle of a replay: gaps name exactly the expired messages.
func TestTTLEndsWithinReplay(t *testing.T) {
	s := startSim(t, 2, byID)
	_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{TTL: 100 * time.Second}))
	require.NoError(t, err)
	start := s.join(0, ws.Since{}).Position
	s.net.Stall(0)
	for range 20 { // message n at second n-1
		_, err := s.PublishEvent(context.Background(), "r", "n", 1)
		require.NoError(t, err)
		s.sleep(time.Second)
	}
	s.sleep(85 * time.Second) // 105: up to 6 have expired
	s.net.Stall(1)
	joined := s.join(1, ws.Since{Position: start})
	assert.Equal(t, []any{14, true, uint64(20)}, []any{joined.Replaying, joined.Lost, joined.Position.Offset})
	s.net.Resume(0)
	m := s.member(0, start)
	require.Len(t, m.Gaps, 1)
	g := m.Gaps[0]
	assert.Less(t, g.After, uint64(6))
	assert.Equal(t, []any{uint64(7), ws.GapSlow}, []any{g.Next, g.Reason})
	assert.True(t, tiles(m, 1, 20))
	assert.EqualValues(t, 20, m.Position.Offset)

	s.sleep(7 * time.Second) // 112: up to 13 have expired
	s.net.Resume(1)
	m = s.member(1, start)
	require.Len(t, m.Gaps, 2)
	assert.Equal(t, ws.RoomGap{Room: "r", Epoch: start.Epoch, After: 0, Next: 7, Reason: ws.GapExpired}, m.Gaps[0])
	g = m.Gaps[1]
	assert.Less(t, g.After, uint64(13))
	assert.Equal(t, []any{uint64(14), ws.GapSlow}, []any{g.Next, g.Reason})
	assert.True(t, tiles(m, 1, 20))
	assert.EqualValues(t, 20, m.Position.Offset)
	assert.EqualValues(t, 3, s.Stats().Gaps)
}

// A room with a history outlives its last member for the TTL of the history, if that is longer than
// EmptyRoomTTL. After that it begins with a new epoch.
func TestEmptyRoomStaysForItsHistory(t *testing.T) {
	const ttl = 200 * time.Millisecond
	s := startHistory(t, ws.History{TTL: ttl}, func(c *ws.Config) {
		c.Room.EmptyRoomTTL, c.Room.CleanupInterval = time.Millisecond, time.Millisecond
	})
	m := dialMember(s, harness.Native, "r")
	m.Join("")
	publishSome(t, s, "r", 1, 1)
	m.TakeUpTo(1)
	old, left := m.Position, time.Now()
	m.Send(harness.Request("ws.leave", "leave", `{"room":"r"}`))
	m.ExpectReply("leave", 200, "success")
	harness.Eventually(t, func() bool { return s.GetRoomCount() == 0 }, "the room has not ended")
	assert.GreaterOrEqual(t, time.Since(left), ttl)
	assert.Zero(t, s.Stats().Histories)
	m.Rejoin()
	m.Take()
	require.Len(t, m.Gaps, 1)
	assert.Equal(t, ws.GapEpoch, m.Gaps[0].Reason)
	assert.NotEqual(t, old.Epoch, m.Position.Epoch)
}

// Messages that are not of the history reach each member at most once and in order, while members
// that are behind catch up and others end.
func TestBroadcastWhileMembersCatchUp(t *testing.T) {
	peers := harness.FewerUnderRace(1500)
	const broadcasts = 150
	s := startSim(t, peers, byID)
	_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{}))
	require.NoError(t, err)
	for i := range peers {
		s.join(i, ws.Since{})
		s.net.Stall(i)
	}
	for i := range 20 {
		_, err := s.PublishEvent(context.Background(), "r", "n", i)
		require.NoError(t, err)
	}
	s.net.Wait()
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := range broadcasts {
			assert.NoError(t, s.BroadcastToRoom("r", fmt.Appendf(nil, `{"raw":%d}`, i+1), nil))
		}
	})
	for i := range peers {
		s.net.Resume(i)
		if i%10 == 0 {
			s.net.HangUp(i)
		}
	}
	publisher.Wait()
	s.net.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer, messages := range s.received {
		last := 0
		for _, payload := range messages {
			var msg struct{ Raw int }
			require.NoError(t, json.Unmarshal([]byte(payload), &msg))
			if msg.Raw > 0 {
				require.Greater(t, msg.Raw, last, "peer %d", peer)
				last = msg.Raw
			}
		}
	}
}
