package ws_test

import (
	"context"
	"fmt"
	"io"
	"strings"
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

// startInbox starts a server with inboxes, whose clients name their user in the query.
func startInbox(t *testing.T, inbox ws.Inbox, opts ...ws.Option) *harness.Server {
	return startHistory(t, ws.History{}, append([]ws.Option{byID, ws.WithInbox(inbox)}, opts...)...)
}

// dialDevice connects a client of user 42 that has not joined yet.
func dialDevice(s *harness.Server, w harness.Way) *harness.Member {
	return &harness.Member{Client: s.Dial(w, "user=42"), Room: "@user:42"}
}

// publishToInbox publishes the numbers first to last as the messages of these offsets.
func publishToInbox(t *testing.T, s *harness.Server, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		at, err := s.PublishToInbox(context.Background(), "42", "n", i)
		require.NoError(t, err)
		require.EqualValues(t, i, at.Offset)
	}
}

// kept returns the number of messages that the inbox of user 42 keeps. It joins as that device.
func kept(s *harness.Server, device string) int {
	s.T.Helper()
	c := dialDevice(s, harness.Native)
	at, err := s.RoomPosition(c.Room)
	require.NoError(s.T, err)
	c.Position.Epoch = at.Epoch
	n := c.Join(`"device":"` + device + `",` + c.Since())
	c.Send(harness.Request("ws.leave", "l", `{"room":"@user:42"}`))
	takeUntilReply(c, "l")
	c.Close()
	return n
}

// waitForDevices waits until that many clients are in the inbox of user 42.
func waitForDevices(s *harness.Server, n int) {
	s.T.Helper()
	harness.Eventually(s.T, func() bool { return len(s.GetRoomMembers("@user:42")) == n }, "%d devices", n)
}

// An inbox begins while its user is away. Messages come again until they are acknowledged.
func TestInbox(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := startInbox(t, ws.Inbox{}, mode)
		publishToInbox(t, s, 1, 3)
		assert.Equal(t, 1, s.Stats().Inboxes)

		phone := dialDevice(s, w)
		require.Equal(t, 3, phone.Join(`"device":"phone"`))
		phone.TakeUpTo(3)
		phone.Ack("1", 2)
		phone.ExpectReply("1", 200, "success")
		phone.Ack("2", 1) // below the stored one
		phone.ExpectReply("2", 200, "success")
		phone.Close()
		waitForDevices(s, 0)
		publishToInbox(t, s, 4, 5)

		phone = dialDevice(s, w)
		require.Equal(t, 3, phone.Join(`"device":"phone"`))
		phone.TakeUpTo(5)
		assert.Equal(t, []uint64{3, 4, 5}, phone.Got)
		publishToInbox(t, s, 6, 6)
		phone.TakeUpTo(6)
		phone.Ack("", 6) // a notification
		phone.Send(harness.Request("ws.leave", "l", `{"room":"@user:42"}`))
		phone.ExpectReply("l", 200, "success")
		phone.Position = ws.Position{}
		require.Zero(t, phone.Join(`"device":"phone"`))
		assert.EqualValues(t, 6, phone.Position.Offset)
		assert.Zero(t, s.Stats().InvalidAcks)
		assert.Empty(t, phone.Gaps)
	})
}

func TestInboxOfAnotherUser(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startInbox(t, ws.Inbox{})
		for _, tt := range []struct {
			query, room string
			code        int
		}{
			{"user=7", "@user:42", 403},
			{"user=7", "@user:", 403},
			{"user=7", "@user:07", 403},
			{"user=7", "@user:7 ", 403},
			{"id=42", "@user:42", 403},
			{"id=none", "@user:", 403},
			{"username=anna", "@user:Anna", 403},
			{"username=07", "@user:7", 403},
			{"username=07", "@user:07", 200},
			{"username=anna", "@user:anna", 200},
			{"username=8", "@user:8", 200},
			{"user=-9", "@user:-9", 200},
			{"user=7", "@users", 200},
		} {
			c := s.Dial(w, tt.query)
			c.Send(harness.Request("ws.join", "1", `{"room":"`+tt.room+`","device":"d"}`))
			c.ExpectReply("1", tt.code, "")
		}
		assert.Equal(t, 4, s.Stats().Inboxes)
		_, c := s.DialClient(w, "user=7")
		require.ErrorIs(t, c.JoinRoom("@user:42"), ws.ErrForbidden)
		_, err := c.JoinRoomFrom("@user:42", ws.Since{Device: "d"}, ws.WithHistory(ws.History{}))
		require.ErrorIs(t, err, ws.ErrForbidden)
		_, err = c.JoinRoomFrom("@user:7", ws.Since{Device: strings.Repeat("d", 129)})
		require.ErrorIs(t, err, ws.ErrInvalidDevice)
		_, ok := s.GetRoom("@user:42")
		assert.False(t, ok)
		require.NoError(t, c.JoinRoom("@user:7"), "the device of no name")
	})
}

