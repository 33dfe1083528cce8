package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// presenceData has the fields of all kinds of ws.presence.
type presenceData struct {
	Users     int              `json:"users"`
	Clients   int              `json:"clients"`
	Truncated bool             `json:"truncated"`
	Snapshot  bool             `json:"snapshot"`
	Epoch     string           `json:"epoch"`
	Version   uint64           `json:"version"`
	Page      int              `json:"page"`
	Pages     int              `json:"pages"`
	Members   []ws.PresentUser `json:"members"`
	Joins     []ws.PresentUser `json:"joins"`
	Leaves    []ws.PresentUser `json:"leaves"`
}

// watcher is a member that follows the presence of its room as a client does.
type watcher struct {
	*harness.Client
	room    string
	users   map[ws.PresentUser]bool // nil while it has no whole list
	at      ws.PresenceVersion
	resumed bool // it has named its list, so a change may come twice, or too early
	pages   int  // of the list, so far
	taken   int  // bytes of ws.presence
	seen    map[ws.PresenceVersion]string
	last    presenceData
	news    []string // "+user" and "-user" of all diffs
	other   []string // other messages
}

func watch(c *harness.Client, room string) *watcher {
	return &watcher{Client: c, room: room, seen: map[ws.PresenceVersion]string{}}
}

// has returns the field with the watcher's list.
func (w *watcher) has() string {
	b, err := json.Marshal(w.at)
	require.NoError(w.T, err)
	return `"presence":` + string(b)
}

// resume joins the room on another connection, with the list.
func (w *watcher) resume(c *harness.Client) *watcher {
	next := watch(c, w.room)
	next.users, next.at, next.resumed = maps.Clone(w.users), w.at, true
	next.Send(harness.Request("ws.join", "q", fmt.Sprintf(`{"room":%q,%s}`, w.room, w.has())))
	next.untilAnswer()
	return next
}

// take reads one message.
func (w *watcher) take() {
	w.T.Helper()
	require.NoError(w.T, w.SetReadDeadline(time.Now().Add(harness.Patience)))
	f := w.Next()
	var msg struct {
		Event, Room string
		Data        json.RawMessage
	}
	if json.Unmarshal(f.Payload, &msg) != nil || msg.Event != "ws.presence" {
		w.other = append(w.other, string(f.Payload))
		return
	}
	require.Equal(w.T, w.room, msg.Room)
	var d presenceData
	require.NoError(w.T, json.Unmarshal(msg.Data, &d), "%s", msg.Data)
	w.taken += len(f.Payload)
	w.follow(&d)
	if w.users != nil && len(w.users) == w.last.Users {
		w.seen[w.at] = w.names()
	}
}

func (w *watcher) follow(d *presenceData) {
	w.T.Helper()
	w.last = *d
	switch {
	case d.Snapshot:
		w.followPage(d)
		return
	case d.Version == 0: // numbers
		w.users = nil
		return
	case w.users == nil:
		return // it came before the list
	case w.resumed && (d.Epoch != w.at.Epoch || d.Version > w.at.Version+1):
		w.Send(harness.Request("ws.presence", "hole", fmt.Sprintf(`{"room":%q,%s}`, w.room, w.has())))
		return
	case w.resumed && d.Version <= w.at.Version:
		return
	}
	require.Equal(w.T, ws.PresenceVersion{Epoch: w.at.Epoch, Version: w.at.Version + 1},
		ws.PresenceVersion{Epoch: d.Epoch, Version: d.Version})
	w.at.Version = d.Version
	for _, u := range d.Joins {
		require.False(w.T, w.users[u], "%v joins twice", u)
		w.users[u] = true
		w.news = append(w.news, "+"+u.User+u.Client)
	}
	for _, u := range d.Leaves {
		require.True(w.T, w.users[u], "%v leaves twice", u)
		delete(w.users, u)
		w.news = append(w.news, "-"+u.User+u.Client)
	}
	require.Len(w.T, w.users, d.Users)
}

