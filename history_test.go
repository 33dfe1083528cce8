package ws_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// startHistory starts a server whose clients may join any room with ws.join; a missing room gets
// the history.
func startHistory(t *testing.T, h ws.History, opts ...ws.Option) *harness.Server {
	s := harness.Start(t, opts...)
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		return []ws.RoomOption{ws.WithHistory(h)}, nil
	}))
	return s
}

// dialMember connects a client that has not joined yet.
func dialMember(s *harness.Server, w harness.Way, room string) *harness.Member {
	return &harness.Member{Client: s.Dial(w), Room: room}
}

// publishSome publishes the numbers first to last as the messages of these offsets.
func publishSome(t *testing.T, s *harness.Server, room string, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		at, err := s.PublishEvent(context.Background(), room, "n", i)
		require.NoError(t, err)
		require.EqualValues(t, i, at.Offset)
	}
}

func TestHistoryLive(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startHistory(t, ws.History{})
		m := dialMember(s, w, "r")
		require.Zero(t, m.Join(""))
		at, err := s.RoomPosition("r")
		require.NoError(t, err)
		require.Equal(t, m.Position, at)
		publishSome(t, s, "r", 1, 3)
		for i := 1; i <= 3; i++ {
			msg := m.Take()
			assert.Equal(t, "n", msg.Event)
			assert.Equal(t, "notify", msg.Type)
			assert.Equal(t, fmt.Sprint(i), string(msg.Data))
			assert.InDelta(t, time.Now().Unix(), msg.Timestamp, 60)
		}
		require.NoError(t, s.BroadcastToRoom("r", []byte("raw"), nil))
		m.Expect("raw")
		m.Send(harness.Request("ws.leave", "l", `{"room":"r"}`))
		m.ExpectReply("l", 200, "success")
		publishSome(t, s, "r", 4, 5)
		assert.Equal(t, 2, m.Rejoin())
		m.TakeUpTo(5)
		assert.Empty(t, m.Gaps)
	})
}

func TestHistoryResume(t *testing.T) {
	s := startHistory(t, ws.History{Size: 10})
	first := dialMember(s, harness.Native, "r")
	first.Join("")
	publishSome(t, s, "r", 1, 25) // 16 to 25 are kept
	first.TakeUpTo(25)
	epoch := first.Position.Epoch
	at := func(offset uint64) string { return fmt.Sprintf(`"since":{"epoch":%q,"offset":%d}`, epoch, offset) }
	gap := func(after, next uint64, reason ws.GapReason) []ws.RoomGap {
		return []ws.RoomGap{{Room: "r", Epoch: epoch, After: after, Next: next, Reason: reason}}
	}
	for _, tt := range []struct {
		name, fields string
		from         ws.Position // of the member before
		replaying    int
		gaps         []ws.RoomGap
	}{
		{"live", ``, ws.Position{}, 0, nil},
		{"the head", at(25), ws.Position{Epoch: epoch, Offset: 25}, 0, nil},
		{"one missed", at(24), ws.Position{Epoch: epoch, Offset: 24}, 1, nil},
		{"all that are kept", at(15), ws.Position{Epoch: epoch, Offset: 15}, 10, nil},
		{"strict", `"strict":true,` + at(15), ws.Position{Epoch: epoch, Offset: 15}, 10, nil},
		{"too many missed", at(14), ws.Position{Epoch: epoch, Offset: 14}, 10, gap(14, 16, ws.GapExpired)},
		{"from the beginning", at(0), ws.Position{Epoch: epoch}, 10, gap(0, 16, ws.GapExpired)},
		{"beyond the head", at(26), ws.Position{Epoch: epoch, Offset: 26}, 0, gap(26, 26, ws.GapEpoch)},
		{"huge", at(1<<64 - 1), ws.Position{Epoch: epoch, Offset: 1}, 0, gap(1<<64-1, 26, ws.GapEpoch)},
		{"another epoch", `"since":{"epoch":"other","offset":20}`, ws.Position{Epoch: "other"}, 0, gap(20, 26, ws.GapEpoch)},
		{"last", `"last":3`, ws.Position{}, 3, nil},
		{"more than are kept", `"last":1000000000000`, ws.Position{}, 10, nil},
		{"since and last", `"last":3,` + at(20), ws.Position{Epoch: epoch, Offset: 20}, 5, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, w := range []harness.Way{harness.Native, harness.NetHTTP} {
				m := dialMember(s, w, "r")
				m.T, m.Position = t, tt.from
				require.Equal(t, tt.replaying, m.Join(tt.fields))
				if tt.gaps != nil {
					m.Take()
				}
				m.TakeUpTo(25)
				assert.Len(t, m.Got, tt.replaying)
				assert.Equal(t, tt.gaps, m.Gaps)
				assert.Equal(t, epoch, m.Position.Epoch)
			}
		})
	}
}