// Without WithInbox there is nothing special about the name.
func TestRoomNamedLikeAnInbox(t *testing.T) {
	s := harness.Start(t, byID)
	_, c := s.DialClient(harness.Native, "user=7")
	require.NoError(t, c.JoinRoom("@user:42"))
	at, err := s.PublishEvent(context.Background(), "@user:42", "n", 1)
	require.NoError(t, err)
	assert.Zero(t, at)
	require.ErrorIs(t, c.Ack("@user:42", 0), ws.ErrInvalidAck)
	_, err = s.PublishToInbox(context.Background(), "42", "n", 1)
	require.ErrorIs(t, err, ws.ErrNoInbox)
	_, err = s.PublishEvent(context.Background(), "@user:7", "n", 1)
	require.ErrorIs(t, err, ws.ErrRoomNotFound)
}

func TestInboxOptions(t *testing.T) {
	for _, inbox := range []ws.Inbox{
		{Size: -1}, {Size: 1<<20 + 1}, {TTL: -1}, {MaxDevices: -1}, {MaxDevices: 257},
	} {
		_, err := ws.NewManager(ws.WithInbox(inbox))
		require.ErrorIs(t, err, ws.ErrInvalidConfig)
		require.ErrorContains(t, err, "Inbox.")
	}
	s := startInbox(t, ws.Inbox{Size: 1 << 20, Bytes: -1, TTL: time.Hour, MaxDevices: 256})
	ctx := context.Background()
	_, err := s.PublishToInbox(ctx, "", "n", 1)
	require.ErrorIs(t, err, ws.ErrNoInbox)
	_, err = s.PublishToInbox(ctx, strings.Repeat("x", 251), "n", 1)
	require.ErrorIs(t, err, ws.ErrInvalidRoom)
	_, err = s.PublishToInbox(ctx, "42", "n", make(chan int))
	require.ErrorContains(t, err, "encode data")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.PublishToInbox(ended, "42", "n", 1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.CreateRoom("@user:", nil)
	require.ErrorIs(t, err, ws.ErrNoInbox)
	_, err = s.CreateRoom("@user:7", nil, ws.WithHistory(ws.History{Size: 1}))
	require.NoError(t, err)
	number := ws.DefineEvent[int](s.Manager, "number")
	for i := range uint64(3) { // CreateRoom has made an inbox
		at, err := number.PublishToInbox(ctx, "7", 1)
		require.NoError(t, err)
		require.Equal(t, i+1, at.Offset)
	}
	conn, c := s.DialClient(harness.Native, "user=7")
	joined, err := c.JoinRoomFrom("@user:7", ws.Since{})
	require.NoError(t, err)
	assert.Equal(t, 3, joined.Replaying)
	require.NoError(t, conn.Close())
	s.Stop()
	_, err = s.PublishToInbox(ctx, "9", "n", 1)
	require.ErrorIs(t, err, ws.ErrManagerStopped)
}

// invalidMetrics counts invalid messages.
type invalidMetrics struct {
	ws.NoopMetrics
	count atomic.Int64
}

func (m *invalidMetrics) IncrementInvalidMessages() { m.count.Add(1) }

// Invalid acknowledgements are answered or counted, and have no effect.
func TestInvalidAcks(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		metrics := &invalidMetrics{}
		s := startInbox(t, ws.Inbox{}, mode, ws.WithMetrics(metrics))
		publishToInbox(t, s, 1, 5)
		c := dialDevice(s, w)
		c.Ack("0", 1)
		c.ExpectReply("0", 400, "invalid ack") // no member yet
		c.Join(`"device":"d"`)
		c.TakeUpTo(5)
		refused := []struct{ data, message string }{
			{`{"room":"@user:42","offset":6}`, "invalid ack"},
			{`{"room":"@user:42","offset":18446744073709551615}`, "invalid ack"},
			{`{"room":"@user:7","offset":1}`, "invalid ack"},
			{`{"room":"r","offset":1}`, "invalid ack"},
			{`{"offset":1}`, "invalid ack"},
			{`{"room":"@user:42"}`, "invalid data: offset is missing"},
			{`{"room":"@user:42","offset":null}`, "invalid data: offset is missing"},
			{`{"room":"@user:42","offset":-1}`, ""},
			{`{"room":"@user:42","offset":18446744073709551616}`, ""},
			{`{"room":"@user:42","offset":1.5}`, ""},
			{`{"room":"@user:42","offset":"3"}`, ""},
			{`{"room":42,"offset":3}`, ""},
			{`7`, ""},
			{``, "invalid data: offset is missing"},
		}
		room := &harness.Member{Client: c.Client, Room: "r"}
		room.Join("") // a room with a history that is no inbox
		for i, tt := range refused {
			c.Send(harness.Request("ws.ack", fmt.Sprint(i), tt.data))
			c.ExpectReply(fmt.Sprint(i), 400, tt.message)
			if tt.data != "" {
				c.Send(`{"type":"notify","event":"ws.ack","data":` + tt.data + `}`)
			}
		}
		c.Ack("last", 0)
		c.ExpectReply("last", 200, "success") // and no other answer
		assert.EqualValues(t, 1+2*5, s.Stats().InvalidAcks)
		assert.EqualValues(t, len(refused)-1, metrics.count.Load())
		c.Position = ws.Position{}
		c.Send(harness.Request("ws.leave", "l", `{"room":"@user:42"}`))
		c.ExpectReply("l", 200, "success")
		c.Ack("after", 5)
		c.ExpectReply("after", 400, "invalid ack")
		assert.Equal(t, 5, c.Join(`"device":"d"`), "nothing was acknowledged")
	})
}