func (w *watcher) followPage(d *presenceData) {
	w.T.Helper()
	if d.Page == 0 {
		w.users, w.pages = map[ws.PresentUser]bool{}, 0
		w.at = ws.PresenceVersion{Epoch: d.Epoch, Version: d.Version}
	}
	require.Equal(w.T, w.pages, d.Page)
	require.Equal(w.T, w.at, ws.PresenceVersion{Epoch: d.Epoch, Version: d.Version})
	require.LessOrEqual(w.T, len(d.Members), 500)
	w.pages++
	for _, u := range d.Members {
		require.False(w.T, w.users[u], "%v is on the list twice", u)
		w.users[u] = true
	}
	if w.pages == d.Pages {
		require.Len(w.T, w.users, d.Users)
	}
}

// names returns the users of the list, sorted.
func (w *watcher) names() string {
	var names []string
	for u := range w.users {
		names = append(names, u.User+u.Client)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// until reads until the condition holds.
func (w *watcher) until(condition func() bool) {
	w.T.Helper()
	for !condition() {
		w.take()
	}
}

// sees reads until the list has these users.
func (w *watcher) sees(names string) {
	w.T.Helper()
	w.until(func() bool { return w.users != nil && w.names() == names })
}

// counts reads until these numbers come.
func (w *watcher) counts(users, clients int, truncated bool) {
	w.T.Helper()
	w.until(func() bool {
		return w.last.Version == 0 && w.last.Users == users && w.last.Clients == clients && w.last.Truncated == truncated
	})
}

// fast is a presence without long waits.
var fast = ws.Presence{List: true, Interval: time.Millisecond, LeaveHold: -1}

// startPresence starts a server whose clients may join any room, which has the presence.
func startPresence(t *testing.T, p ws.Presence, opts ...ws.Option) *harness.Server {
	s := harness.Start(t, append([]ws.Option{ws.WithAuthenticate(harness.ByQuery)}, opts...)...)
	handlePresence(t, s, p)
	return s
}

func handlePresence(t *testing.T, s *harness.Server, p ws.Presence) {
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		return []ws.RoomOption{ws.WithPresence(p)}, nil
	}))
}

// enter connects a client that joins room "r".
func enter(s *harness.Server, w harness.Way, query ...string) *watcher {
	s.T.Helper()
	c := watch(s.Dial(w, query...), "r")
	c.ask("ws.join")
	return c
}

// ask sends a request about the room, and reads until the response.
func (w *watcher) ask(event string) {
	w.T.Helper()
	w.Send(harness.Request(event, "q", fmt.Sprintf(`{"room":%q}`, w.room)))
	w.untilAnswer()
}

// untilAnswer reads until the response.
func (w *watcher) untilAnswer() {
	w.T.Helper()
	before := len(w.other)
	w.until(func() bool {
		return slices.ContainsFunc(w.other[before:], func(msg string) bool {
			return strings.Contains(msg, `"request_id":"q","code":200`)
		})
	})
}

// TestPresenceList holds that a user comes with the first device and goes with the last.
func TestPresenceList(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startPresence(t, fast)
		ann := enter(s, w, "user=1")
		ann.sees("1")
		assert.Contains(t, ann.other[0], `"type":"response"`, "the list comes behind the response")
		bob := enter(s, w, "username=bob")
		bob.sees("1 bob")
		ann.sees("1 bob")
		second := enter(s, w, "username=bob")
		second.sees("1 bob")
		anonymous := enter(s, w, "id=x")
		anonymous.sees("1 bob x")
		assert.True(t, anonymous.users[ws.PresentUser{Client: "x"}])
		bob.ask("ws.leave")
		anonymous.ask("ws.leave")
		ann.sees("1 bob")
		require.NoError(t, second.Close())
		ann.sees("1")
		assert.Equal(t, []string{"+bob", "+x", "-x", "-bob"}, ann.news)
		harness.Eventually(t, func() bool { return s.Stats().Presence.Snapshots == 4 }, "not one list for each")
	})
}

