package client_test

import (
	"maps"
	"slices"
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

// users is a list of the users of a room, as an application keeps it by docs/presence.md.
type users struct {
	mu   sync.Mutex
	at   client.PresenceVersion // guarded by mu
	list map[string]bool        // guarded by mu
}

func (u *users) version() client.PresenceVersion {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.at
}

func (u *users) names() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(u.list)), " ")
}

func (u *users) follow(n client.Notify) {
	var d struct {
		client.PresenceVersion
		Snapshot               bool
		Members, Joins, Leaves []ws.PresentUser
	}
	if n.Decode(&d) != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case d.Snapshot:
		u.list = make(map[string]bool) // the list has one page
	case d.Epoch != u.at.Epoch || d.Version != u.at.Version+1:
		return
	}
	u.at = d.PresenceVersion
	for _, user := range append(d.Members, d.Joins...) {
		u.list[user.User] = true
	}
	for _, user := range d.Leaves {
		delete(u.list, user.User)
	}
}

// TestPresence holds that a client which comes back with its list gets the changes of presence alone.
func TestPresence(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	present := ws.Presence{List: true, Interval: time.Millisecond, LeaveHold: time.Hour}
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		return []ws.RoomOption{ws.WithPresence(present)}, nil
	}))
	join := func(user string) *users {
		c := newClient(t, "ws://"+s.AddrOf(harness.Native)+"/ws?user="+user)
		room, u := c.Room("r"), new(users)
		room.On("ws.presence", u.follow)
		require.NoError(t, c.Connect(within(t)))
		_, err := room.Join(within(t), client.Presence(u.version))
		require.NoError(t, err)
		return u
	}
	see := func(u *users, names string) {
		t.Helper()
		harness.Eventually(t, func() bool { return u.names() == names }, "want %q", names)
	}
	ann := join("1")
	see(ann, "1")
	see(join("2"), "1 2")
	see(ann, "1 2")
	lists := s.Stats().Presence.Snapshots
	for _, c := range s.UserClients("1") {
		c.Abort()
	}
	join("3")
	see(ann, "1 2 3")
	harness.Eventually(t, func() bool { return s.Stats().Presence.Resumed == 1 }, "it has got a whole list")
	assert.Equal(t, lists+1, s.Stats().Presence.Snapshots, "the list of user 3 alone")
}