// Two devices read at their own pace, and the slower one decides on the end of the messages.
func TestInboxOfTwoDevices(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startInbox(t, ws.Inbox{})
		phone, laptop := dialDevice(s, w), dialDevice(s, w)
		phone.Join(`"device":"phone"`)
		laptop.Join(`"device":"laptop"`)
		publishToInbox(t, s, 1, 10)
		phone.TakeUpTo(10)
		laptop.TakeUpTo(10)
		memory := s.Stats().HistoryMemory
		phone.Ack("1", 8)
		phone.ExpectReply("1", 200, "success")
		assert.Equal(t, memory, s.Stats().HistoryMemory)
		laptop.Ack("1", 4)
		laptop.ExpectReply("1", 200, "success")
		assert.Less(t, s.Stats().HistoryMemory, memory)
		assert.Equal(t, 6, kept(s, "laptop"))
		for _, tt := range []struct {
			device    string
			replaying int
		}{{"new", 6}, {"phone", 2}, {"laptop", 6}} {
			again := dialDevice(s, w)
			assert.Equal(t, tt.replaying, again.Join(`"device":"`+tt.device+`"`), tt.device)
			again.TakeUpTo(10)
			again.Ack("1", 10)
			again.ExpectReply("1", 200, "success")
		}
		assert.Zero(t, kept(s, "phone"))
		assert.Zero(t, s.Stats().InboxUndelivered)
	})
}

// Two connections of one device share its place. One that is behind loses no message when the other
// one has acknowledged it.
func TestInboxOfADeviceTwice(t *testing.T) {
	const messages = 500
	s := startInbox(t, ws.Inbox{Size: 1000, Bytes: 64 << 20}, smallBuffers)
	slow, fast := dialDevice(s, harness.Native), dialDevice(s, harness.NetHTTP)
	stall(t, slow)
	slow.Join(`"device":"d"`)
	fast.Join(`"device":"d"`)
	text := strings.Repeat("x", 4000)
	for range messages {
		_, err := s.PublishToInbox(context.Background(), "42", "n", text)
		require.NoError(t, err)
		fast.Take()
	}
	slow.Ack("", messages) // beyond the messages that the server has sent to it
	fast.Ack("1", messages)
	fast.ExpectReply("1", 200, "success")
	harness.Eventually(t, func() bool { return s.Stats().InvalidAcks == 1 }, "an invalid ack")
	slow.TakeUpTo(messages)
	assert.Empty(t, slow.Gaps)
	fast.Close()
	slow.Ack("1", messages)
	slow.ExpectReply("1", 200, "success")
	assert.Zero(t, s.Stats().Gaps)
	assert.Zero(t, s.Stats().InboxUndelivered)
	harness.Eventually(t, func() bool { return kept(s, "d") == 0 }, "all is dropped in the end")
}