// TestPresenceNumbers holds that members without a list get the numbers, and only when they change.
func TestPresenceNumbers(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startPresence(t, ws.Presence{Interval: time.Millisecond, LeaveHold: -1})
		ann := enter(s, w, "user=1")
		ann.counts(1, 1, false)
		enter(s, w, "user=1").counts(1, 2, false)
		ann.counts(1, 2, false)
		bob := enter(s, w, "user=2")
		ann.counts(2, 3, false)
		require.NoError(t, bob.Close())
		ann.counts(1, 2, false)
		at, err := s.RoomPresence("r")
		require.NoError(t, err)
		assert.Equal(t, ws.RoomPresence{Users: 1, Clients: 2, Members: []ws.PresentUser{{User: "1"}}}, at)
	})
}

// TestPresenceInterval holds that notifications to all have their pace, whatever happens meanwhile.
func TestPresenceInterval(t *testing.T) {
	const interval = 100 * time.Millisecond
	s := startPresence(t, ws.Presence{List: true, Interval: interval, LeaveHold: -1})
	ann := enter(s, harness.Native, "user=1")
	ann.sees("1")
	begin, before := time.Now(), s.Stats().Presence.Published
	c, sc := s.DialClient(harness.Native, "user=2")
	defer c.Close()
	for time.Since(begin) < 5*interval {
		require.NoError(t, sc.JoinRoom("r"))
		sc.LeaveRoom("r")
	}
	require.NoError(t, sc.JoinRoom("r"))
	ann.sees("1 2")
	most := 2 + time.Since(begin)/interval
	assert.LessOrEqual(t, s.Stats().Presence.Published-before, uint64(most))
}

// TestPresenceLeaveHold holds that a user who comes back in time has never left, that others have,
// and that LeaveRoom is no reconnect.
func TestPresenceLeaveHold(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		p := fast
		p.LeaveHold = time.Hour
		s := startPresence(t, p)
		ann := enter(s, w, "user=1")
		ann.sees("1")
		for range 5 {
			enter(s, w, "user=2").Abort()
			c := enter(s, w, "username=bob")
			c.SendClose(1000, "")
			c.ExpectClose(1000)
		}
		ann.sees("1 2 bob")
		anonymous := enter(s, w)
		ann.until(func() bool { return len(ann.users) == 4 })
		require.NoError(t, anonymous.Close())
		ann.sees("1 2 bob")
		third := enter(s, w, "user=3")
		ann.sees("1 2 3 bob")
		third.ask("ws.leave")
		ann.sees("1 2 bob")
		assert.Len(t, ann.news, 6, "%v", ann.news)
		at, err := s.RoomPresence("r")
		require.NoError(t, err)
		assert.Equal(t, 3, at.Users)
		harness.Eventually(t, func() bool { at, err = s.RoomPresence("r"); return err == nil && at.Clients == 1 }, "%+v", at)
	})
}

// TestPresenceHoldEnds holds that a user who does not come back leaves, also if the room has ended
// meanwhile.
func TestPresenceHoldEnds(t *testing.T) {
	p := fast
	p.LeaveHold = 50 * time.Millisecond
	s := startPresence(t, p)
	ann := enter(s, harness.Native, "user=1")
	bob := enter(s, harness.Native, "user=2")
	ann.sees("1 2")
	require.NoError(t, bob.Close())
	ann.sees("1")
	require.NoError(t, ann.Close())
	harness.Eventually(t, func() bool {
		_, err := s.RoomPresence("r")
		return err != nil && s.Stats().Presence.Rooms == 0
	}, "the presence stays")
	enter(s, harness.Native, "user=3").sees("3")
}

