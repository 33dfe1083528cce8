package ws_test

import (
	"context"
	"fmt"
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

// held is a presence whose users stay when their connections end.
var held = ws.Presence{List: true, Interval: time.Millisecond, LeaveHold: time.Hour}

// TestPresenceResume holds that a client that comes back with its list pays the changes and not the list.
func TestPresenceResume(t *testing.T) {
	s := startPresence(t, held)
	for i := range 500 {
		enter(s, harness.Native, fmt.Sprint("user=", 1000+i)).Abort()
	}
	ann, bob := enter(s, harness.Native, "user=1"), enter(s, harness.Native, "user=2")
	everyone := func(users int) func() bool {
		return func() bool { return len(ann.users) == users && len(bob.users) == users }
	}
	ann.until(func() bool { return len(ann.users) == 502 })
	bob.until(everyone(502))
	list := bob.taken
	bob.Abort()
	for i := range 3 {
		c := enter(s, harness.Native, fmt.Sprint("user=", 3+i))
		c.until(func() bool { return len(c.users) == 503+i }) // then its list is counted
		ann.until(func() bool { return len(ann.users) == 503+i })
	}
	before := s.Stats().Presence.Snapshots
	bob = bob.resume(s.Dial(harness.Native, "user=2"))
	bob.until(everyone(505))
	assert.Equal(t, ann.names(), bob.names())
	assert.Equal(t, []string{"+3", "+4", "+5"}, bob.news)
	t.Logf("the list has %d bytes, the changes %d", list, bob.taken)
	assert.Less(t, bob.taken, 1000)
	assert.Greater(t, list, 8_000)
	assert.Equal(t, before, s.Stats().Presence.Snapshots)
	harness.Eventually(t, func() bool { return s.Stats().Presence.Resumed == 1 }, "not resumed")

	bob.Abort()
	bob = bob.resume(s.Dial(harness.Native, "user=2")) // nothing has changed
	harness.Eventually(t, func() bool { return s.Stats().Presence.Resumed == 2 }, "not resumed")
	require.NoError(t, s.BroadcastToRoom("r", []byte("end"), nil))
	bob.until(func() bool { return slices.Contains(bob.other, "end") })
	assert.Zero(t, bob.taken)
}

// TestPresenceHole holds that a member that names its list gets the changes that it has missed.
func TestPresenceHole(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := startPresence(t, held)
		ann := enter(s, w, "user=1")
		ann.sees("1")
		had := ann.at
		enter(s, w, "user=2").sees("1 2")
		ann.sees("1 2")
		ann.at, ann.users, ann.resumed = had, map[ws.PresentUser]bool{{User: "1"}: true}, true // it missed the join
		before := s.Stats().Presence.Snapshots
		enter(s, w, "user=3").sees("1 2 3")
		ann.sees("1 2 3")
		harness.Eventually(t, func() bool { return s.Stats().Presence.Resumed == 1 }, "not resumed")
		assert.Equal(t, before+1, s.Stats().Presence.Snapshots, "the list of user 3 alone")
	})
}

// TestPresenceResumeIsRefused holds the answer to a client that names another list than one of this node.
func TestPresenceResumeIsRefused(t *testing.T) {
	s := startPresence(t, held)
	ann := enter(s, harness.Native, "user=1")
	ann.sees("1")
	valid := `{"epoch":"` + ann.at.Epoch + `","version":%s}`
	for name, has := range map[string]string{
		"unknown epoch":     `{"epoch":"other","version":1}`,
		"beyond the newest": fmt.Sprintf(valid, "1000"), "greatest": fmt.Sprintf(valid, "18446744073709551615"),
		"long epoch": `{"epoch":"` + strings.Repeat("e", 1000) + `","version":1}`, "null": `null`,
	} {
		t.Run(name, func(t *testing.T) {
			bob := watch(s.Dial(harness.Native, "user=1"), "r")
			for _, event := range []string{"ws.join", "ws.presence"} {
				bob.users = nil
				bob.Send(harness.Request(event, "q", `{"room":"r","presence":`+has+`}`))
				bob.untilAnswer()
				bob.sees("1")
				assert.Equal(t, ann.at.Epoch, bob.at.Epoch)
			}
		})
	}
	c := s.Dial(harness.Native)
	for has, message := range map[string]string{
		fmt.Sprintf(valid, "-1"): "", fmt.Sprintf(valid, "18446744073709551616"): "", fmt.Sprintf(valid, "1.5"): "",
		fmt.Sprintf(valid, `"1"`): "", `7`: "", `{"epoch":7}`: "", `{}`: "invalid data: presence.epoch is missing",
		`{"version":1}`: "invalid data: presence.epoch is missing",
		`{"epoch":"e"}`: "invalid data: presence.version is missing",
	} {
		for _, event := range []string{"ws.join", "ws.presence"} {
			c.Send(harness.Request(event, "q", `{"room":"r","presence":`+has+`}`))
			c.ExpectReply("q", 400, message)
		}
	}
}

