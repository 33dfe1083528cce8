package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// losses keeps the messages that EventUndelivered names.
type losses struct {
	mu  sync.Mutex
	all []ws.Undelivered
}

func watchLosses(m *ws.Manager) *losses {
	l := &losses{}
	m.Subscribe(ws.EventUndelivered, func(e ws.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, e.Data.(ws.Undelivered))
	})
	return l
}

// expect waits until the losses are those, without the epoch, and the counter is right.
func (l *losses) expect(t *testing.T, m *ws.Manager, want ...ws.Undelivered) {
	t.Helper()
	var sum uint64
	for i := range want {
		want[i].User = "42"
		want[i].Count = want[i].Next - want[i].After - 1
		sum += want[i].Count
	}
	harness.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.all) >= len(want)
	}, "%d events", len(want))
	l.mu.Lock()
	defer l.mu.Unlock()
	got := append([]ws.Undelivered(nil), l.all...)
	for i := range got {
		assert.Len(t, got[i].Epoch, 12)
		got[i].Epoch = ""
	}
	assert.Equal(t, want, got)
	assert.Equal(t, sum, m.Stats().InboxUndelivered)
}

func TestUndeliveredFull(t *testing.T) {
	s := startInbox(t, ws.Inbox{Size: 3})
	l := watchLosses(s.Manager)
	publishToInbox(t, s, 1, 4) // no device is known: 1 is lost
	c := dialDevice(s, harness.Native)
	c.Join(`"device":"d"`)
	c.TakeUpTo(4)
	c.Ack("1", 3)
	c.ExpectReply("1", 200, "success")
	publishToInbox(t, s, 5, 8) // 4 and 5 are lost
	c.TakeUpTo(8)
	c.Ack("2", 8)
	c.ExpectReply("2", 200, "success")
	publishToInbox(t, s, 9, 11)
	l.expect(t, s.Manager, ws.Undelivered{After: 0, Next: 2, Reason: ws.UndeliveredFull},
		ws.Undelivered{After: 3, Next: 5, Reason: ws.UndeliveredFull},
		ws.Undelivered{After: 4, Next: 6, Reason: ws.UndeliveredFull})
	c.Close()
	waitForDevices(s, 0)
	publishToInbox(t, s, 12, 12)
	again := dialDevice(s, harness.Native) // is told of 9, which is lost
	again.Position = ws.Position{Epoch: c.Position.Epoch, Offset: 8}
	require.Equal(t, 3, again.Join(`"device":"d"`))
	again.TakeUpTo(12)
	assert.Equal(t, []ws.RoomGap{{
		Room: "@user:42", Epoch: c.Position.Epoch, After: 8, Next: 10, Reason: ws.GapExpired,
	}}, again.Gaps)
	strict := dialDevice(s, harness.Native)
	strict.Send(harness.Request("ws.join", "1", `{"room":"@user:42","device":"d","strict":true}`))
	strict.ExpectReply("1", 409, "position lost")
}

func TestUndeliveredForBytesAndBudget(t *testing.T) {
	text := strings.Repeat("x", 1000)
	for _, tt := range []struct {
		inbox  ws.Inbox
		budget int64
		reason ws.UndeliveredReason
	}{
		{ws.Inbox{Bytes: 10_000}, 0, ws.UndeliveredFull},
		{ws.Inbox{Bytes: -1}, 20_000, ws.UndeliveredBudget},
	} {
		s := startInbox(t, tt.inbox, func(c *ws.Config) { c.HistoryBudget = tt.budget })
		l := watchLosses(s.Manager)
		const messages = 60
		for range messages {
			_, err := s.PublishToInbox(context.Background(), "42", "n", text)
			require.NoError(t, err)
		}
		var want []ws.Undelivered // the ranges follow each other
		harness.Eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			want = append(want[:0], l.all...)
			var sum uint64
			for i := range want {
				sum += want[i].Count
			}
			return sum == s.Stats().InboxUndelivered
		}, "an event for each loss")
		require.NotEmpty(t, want)
		last := uint64(1)
		for i := range want {
			require.Equal(t, ws.Undelivered{
				User: "42", Epoch: want[i].Epoch, After: last - 1, Next: want[i].Next,
				Count: want[i].Next - last, Reason: tt.reason,
			}, want[i])
			last = want[i].Next
		}
		c := dialDevice(s, harness.Native)
		assert.EqualValues(t, messages+1-last, c.Join(""))
	}
}

func TestUndeliveredDeleted(t *testing.T) {
	s := startInbox(t, ws.Inbox{})
	l := watchLosses(s.Manager)
	publishToInbox(t, s, 1, 5)
	c := dialDevice(s, harness.Native)
	c.Join(`"device":"d"`)
	c.TakeUpTo(5)
	c.Ack("1", 2)
	c.ExpectReply("1", 200, "success")
	s.DeleteRoom("@user:42")
	c.Ack("2", 5)
	c.ExpectReply("2", 400, "invalid ack")
	assert.Zero(t, s.Stats().Inboxes)
	publishToInbox(t, s, 1, 2) // another inbox
	old := c.Position.Epoch
	require.Equal(t, 0, c.Rejoin())
	c.Take()
	assert.Equal(t, ws.GapEpoch, c.Gaps[0].Reason)
	assert.NotEqual(t, old, c.Position.Epoch)
	assert.EqualValues(t, 2, c.Position.Offset)
	c.Ack("3", 2)
	c.ExpectReply("3", 200, "success")
	s.DeleteRoom("@user:42") // all is acknowledged
	publishToInbox(t, s, 1, 1)
	s.DeleteRoom("@user:42")
	s.DeleteRoom("@user:42")
	l.expect(t, s.Manager, ws.Undelivered{After: 2, Next: 6, Reason: ws.UndeliveredDeleted},
		ws.Undelivered{After: 0, Next: 2, Reason: ws.UndeliveredDeleted})
}