// TestPresenceHoldOutlivesRoom holds that the users of a room that has ended with its last member
// are held.
func TestPresenceHoldOutlivesRoom(t *testing.T) {
	p := fast
	p.LeaveHold = time.Hour
	s := startPresence(t, p)
	require.NoError(t, enter(s, harness.Native, "user=1").Close())
	harness.Eventually(t, func() bool { return s.GetRoomCount() == 0 }, "the room stays")
	enter(s, harness.Native, "user=2").sees("1 2")
	s.DeleteRoom("r")
	enter(s, harness.Native, "user=3").sees("3")
}

// TestPresenceMaxList holds that beyond MaxList members get the numbers, and the list again when
// there are clearly fewer.
func TestPresenceMaxList(t *testing.T) {
	t.Parallel()
	p := fast
	p.MaxList = 10
	s := startPresence(t, p)
	all := make([]*watcher, 0, 12)
	for i := range 10 {
		all = append(all, enter(s, harness.Native, fmt.Sprint("user=", 10+i)))
	}
	all[0].sees("10 11 12 13 14 15 16 17 18 19")
	all = append(all, enter(s, harness.Native, "user=20"))
	all[0].counts(11, 11, true)
	all[10].counts(11, 11, true)
	at, err := s.RoomPresence("r")
	require.NoError(t, err)
	assert.True(t, at.Truncated)
	assert.Len(t, at.Members, 10)
	require.NoError(t, all[10].Close())
	all[0].counts(10, 10, true)
	require.NoError(t, all[9].Close())
	for _, c := range all[:9] {
		c.sees("10 11 12 13 14 15 16 17 18")
	}
	enter(s, harness.Native, "user=21").sees("10 11 12 13 14 15 16 17 18 21")
	all[0].sees("10 11 12 13 14 15 16 17 18 21")
}

// TestPresenceAgain holds that a member that has missed a notification gets the list again.
func TestPresenceAgain(t *testing.T) {
	s := startPresence(t, fast)
	ann := enter(s, harness.Native, "user=1")
	ann.sees("1")
	ann.users = nil
	ann.ask("ws.presence")
	ann.sees("1")
	ann.Send(harness.Request("ws.presence", "other", `{"room":"other"}`))
	ann.until(func() bool { return len(ann.other) == 3 })
	assert.Contains(t, ann.other[2], `"code":404`)
	stranger := watch(s.Dial(harness.Native), "r")
	stranger.Send(harness.Request("ws.presence", "q", `{"room":"r"}`))
	stranger.ExpectReply("q", 404, "not in a room with presence")
}

// TestPresenceWithHistory holds that a client that resumes without its list gets a new one, and that the
// notifications have no offset.
func TestPresenceWithHistory(t *testing.T) {
	s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery))
	require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
		return []ws.RoomOption{ws.WithPresence(fast), ws.WithHistory(ws.History{})}, nil
	}))
	ann := enter(s, harness.Native, "user=1")
	ann.sees("1")
	_, err := s.PublishEvent(context.Background(), "r", "e", 1)
	require.NoError(t, err)
	ann.until(func() bool { return len(ann.other) == 2 })
	assert.Contains(t, ann.other[1], `:               1,`, "the first offset")
	require.NoError(t, ann.Close())
	at, err := s.RoomPosition("r")
	require.NoError(t, err)
	bob := watch(s.Dial(harness.Native, "user=2"), "r")
	bob.Send(harness.Request("ws.join", "j", fmt.Sprintf(`{"room":"r","since":{"epoch":%q,"offset":0}}`, at.Epoch)))
	bob.sees("2")
	assert.Len(t, bob.other, 2)
}

// TestPresenceErrors holds the errors of RoomPresence and of the options.
func TestPresenceErrors(t *testing.T) {
	m := harness.NewManager(t)
	for _, p := range []ws.Presence{{MaxList: -1}, {MaxList: 100_001}, {Interval: -1}} {
		_, err := m.CreateRoom("r", nil, ws.WithPresence(p))
		require.ErrorIs(t, err, ws.ErrInvalidConfig)
		assert.ErrorContains(t, err, "Presence.")
	}
	_, err := m.RoomPresence("r")
	require.ErrorIs(t, err, ws.ErrRoomNotFound)
	_, err = m.CreateRoom("plain", nil)
	require.NoError(t, err)
	_, err = m.RoomPresence("plain")
	require.ErrorIs(t, err, ws.ErrNoPresence)
	_, err = m.CreateRoom("r", nil, ws.WithPresence(ws.Presence{}))
	require.NoError(t, err)
	at, err := m.RoomPresence("r")
	require.NoError(t, err)
	assert.Zero(t, at)
}