// TestPresenceResumeNumbers holds that a client with a list gets the numbers when there is no list any
// more, and the list when there is one again.
func TestPresenceResumeNumbers(t *testing.T) {
	t.Parallel()
	p := held
	p.MaxList = 10
	s := startPresence(t, p)
	ann := enter(s, harness.Native, "user=1")
	ann.sees("1")
	had := ann.at
	var others []*watcher
	for i := range 10 {
		others = append(others, enter(s, harness.Native, fmt.Sprint("user=", 10+i)))
	}
	ann.counts(11, 11, true)
	ann.Abort()
	ann.users, ann.at = map[ws.PresentUser]bool{}, had
	ann = ann.resume(s.Dial(harness.Native, "user=1"))
	ann.counts(11, 11, true)
	ann.Abort()
	for _, c := range others[:8] {
		c.ask("ws.leave")
	}
	others[9].sees("1 18 19")
	ann.users, ann.at = map[ws.PresentUser]bool{}, had
	ann = ann.resume(s.Dial(harness.Native, "user=1"))
	ann.sees("1 18 19")
}

// TestPresenceResumeElsewhere holds that a client with the list of another node gets the whole list, as
// one whose room has ended meanwhile.
func TestPresenceResumeElsewhere(t *testing.T) {
	t.Parallel()
	p := held
	p.LeaveHold = -1
	nodes := startPresentNodes(t, 2, p, steadyCluster)
	ann, bob := enter(nodes[0].Server, harness.Native, "user=1"), enter(nodes[1].Server, harness.Native, "user=2")
	ann.sees("1 2")
	bob.sees("1 2")
	assert.NotEqual(t, ann.at.Epoch, bob.at.Epoch)
	bob.Abort()
	bob = bob.resume(nodes[0].Dial(harness.Native, "user=2"))
	bob.until(func() bool { return bob.at.Epoch == ann.at.Epoch })
	bob.sees("1 2")
	epoch := bob.at.Epoch
	ann.Abort()
	bob.sees("2")
	bob.Abort()
	harness.Eventually(t, func() bool { return nodes[0].Stats().Presence.Rooms == 0 }, "the presence stays")
	bob = bob.resume(nodes[0].Dial(harness.Native, "user=3"))
	bob.sees("3")
	assert.NotEqual(t, epoch, bob.at.Epoch)
	assert.Zero(t, nodes[0].Stats().Presence.Resumed)
}

// TestPresenceWithStoredHistory holds that a client which comes back gets the messages and the changes of
// presence that it has missed, that a node which dies takes its users with it, and that both go on
// when it comes back.
func TestPresenceWithStoredHistory(t *testing.T) {
	t.Parallel()
	options := []ws.RoomOption{ws.WithPresence(held), ws.WithHistory(ws.History{})}
	nodes := startNodes(t, 3, quickCluster)
	for _, n := range nodes {
		_, err := n.CreateRoom("r", nil, options...)
		require.NoError(t, err)
		require.NoError(t, ws.HandleJoin(n.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) {
			return options, nil
		}))
	}
	publish := func(n clusterNode, v int) ws.Position {
		at, err := n.PublishEvent(context.Background(), "r", "e", v)
		require.NoError(t, err)
		return at
	}
	got := func(w *watcher, v int) {
		data := fmt.Sprintf(`"data":%d,`, v)
		w.until(func() bool {
			return slices.ContainsFunc(w.other, func(msg string) bool { return strings.Contains(msg, data) })
		})
	}
	ann, bob := enter(nodes[0].Server, harness.Native, "user=1"), enter(nodes[0].Server, harness.Native, "user=2")
	carl := enter(nodes[1].Server, harness.Native, "user=3")
	bob.sees("1 2 3")
	at := publish(nodes[1], 1)
	got(bob, 1)
	bob.Abort()
	publish(nodes[2], 2)
	enter(nodes[2].Server, harness.Native, "user=4")
	ann.sees("1 2 3 4")

	users, has := bob.users, bob.at
	bob = watch(nodes[0].Dial(harness.Native, "user=2"), "r")
	bob.users, bob.at, bob.resumed = users, has, true
	bob.Send(harness.Request("ws.join", "q", fmt.Sprintf(
		`{"room":"r","since":{"epoch":%q,"offset":%d},%s}`, at.Epoch, at.Offset, bob.has())))
	bob.sees("1 2 3 4")
	got(bob, 2)
	assert.Len(t, bob.other, 2, "the answer, and the message that it has missed")
	assert.NotZero(t, nodes[0].Stats().Presence.Resumed)

	nodes[1].link.Die()
	ann.sees("1 2 4")
	bob.sees("1 2 4")
	publish(nodes[2], 3)
	got(bob, 3)
	nodes[1].link.Cut()
	nodes[1].link.Mend()
	ann.sees("1 2 3 4")
	got(carl, 3)
	carl.ask("ws.leave")
	ann.sees("1 2 4")
	bob.sees("1 2 4")
}

