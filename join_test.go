package ws_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// startBehind returns a server with a member that is behind: all messages are kept, and most of
// them are not in its queue.
func startBehind(t *testing.T, w harness.Way, messages int, opts ...ws.Option) (*harness.Server, *harness.Member) {
	t.Helper()
	s := startHistory(t, ws.History{Size: 1000, Bytes: 64 << 20}, append([]ws.Option{smallBuffers}, opts...)...)
	m := dialMember(s, w, "r")
	stall(t, m)
	m.Join("")
	text := strings.Repeat("x", 4000)
	for range messages {
		_, err := s.PublishEvent(context.Background(), "r", "n", text)
		require.NoError(t, err)
	}
	harness.Eventually(t, func() bool { return s.Stats().Total.Blocked == 1 }, "the socket did not fill")
	return s, m
}

// takeUntilReply reads messages of the room until the response to the request comes.
func takeUntilReply(m *harness.Member, id string) {
	m.T.Helper()
	for {
		f := m.Next()
		var e harness.Envelope
		require.NoError(m.T, json.Unmarshal(f.Payload, &e))
		if e.RequestID == id {
			require.Equal(m.T, 200, e.Code)
			return
		}
		_, err := m.Follow(f.Payload)
		require.NoError(m.T, err, "%.200s", f.Payload)
	}
}

// A member that is behind gets all that was published before DeleteRoom.
func TestDeleteRoomWithMemberBehind(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const messages = 500
		s, m := startBehind(t, w, messages)
		s.DeleteRoom("r")
		other := dialMember(s, w, "r")
		other.Join("")
		require.NotEqual(t, m.Position.Epoch, other.Position.Epoch)
		publishSome(t, s, "r", 1, 5)
		other.TakeUpTo(5)
		m.TakeUpTo(messages)
		assert.Empty(t, m.Gaps)
		m.Sync()
		assert.Zero(t, s.Stats().Total.Drops)
	})
}

// A member that is behind joins the room that begins again under the same name: the messages of
// the old epoch end before the response, and a gap names the new epoch.
func TestRejoinAfterDeleteRoomWhileBehind(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const messages = 500
		s, m := startBehind(t, w, messages)
		old := m.Position
		s.DeleteRoom("r")
		m.Send(harness.Request("ws.join", "again", `{"room":"r",`+m.Since()+`}`))
		harness.Eventually(t, func() bool { return len(s.GetRoomMembers("r")) == 1 }, "no join")
		publishSome(t, s, "r", 1, 5)
		takeUntilReply(m, "again")
		assert.Empty(t, m.Gaps)
		assert.Less(t, m.Position.Offset, uint64(messages))
		m.Take()
		require.Len(t, m.Gaps, 1)
		assert.Equal(t, []any{ws.GapEpoch, old.Offset}, []any{m.Gaps[0].Reason, m.Gaps[0].After})
		assert.NotEqual(t, old.Epoch, m.Position.Epoch)
		m.TakeUpTo(5)
		publishSome(t, s, "r", 6, 7)
		m.TakeUpTo(7)
		m.Sync()
	})
}

// A client leaves while it is behind, and joins again: the replay begins anew at its position.
func TestLeaveAndRejoinWhileBehind(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const messages = 500
		s, m := startBehind(t, w, messages)
		m.Send(harness.Request("ws.leave", "leave", `{"room":"r"}`))
		takeUntilReply(m, "leave")
		assert.Less(t, m.Position.Offset, uint64(messages))
		assert.Equal(t, messages-int(m.Position.Offset), m.Rejoin())
		m.TakeUpTo(messages)
		assert.Empty(t, m.Gaps)
		m.Sync()
		assert.Zero(t, s.Stats().Total.Drops)
	})
}

// Shutdown and Drain end while a member is behind: the messages in its queue come before the close.
func TestShutdownWithMemberBehind(t *testing.T) {
	for name, end := range map[string]func(s *harness.Server) error{
		"Shutdown": func(s *harness.Server) error { return s.Shutdown(context.Background()) },
		"Drain": func(s *harness.Server) error {
			return s.Drain(context.Background(), ws.DrainConfig{Grace: -1, Window: -1, Settle: -1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			const messages = 500
			s, m := startBehind(t, harness.Native, messages)
			ended := make(chan error, 1)
			go func() { ended <- end(s) }()
			for f := m.Next(); f.Header.OpCode != gobwas.OpClose; f = m.Next() {
				_, err := m.Follow(f.Payload)
				require.NoError(t, err, "%.200s", f.Payload)
			}
			assert.Empty(t, m.Gaps)
			assert.NotEmpty(t, m.Got)
			m.Finish(ws.CloseGoingAway)
			require.NoError(t, harness.Receive(t, ended, "it did not end"))
			assert.Zero(t, s.Stats().Total.Drops)
		})
	}
}