// startInboxSim starts a manager on a simulated network, with that many clients of user 42.
func startInboxSim(t *testing.T, clients int, inbox ws.Inbox, opts ...ws.Option) *simRoom {
	return startSim(t, clients, append([]ws.Option{ws.WithInbox(inbox), func(c *ws.Config) {
		c.Authenticate = func(r *http.Request) ([]ws.ClientOption, error) {
			return []ws.ClientOption{ws.WithClientID(r.URL.Query().Get("id")), ws.WithUserID(42)}, nil
		}
	}}, opts...)...)
}

// device lets the client of a peer join its inbox as a device of that number.
func (s *simRoom) device(peer int) (*ws.Client, ws.Joined) {
	s.t.Helper()
	c, ok := s.GetClient(fmt.Sprint(peer))
	require.True(s.t, ok)
	joined, err := c.JoinRoomFrom("@user:42", ws.Since{Device: fmt.Sprint(peer)})
	require.NoError(s.t, err)
	s.net.Wait()
	return c, joined
}

// publish publishes messages to the inbox of user 42.
func (s *simRoom) publish(messages int) {
	s.t.Helper()
	for range messages {
		_, err := s.PublishToInbox(context.Background(), "42", "n", 1)
		require.NoError(s.t, err)
	}
	s.net.Wait()
}

func TestUndeliveredExpired(t *testing.T) {
	t.Parallel()
	s := startInboxSim(t, 2, ws.Inbox{TTL: 100 * time.Second})
	l := watchLosses(s.Manager)
	a, _ := s.device(0)
	b, _ := s.device(1)
	s.publish(5)
	require.NoError(t, a.Ack("@user:42", 5))
	require.NoError(t, b.Ack("@user:42", 2))
	require.ErrorIs(t, b.Ack("@user:42", 6), ws.ErrInvalidAck)
	s.sleep(99 * time.Second)
	_, err := b.JoinRoomFrom("@user:42", ws.Since{})
	require.ErrorIs(t, err, ws.ErrAlreadyInRoom)
	b.LeaveRoom("@user:42")
	_, joined := s.device(1)
	require.Equal(t, 3, joined.Replaying)
	s.sleep(time.Second)
	l.expect(t, s.Manager, ws.Undelivered{After: 2, Next: 6, Reason: ws.UndeliveredExpired})
}

// A device that was away for the TTL is forgotten: messages do not wait for it.
func TestInboxForgetsADevice(t *testing.T) {
	t.Parallel()
	s := startInboxSim(t, 2, ws.Inbox{TTL: 100 * time.Second})
	l := watchLosses(s.Manager)
	a, _ := s.device(0)
	b, _ := s.device(1)
	b.LeaveRoom("@user:42")
	s.sleep(50 * time.Second)
	s.publish(3)
	require.NoError(t, a.Ack("@user:42", 3))
	memory := s.Stats().HistoryMemory
	require.Positive(t, memory)
	s.sleep(50 * time.Second)
	harness.Eventually(t, func() bool { return s.Stats().HistoryMemory == 0 }, "the messages are dropped")
	_, joined := s.device(1)
	assert.Zero(t, joined.Replaying)
	assert.False(t, joined.Lost)
	s.publish(1)
	assert.EqualValues(t, 4, s.member(1, joined.Position, "@user:42").Position.Offset)
	l.expect(t, s.Manager)
}

// An inbox ends when it was not used for its TTL, and not earlier.
func TestInboxEnds(t *testing.T) {
	t.Parallel()
	s := startInboxSim(t, 1, ws.Inbox{TTL: 100 * time.Second}, func(c *ws.Config) { c.Room.EmptyRoomTTL = 0 })
	position := func() ws.Position {
		at, _ := s.RoomPosition("@user:42")
		return at
	}
	s.publish(2)
	first := position()
	for range 4 { // messages come
		s.sleep(90 * time.Second)
		s.publish(1)
	}
	harness.Eventually(t, func() bool { return s.Stats().InboxUndelivered == 4 }, "messages expire")
	require.Equal(t, ws.Position{Epoch: first.Epoch, Offset: 6}, position())
	c, joined := s.device(0)
	require.Equal(t, 2, joined.Replaying)
	require.NoError(t, c.Ack("@user:42", 6))
	_, err := s.PublishToInbox(context.Background(), "7", "n", 1)
	require.NoError(t, err)
	s.sleep(1000 * time.Second) // a device of user 42 is connected
	harness.Eventually(t, func() bool { return s.Stats().Inboxes == 1 }, "the other inbox has not ended")
	require.Equal(t, ws.Position{Epoch: first.Epoch, Offset: 6}, position())
	c.LeaveRoom("@user:42")
	s.sleep(99 * time.Second)
	_, joined = s.device(0)
	require.Zero(t, joined.Replaying)
	c.LeaveRoom("@user:42")
	assert.Positive(t, s.Stats().HistoryMemory)
	s.sleep(100 * time.Second)
	harness.Eventually(t, func() bool { return s.Stats().Inboxes == 0 }, "the inbox has not ended")
	assert.Zero(t, s.GetRoomCount())
	assert.Zero(t, s.Stats().Histories)
	assert.Zero(t, s.Stats().HistoryMemory)
	s.publish(1)
	assert.NotEqual(t, first.Epoch, position().Epoch)
	assert.EqualValues(t, 1, position().Offset)
}