// TestPresenceStorm holds that many users who come at once make few notifications, and that all
// members know all of them in the end.
func TestPresenceStorm(t *testing.T) {
	users := harness.FewerUnderRace(2000)
	s := startPresence(t, ws.Presence{List: true, MaxList: 5000, Interval: 100 * time.Millisecond})
	begin := time.Now()
	clients := make([]*watcher, users)
	var group sync.WaitGroup
	for part := range 4 {
		group.Go(func() {
			for i := part; i < users; i += 4 {
				clients[i] = watch(s.Dial(harness.Native, fmt.Sprint("user=", i+1)), "r")
				clients[i].Send(harness.Request("ws.join", "j", `{"room":"r"}`))
			}
		})
	}
	group.Wait()
	for _, i := range []int{0, users / 2, users - 1} {
		clients[i].until(func() bool { return len(clients[i].users) == users })
	}
	clients[0].users = nil
	clients[0].ask("ws.presence")
	clients[0].until(func() bool { return len(clients[0].users) == users })
	assert.Equal(t, (users+499)/500, clients[0].pages)
	most := 2 + uint64(time.Since(begin)/(100*time.Millisecond))
	assert.LessOrEqual(t, s.Stats().Presence.Published, most)
	assert.LessOrEqual(t, s.Stats().Presence.Snapshots, uint64(users+1))
}

// TestPresenceRandom joins, leaves, hangs up and reads at random. At rest each member has the list of
// those that are there.
func TestPresenceRandom(t *testing.T) {
	p := fast
	p.LeaveHold = 20 * time.Millisecond
	p.MaxList = 6
	s := startPresence(t, p)
	ann := enter(s, harness.Native, "user=100")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for range harness.FewerUnderRace(200) {
				c, err := s.TryDial(harness.Native, fmt.Sprint("user=", 1+rng.IntN(8)))
				if err != nil {
					t.Error(err)
					return
				}
				for range rng.IntN(4) {
					c.Send(harness.Request("ws.join", "j", `{"room":"r"}`))
					if rng.IntN(3) == 0 {
						c.Send(harness.Request("ws.leave", "l", `{"room":"r"}`))
					}
				}
				c.Abort()
			}
		})
	}
	go func() {
		group.Wait()
		_ = s.BroadcastToRoom("r", []byte("end"), nil)
	}()
	ann.until(func() bool { return slices.Contains(ann.other, "end") })
	harness.Eventually(t, func() bool {
		at, err := s.RoomPresence("r")
		return err == nil && at.Users == 1 && s.GetClientCount() == 1
	}, "clients that have gone are present")
	ann.users = nil
	ann.ask("ws.presence")
	ann.sees("100")
}

// BenchmarkJoinLeave measures a join and a leave on the caller's side.
func BenchmarkJoinLeave(b *testing.B) {
	for name, opts := range map[string][]ws.RoomOption{
		"plain": nil, "presence": {ws.WithPresence(ws.Presence{List: true})},
	} {
		b.Run(name, func(b *testing.B) {
			s := harness.Start(b, ws.WithAuthenticate(harness.ByQuery))
			_, err := s.CreateRoom("r", nil, opts...)
			require.NoError(b, err)
			c, sc := s.DialClient(harness.Native, "user=1")
			defer c.Close()
			go func() {
				for {
					if _, err := harness.ReadFrame(c.R); err != nil {
						return
					}
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				if err := sc.JoinRoom("r"); err != nil {
					b.Fatal(err)
				}
				sc.LeaveRoom("r")
			}
		})
	}
}