func TestHistoryBadRequests(t *testing.T) {
	s := startHistory(t, ws.History{Size: 2})
	other := dialMember(s, harness.Native, "r")
	other.Join("")
	publishSome(t, s, "r", 1, 5)
	other.TakeUpTo(5)
	c := s.Dial(harness.Native)
	long := strings.Repeat("x", 257)
	for i, tt := range []struct {
		data    string
		code    int
		message string
	}{
		{``, 400, "invalid data: room is missing"},
		{`{"room":""}`, 400, "invalid data: room is missing"},
		{`{"room":"` + long + `"}`, 400, "room ID too long"},
		{`{"room":"r","last":-1}`, 400, "invalid data: last must not be negative"},
		{`{"room":"r","last":1e99}`, 400, ""},
		{`{"room":"r","since":{"epoch":"e","offset":-1}}`, 400, ""},
		{`{"room":"r","since":{"epoch":"e","offset":18446744073709551616}}`, 400, ""},
		{`{"room":"r","since":{"epoch":"e","offset":1.5}}`, 400, ""},
		{`{"room":"r","since":{"offset":1}}`, 400, "invalid data: since.epoch is missing"},
		{`{"room":"r","since":7}`, 400, ""},
		{`{"room":7}`, 400, ""},
		{`{"room":"r","strict":true,"since":{"epoch":"e","offset":1}}`, 409, "position lost"},
		{`{"room":"r","strict":true,"since":{"epoch":"` + other.Position.Epoch + `","offset":2}}`, 409, "position lost"},
		{`{"room":"r"}`, 200, ""},
		{`{"room":"r"}`, 409, "already in room"},
	} {
		c.Send(harness.Request("ws.join", fmt.Sprint(i), tt.data))
		c.ExpectReply(fmt.Sprint(i), tt.code, tt.message)
	}
	publishSome(t, s, "r", 6, 6)
	other.TakeUpTo(6)
}

func TestHandleJoinAuthorizes(t *testing.T) {
	s := harness.Start(t)
	require.ErrorIs(t, ws.HandleJoin(s.Manager, nil), ws.ErrInvalidConfig)
	require.NoError(t, ws.HandleJoin(s.Manager, func(_ *ws.Client, room string) ([]ws.RoomOption, error) {
		if room == "secret" {
			return nil, ws.NewClientError(403, "not for you")
		}
		return nil, nil
	}))
	m := dialMember(s, harness.Native, "secret")
	m.Send(harness.Request("ws.join", "1", `{"room":"secret"}`))
	m.ExpectReply("1", 403, "not for you")
	assert.Zero(t, s.GetRoomCount())

	// A room without a history.
	m.Room = "open"
	require.Zero(t, m.Join(""))
	at, err := s.PublishEvent(context.Background(), "open", "n", 1)
	require.NoError(t, err)
	assert.Zero(t, at)
	msg := m.ReadEnvelope()
	assert.Equal(t, "n", msg.Event)
	other := dialMember(s, harness.NetHTTP, "open")
	other.Join(`"since":{"epoch":"gone","offset":5}`)
	other.Take()
	assert.Equal(t, []ws.RoomGap{{Room: "open", After: 5, Next: 1, Reason: ws.GapEpoch}}, other.Gaps)
	strict := s.Dial(harness.Native)
	strict.Send(harness.Request("ws.join", "1", `{"room":"none","since":{"epoch":"gone","offset":5},"strict":true}`))
	strict.ExpectReply("1", 409, "position lost")
	_, ok := s.GetRoom("none")
	assert.False(t, ok)
}