// wander cuts the connection of w again and again. It comes back with its list or without, and asks for
// changes and lists that it does not need.
func wander(w *watcher, s *harness.Server, query string, rng *rand.Rand) *watcher {
	for range 100 {
		news := w.taken
		switch rng.IntN(8) {
		case 0:
			w.ask("ws.presence")
		case 1:
			w.Send(harness.Request("ws.presence", "again", fmt.Sprintf(`{"room":"r",%s}`, w.has())))
		case 2:
			w.users = nil
			fallthrough
		case 3:
			w = comeBack(w, s.Dial(harness.Native, query))
		case 4, 5:
			w = comeBack(w, s.Dial(harness.Native, query))
			w.until(func() bool { return w.taken > 0 })
		default:
			w.until(func() bool { return w.taken > news })
		}
	}
	return w
}

// comeBack resumes on c if the watcher has a list.
func comeBack(w *watcher, c *harness.Client) *watcher {
	w.Abort()
	next := watch(c, "r")
	if w.users != nil {
		next = w.resume(c)
	} else {
		next.resumed = true
		next.ask("ws.join")
	}
	for at, names := range w.seen {
		if next.seen[at] == "" {
			next.seen[at] = names
		}
	}
	return next
}

// TestPresenceResumeRandom lets users come and go while clients are cut and come back. Each list that they
// have is one that the room had, and the last one is right.
func TestPresenceResumeRandom(t *testing.T) {
	p := fast
	p.LeaveHold = 20 * time.Millisecond
	s := startPresence(t, p)
	ann := enter(s, harness.Native, "username=ann")
	var churn, wandering sync.WaitGroup
	ended := make(chan struct{})
	for i := range uint64(3) {
		churn.Go(func() { comeAndGo(s, rand.New(rand.NewPCG(1, i)), ended) })
	}
	clients := make([]*watcher, 4)
	for i := range clients {
		wandering.Go(func() {
			query := fmt.Sprint("username=w", i)
			w := enter(s, harness.Native, query)
			w.resumed = true
			clients[i] = wander(w, s, query, rand.New(rand.NewPCG(2, uint64(i))))
		})
	}
	go func() {
		wandering.Wait()
		close(ended)
		churn.Wait()
		_ = s.BroadcastToRoom("r", []byte("end"), nil)
	}()
	ann.until(func() bool { return slices.Contains(ann.other, "end") })
	wandering.Wait()
	ann.sees("ann w0 w1 w2 w3")
	for _, w := range clients {
		w.sees("ann w0 w1 w2 w3")
		for at, names := range w.seen {
			require.Equal(t, ann.seen[at], names, "%v", at)
		}
	}
	t.Logf("%d versions, %+v", ann.at.Version, s.Stats().Presence)
	assert.Greater(t, s.Stats().Presence.Resumed, uint64(20)) // all have ended
}

// comeAndGo lets users join and leave.
func comeAndGo(s *harness.Server, rng *rand.Rand, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		default:
		}
		c := enter(s, harness.Native, fmt.Sprint("user=", 1+rng.IntN(8)))
		for range rng.IntN(4) {
			c.ask("ws.leave")
			c.Send(harness.Request("ws.join", "again", `{"room":"r"}`))
			c.users = nil
		}
		c.Abort()
	}
}