// A device beyond the bound takes the place of the one that was away for the longest time.
func TestInboxMaxDevices(t *testing.T) {
	s := startInbox(t, ws.Inbox{MaxDevices: 2})
	publishToInbox(t, s, 1, 4)
	join := func(device string, replaying int) *harness.Member {
		c := dialDevice(s, harness.Native)
		require.Equal(t, replaying, c.Join(`"device":"`+device+`"`), device)
		c.TakeUpTo(4)
		return c
	}
	a, b := join("a", 4), join("b", 4)
	a.Ack("1", 3)
	a.ExpectReply("1", 200, "success")
	c := dialDevice(s, harness.Native)
	c.Send(harness.Request("ws.join", "1", `{"room":"@user:42","device":"c"}`))
	c.ExpectReply("1", 429, "too many devices")
	waitForClients := func(n int) { // those that have gone have left the inbox by then
		t.Helper()
		harness.Eventually(t, func() bool { return s.GetClientCount() == n }, "%d clients", n)
	}
	waitForDevices(s, 2)
	join("a", 1).Close()
	waitForClients(3)
	waitForDevices(s, 2)
	a.Close()
	waitForClients(2)
	b.Close()
	waitForClients(1)
	waitForDevices(s, 0)
	c.Join(`"device":"c"`) // in place of a
	c.TakeUpTo(4)
	join("b", 4)
	c.Send(harness.Request("ws.join", "2", `{"room":"@user:42","device":"c"}`))
	c.ExpectReply("2", 409, "already in room")
	d := dialDevice(s, harness.Native)
	d.Send(harness.Request("ws.join", "1", `{"room":"@user:42","device":"a"}`))
	d.ExpectReply("1", 429, "too many devices")
}

// A device that joins with a position gets the messages behind it, also those that it has
// acknowledged and that are kept.
func TestInboxSince(t *testing.T) {
	s := startInbox(t, ws.Inbox{})
	publishToInbox(t, s, 1, 10)
	phone, other := dialDevice(s, harness.Native), dialDevice(s, harness.Native)
	phone.Join(`"device":"phone"`)
	other.Join(`"device":"other"`)
	phone.TakeUpTo(10)
	other.TakeUpTo(10)
	for _, c := range []*harness.Member{phone, other} {
		c.Ack("1", 5)
		c.ExpectReply("1", 200, "success")
	}
	phone.Ack("2", 9)
	phone.ExpectReply("2", 200, "success")
	for _, tt := range []struct {
		since, replaying int
		gaps             []ws.RoomGap
	}{
		{7, 3, nil},
		{5, 5, nil},
		{10, 0, nil},
		{3, 5, []ws.RoomGap{{Room: "@user:42", Epoch: phone.Position.Epoch, After: 3, Next: 6, Reason: ws.GapExpired}}},
	} {
		c := dialDevice(s, harness.Native)
		c.Position = ws.Position{Epoch: phone.Position.Epoch, Offset: uint64(tt.since)}
		require.Equal(t, tt.replaying, c.Join(`"device":"phone",`+c.Since()))
		c.TakeUpTo(10)
		assert.Equal(t, tt.gaps, c.Gaps)
		c.Close()
	}
	again := dialDevice(s, harness.Native)
	assert.Equal(t, 1, again.Join(`"device":"phone","last":7`), "last has no effect")
}

// A million users come and go: the budget bounds the inboxes that they leave behind.
func TestManyInboxes(t *testing.T) {
	const budget, users = 1 << 20, 5000
	s := startInbox(t, ws.Inbox{TTL: time.Hour}, func(c *ws.Config) { c.HistoryBudget = budget })
	l := watchLosses(s.Manager)
	for i := range users {
		_, err := s.PublishToInbox(context.Background(), fmt.Sprint(1000+i), "n", "text")
		require.NoError(t, err)
		require.LessOrEqual(t, s.Stats().HistoryMemory, int64(budget))
	}
	stats := s.Stats()
	assert.Less(t, stats.Inboxes, users/2)
	assert.Greater(t, stats.HistoryMemory, int64(budget*9/10))
	assert.Equal(t, stats.Inboxes, stats.Rooms)
	assert.EqualValues(t, stats.HistoryEvicted, stats.InboxUndelivered)
	harness.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.all) == int(stats.InboxUndelivered)
	}, "an event for each loss")
}