func TestHistoryOptions(t *testing.T) {
	s := harness.Start(t)
	for _, opts := range [][]ws.RoomOption{
		{ws.WithHistory(ws.History{Size: -1})},
		{ws.WithHistory(ws.History{Size: 1<<20 + 1})},
		{ws.WithHistory(ws.History{}), ws.WithRoomOverflowPolicy(ws.DropOldest)},
		{ws.WithRoomOverflowPolicy(ws.CatchUp)},
	} {
		_, err := s.CreateRoom("r", nil, opts...)
		require.ErrorIs(t, err, ws.ErrInvalidConfig)
	}
	_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{}), ws.WithRoomOverflowPolicy(ws.CatchUp))
	require.NoError(t, err)
	_, c := s.DialClient(harness.Native)
	for _, o := range []ws.MessageOption{ws.Exclude(c), ws.ConflateKey("k"), ws.TTL(time.Second), ws.HighPriority()} {
		_, err = s.PublishEvent(context.Background(), "r", "n", 1, o)
		require.ErrorIs(t, err, ws.ErrHistoryOption)
	}
	_, err = s.PublishEvent(context.Background(), "r", "n", make(chan int))
	require.ErrorContains(t, err, "encode data")
	_, err = s.PublishEvent(context.Background(), "none", "n", 1)
	require.ErrorIs(t, err, ws.ErrRoomNotFound)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = s.PublishEvent(ended, "r", "n", 1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.RoomPosition("none")
	require.ErrorIs(t, err, ws.ErrRoomNotFound)
	at, err := s.RoomPosition("r")
	require.NoError(t, err)
	require.Zero(t, at.Offset, "nothing was kept")
}

// A room that is deleted and begins again has another epoch.
func TestHistoryEndsWithItsRoom(t *testing.T) {
	s := startHistory(t, ws.History{})
	m := dialMember(s, harness.Native, "r")
	m.Join("")
	publishSome(t, s, "r", 1, 3)
	m.TakeUpTo(3)
	old := m.Position
	s.DeleteRoom("r")
	stats := s.Stats()
	assert.Zero(t, stats.Histories)
	assert.Zero(t, stats.HistoryMemory)
	require.Zero(t, m.Rejoin())
	m.Take()
	require.Len(t, m.Gaps, 1)
	assert.Equal(t, ws.GapEpoch, m.Gaps[0].Reason)
	assert.NotEqual(t, old.Epoch, m.Position.Epoch)
	publishSome(t, s, "r", 1, 2)
	m.TakeUpTo(2)
}

// stall lets the socket of a member fill: the server's queue for it fills, and it falls behind.
func stall(t *testing.T, m *harness.Member) {
	t.Helper()
	require.NoError(t, m.Conn.(*net.TCPConn).SetReadBuffer(64<<10))
}

// smallBuffers makes sockets fill soon.
func smallBuffers(c *ws.Config) { c.SendBuffer, c.MessageQueueSize, c.UnsentBytes = 32<<10, 20, 4096 }

// flood publishes messages of 4 KB to a member that reads, and to others that stall, and waits until
// they are blocked.
func flood(t *testing.T, s *harness.Server, fast *harness.Member, messages int) {
	t.Helper()
	text := strings.Repeat("x", 4000)
	for range messages {
		_, err := s.PublishEvent(context.Background(), fast.Room, "n", text)
		require.NoError(t, err)
		fast.Take()
	}
	harness.Eventually(t, func() bool { return s.Stats().Total.Blocked > 0 }, "nobody is blocked")
}

// oneLoop lets all members of a room get a message before anyone gets the next one.
func oneLoop(c *ws.Config) { c.Loops = 1 }

// TestCatchUp has a member stall while all it misses is kept: it loses nothing.
func TestCatchUp(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startHistory(t, ws.History{Size: 1000, Bytes: 64 << 20}, smallBuffers, oneLoop)
		slow, fast := dialMember(s, w, "r"), dialMember(s, w, "r")
		stall(t, slow)
		slow.Join("")
		fast.Join("")
		const messages = 500
		flood(t, s, fast, messages)
		require.Less(t, s.Stats().Total.QueuedMemory, int64(messages*4000/10), "its queue stays short")
		slow.TakeUpTo(messages)
		assert.Empty(t, slow.Gaps)
		publishSome(t, s, "r", messages+1, messages+5)
		slow.TakeUpTo(messages + 5)
		fast.TakeUpTo(messages + 5)
		harness.Eventually(t, func() bool { return s.Stats().Replayed > 0 }, "nothing is read from the history")
		stats := s.Stats()
		assert.Zero(t, stats.Total.Drops)
		assert.Zero(t, stats.Gaps)
	})
}

// TestCatchUpBeyondTheWindow has a member stall for longer than messages are kept.
func TestCatchUpBeyondTheWindow(t *testing.T) {
	s := startHistory(t, ws.History{Size: 10}, smallBuffers, oneLoop)
	var mu sync.Mutex
	var events []ws.RoomGap
	s.Subscribe(ws.EventRoomGap, func(e ws.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e.Data.(ws.RoomGap))
	})
	slow, fast := dialMember(s, harness.Native, "r"), dialMember(s, harness.Native, "r")
	stall(t, slow)
	slow.Join("")
	fast.Join("")
	const messages = 500
	flood(t, s, fast, messages)
	slow.TakeUpTo(messages)
	require.NotEmpty(t, slow.Gaps)
	assert.Equal(t, ws.GapSlow, slow.Gaps[0].Reason)
	harness.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(events) == len(slow.Gaps)
	}, "an event for each gap")
	assert.Equal(t, slow.Gaps, events)
	assert.EqualValues(t, len(slow.Gaps), s.Stats().Gaps)
	assert.Zero(t, s.Stats().Total.Drops)
}

