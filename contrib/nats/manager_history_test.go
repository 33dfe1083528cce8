package natsbroker_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	"github.com/qi-realtime/ws/internal/harness"
)

// storeManagers starts three Managers whose rooms have a history, and a member of the room "r" on each.
func storeManagers(t *testing.T, url string) ([]*harness.Server, []*harness.Member) {
	t.Helper()
	var all []*harness.Server
	var members []*harness.Member
	for range 3 {
		b, err := natsbroker.NewWithHistory(
			withDefaults(natsbroker.Config{Servers: []string{url}, ReconnectWait: 10 * time.Millisecond}),
			natsbroker.HistoryConfig{Streams: 1})
		require.NoError(t, err)
		m := harness.Start(t, ws.WithBroker(b))
		require.NoError(t, ws.HandleJoin(m.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
			return []ws.RoomOption{ws.WithHistory(ws.History{Size: 1000})}, nil
		}))
		awaitStore(m)
		member := &harness.Member{Client: m.Dial(harness.Native), Room: "r"}
		member.Join("")
		all, members = append(all, m), append(members, member)
	}
	return all, members
}

// awaitStore waits until a message to another room can be stored.
func awaitStore(m *harness.Server) {
	m.T.Helper()
	_, err := m.CreateRoom("other", nil, ws.WithHistory(ws.History{}))
	if err != nil {
		require.ErrorIs(m.T, err, ws.ErrRoomExists)
	}
	harness.Eventually(m.T, func() bool {
		_, err := m.PublishEvent(m.T.Context(), "other", "n", 0)
		return err == nil
	}, "no store")
}

// storm publishes by all managers at the same time, and returns the offsets of the messages in order.
func storm(t *testing.T, managers []*harness.Server, publishers, count int) (offsets []uint64) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range count {
				at, err := managers[p%len(managers)].PublishEvent(t.Context(), "r", "n", fmt.Sprint(p, " ", i))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				offsets = append(offsets, at.Offset)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(offsets)
	return offsets
}

// takeHistory reads messages up to the offset. Gaps without a room come after a break of the connection.
func takeHistory(m *harness.Member, offset uint64) {
	m.T.Helper()
	for m.Position.Offset < offset {
		payload := m.Next().Payload
		var gap struct{ Event, Room string }
		require.NoError(m.T, json.Unmarshal(payload, &gap))
		if gap.Event == "ws.gap" && gap.Room == "" {
			continue
		}
		_, err := m.Follow(payload)
		require.NoError(m.T, err, "%s", payload)
	}
}

// TestManagersWithHistory holds that members on three nodes read the messages of all in one order, also
// of a server that has restarted, and that a member that comes back to another node reads the rest.
func TestManagersWithHistory(t *testing.T) {
	o := natsserver.Options{Port: freePort(t), JetStream: true, StoreDir: t.TempDir()}
	s := newServer(t, o)
	managers, members := storeManagers(t, s.ClientURL())
	offsets := storm(t, managers, 6, 50)
	for _, m := range members {
		takeHistory(m, offsets[len(offsets)-1])
		require.Equal(t, offsets, m.Got)
		require.Empty(t, m.Gaps)
	}

	away := members[2]
	away.Abort()
	s = restart(t, s, o)
	for _, m := range managers {
		awaitStore(m)
	}
	more := storm(t, managers, 6, 20)
	all := slices.Concat(offsets, more)
	back := &harness.Member{Client: managers[0].Dial(harness.Native), Room: "r", Position: away.Position}
	back.Rejoin() // some of them are replayed, the others are on their way to the node
	takeHistory(back, more[len(more)-1])
	require.Equal(t, more, back.Got)
	for _, m := range members[:2] {
		takeHistory(m, more[len(more)-1])
		require.Equal(t, all, m.Got)
		require.Empty(t, m.Gaps, "what was stored is not lost")
	}

	require.NoError(t, admin(t, s.ClientURL()).DeleteStream(t.Context(), "ws-h0"))
	at, err := managers[1].PublishEvent(t.Context(), "r", "n", "of a new history")
	require.NoError(t, err)
	for _, m := range append(members[:2], back) {
		for m.Position.Epoch != at.Epoch {
			takeOne(m)
		}
		takeHistory(m, at.Offset)
		require.Equal(t, at, m.Position)
		require.Len(t, m.Gaps, 1)
		require.Equal(t, ws.GapEpoch, m.Gaps[0].Reason)
	}
}

func takeOne(m *harness.Member) {
	m.T.Helper()
	f := m.Next()
	_, err := m.Follow(f.Payload)
	require.NoError(m.T, err, "%s", f.Payload)
}