// The inboxes of users who have read all, and have gone, end for the budget, too; those of users who are
// connected stay.
func TestInboxesWithoutMessagesEndForTheBudget(t *testing.T) {
	const budget, users = 100_000, 300
	s := startInbox(t, ws.Inbox{TTL: time.Hour}, func(c *ws.Config) { c.HistoryBudget = budget })
	stays := dialDevice(s, harness.Native)
	stays.Join(`"device":"d"`)
	publishToInbox(t, s, 1, 1)
	stays.TakeUpTo(1)
	stays.Ack("1", 1)
	stays.ExpectReply("1", 200, "success")
	for i := range users {
		c := &harness.Member{Client: s.Dial(harness.Native, fmt.Sprint("user=", 1000+i)), Room: fmt.Sprint("@user:", 1000+i)}
		c.Join(`"device":"d"`)
		c.Close()
	}
	harness.Eventually(t, func() bool { return s.GetClientCount() == 1 }, "all but one have gone")
	harness.Eventually(t, func() bool { return s.Stats().HistoryMemory <= budget }, "the budget holds")
	assert.Less(t, s.Stats().Inboxes, users*2/3)
	publishToInbox(t, s, 2, 2)
	stays.TakeUpTo(2)
}

// A client that acknowledges and closes in the same breath has acknowledged.
func TestAckBeforeClose(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := startInbox(t, ws.Inbox{}, mode)
		publishToInbox(t, s, 1, 3)
		c := dialDevice(s, w)
		c.Join(`"device":"d"`)
		c.TakeUpTo(3)
		c.WriteRaw(harness.Frame(gobwas.OpText, `{"type":"notify","event":"ws.ack","data":{"room":"@user:42","offset":3}}`) +
			harness.Frame(gobwas.OpClose, string(gobwas.NewCloseFrameBody(1000, ""))))
		c.ExpectClose(ws.CloseNormal)
		waitForDevices(s, 0)
		assert.Zero(t, dialDevice(s, w).Join(`"device":"d"`))
	})
}

// HistoryMemory counts the memory of inboxes without messages and members.
func TestInboxMemory(t *testing.T) {
	const inboxes = 20_000
	m, err := ws.NewManager(ws.WithLoops(4), ws.WithRoomShards(64), ws.WithInbox(ws.Inbox{}))
	require.NoError(t, err)
	before := liveHeap()
	for i := range inboxes {
		_, err := m.CreateRoom(fmt.Sprint("@user:", 1000+i), nil)
		require.NoError(t, err)
	}
	each, counted := (liveHeap()-before)/inboxes, m.Stats().HistoryMemory/inboxes
	t.Logf("%d B, %d counted", each, counted)
	assert.InDelta(t, each, counted, 60)
	assert.Equal(t, inboxes, m.Stats().Inboxes)
}

// Acknowledgements race with publications, joins, leaves, disconnects and DeleteRoom.
func TestInboxRaces(t *testing.T) {
	s := startInbox(t, ws.Inbox{Size: 5, MaxDevices: 2})
	l := watchLosses(s.Manager)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			for ctx.Err() == nil {
				conn, c := s.DialClient([]harness.Way{harness.Native, harness.NetHTTP}[i%2], "user=42")
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					_, _ = io.Copy(io.Discard, conn.R)
				}()
				for range 20 {
					joined, err := c.JoinRoomFrom("@user:42", ws.Since{Device: fmt.Sprint(i % 3)})
					if err == nil {
						_ = c.Ack("@user:42", joined.Position.Offset)
						_ = c.Ack("@user:42", joined.Position.Offset-min(joined.Position.Offset, uint64(joined.Replaying)))
						if i%2 == 0 {
							c.LeaveRoom("@user:42")
						}
					}
				}
				conn.Close()
				<-drained
			}
		})
	}
	for i := range 2000 {
		_, err := s.PublishToInbox(context.Background(), "42", "n", i)
		require.NoError(t, err)
		if i%100 == 99 {
			s.DeleteRoom("@user:42")
		}
	}
	stop()
	running.Wait()
	harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "all have gone")
	at, err := s.PublishToInbox(context.Background(), "42", "n", 0)
	require.NoError(t, err)
	top := at.Offset
	c := dialDevice(s, harness.Native)
	c.Join("")
	c.TakeUpTo(top)
	c.Ack("1", top)
	c.ExpectReply("1", 200, "success")
	harness.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		var sum uint64
		for i := range l.all {
			sum += l.all[i].Count
		}
		return sum == s.Stats().InboxUndelivered
	}, "an event for each loss")
	assert.Equal(t, 1, s.Stats().Inboxes)
	assert.Equal(t, 1, s.Stats().Histories)
}