// TestHistoryBudget keeps the memory of many rooms within the budget.
func TestHistoryBudget(t *testing.T) {
	const budget = 200_000
	s := startHistory(t, ws.History{}, func(c *ws.Config) { c.HistoryBudget = budget })
	text := strings.Repeat("x", 500)
	for room := range 20 {
		id := fmt.Sprint("r", room)
		_, err := s.CreateRoom(id, nil, ws.WithHistory(ws.History{}))
		require.NoError(t, err)
		for range 50 {
			_, err := s.PublishEvent(context.Background(), id, "n", text)
			require.NoError(t, err)
			require.LessOrEqual(t, s.Stats().HistoryMemory, int64(budget))
		}
	}
	stats := s.Stats()
	assert.Equal(t, 20, stats.Histories)
	assert.Greater(t, stats.HistoryMemory, int64(budget/2))
	assert.Greater(t, stats.HistoryEvicted, uint64(500))
	m := dialMember(s, harness.Native, "r0")
	at, err := s.RoomPosition("r0")
	require.NoError(t, err)
	m.Position = ws.Position{Epoch: at.Epoch}
	m.Rejoin()
	m.TakeUpTo(50)
	require.Len(t, m.Gaps, 1)
	assert.Equal(t, ws.GapExpired, m.Gaps[0].Reason)
}

func TestTypedEvents(t *testing.T) {
	type price struct {
		Cents int `json:"cents"`
	}
	s := startHistory(t, ws.History{})
	changed := ws.DefineEvent[price](s.Manager, "price.changed")
	m := dialMember(s, harness.Native, "r")
	m.Join("")
	at, err := changed.Publish(context.Background(), "r", price{7})
	require.NoError(t, err)
	msg := m.Take()
	assert.Equal(t, []any{"price.changed", `{"cents":7}`, at.Offset}, []any{msg.Event, string(msg.Data), msg.Offset})
	for _, c := range s.GetRoomMembers("r") {
		require.NoError(t, changed.Send(c, price{8}))
	}
	e := m.ReadEnvelope()
	assert.Equal(t, []string{"notify", "price.changed", `{"cents":8}`}, []string{e.Type, e.Event, string(e.Data)})
	wrong := ws.DefineEvent[chan int](s.Manager, "wrong")
	require.Error(t, wrong.Send(s.GetRoomMembers("r")[0], nil))
}

// TestHistoryOfAnUnusedRoom has a client join many rooms in which nobody publishes: none stays.
func TestHistoryOfAnUnusedRoom(t *testing.T) {
	s := startHistory(t, ws.History{})
	m := dialMember(s, harness.Native, "used")
	m.Join("")
	publishSome(t, s, "used", 1, 1)
	m.Take()
	for i := range 50 {
		other := &harness.Member{Client: m.Client, Room: fmt.Sprint(i)}
		other.Join("")
		m.Send(harness.Request("ws.leave", "l", `{"room":"`+other.Room+`"}`))
		m.ExpectReply("l", 200, "success")
	}
	for i := range 50 { // a join that is refused creates no room that stays
		m.Send(harness.Request("ws.join", "s", fmt.Sprintf(
			`{"room":"refused %d","since":{"epoch":"gone","offset":1},"strict":true}`, i)))
		m.ExpectReply("s", 409, "position lost")
	}
	_, err := s.CreateRoom("created", nil, ws.WithHistory(ws.History{}))
	require.NoError(t, err)
	m.Room, m.Position = "created", ws.Position{}
	m.Join("")
	m.Close()
	harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "the client has gone")
	assert.Equal(t, 2, s.GetRoomCount(), "a room of CreateRoom, and one with messages, stay")
	assert.Equal(t, 2, s.Stats().Histories)
}

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
func (s *simRoom) member(peer int, from ws.Position, room ...string) *harness.Member {
	s.t.Helper()
	s.net.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &harness.Member{Room: cmp.Or(append(room, "r")...), Position: from}
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
	harness.Eventually(t, func() bool { return s.Stats().Histories == 0 }, "the history has not ended")
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
