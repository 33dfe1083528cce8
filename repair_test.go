package ws_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// storm is a room on three nodes that loses messages and connections, with members that come and go.
type storm struct {
	t     *testing.T
	nodes []clusterNode
	size  int
	wipes bool
	ended atomic.Bool // nothing breaks any more
	last  atomic.Pointer[ws.Position]

	mu      sync.Mutex
	stored  map[ws.Position]int // messages whose publish has returned a position, guarded by mu
	epochs  map[string]bool     // guarded by mu
	follows []*follower         // guarded by mu
}

// follower is a client in the storm, with all that it has received over its connections.
type follower struct {
	position ws.Position
	events   []followed
}

// followed is a message, a gap or a join.
type followed struct {
	ws.Position // of the message; of the join; behind the gap
	text        string
	after       ws.Position // before the event
	gap         bool
	joined      bool
}

// TestHistoriesInAStorm has links cut, messages lost, appends fail and stores wiped, while members on
// three nodes follow the room and move between the nodes. Each of them gets all messages in the order
// of the store, or a gap.
func TestHistoriesInAStorm(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := &storm{
				t: t, size: []int{10_000, 30}[seed%2], wipes: seed >= 2,
				stored: make(map[ws.Position]int), epochs: make(map[string]bool),
			}
			s.nodes = storedNodes(t, 3, ws.History{Size: s.size, Bytes: -1},
				ws.WithCluster(ws.ClusterConfig{UnsubscribeDelay: 5 * time.Millisecond}))
			if seed%2 == 1 {
				s.nodes[0].hub.ShareOffsets()
			}
			s.run(seed)
			s.check()
		})
	}
}

func (s *storm) run(seed uint64) {
	var publishers, members sync.WaitGroup
	for i := range 3 {
		publishers.Go(func() { s.publish(i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	for i := range 8 {
		members.Go(func() { s.follow(rand.New(rand.NewPCG(seed, 100+uint64(i)))) })
	}
	s.breakThings(rand.New(rand.NewPCG(seed, 1000)))
	s.ended.Store(true)
	publishers.Wait()
	for _, n := range s.nodes {
		n.link.LoseStored(0)
		n.link.Lose(0)
		n.link.FailAppend(0, false)
		n.link.Mend()
	}
	for _, n := range s.nodes {
		n.awaitLink()
	}
	at := s.nodes[0].say(-1)
	s.last.Store(&at)
	members.Wait()
}

// publish publishes numbers from one node until nothing breaks any more.
func (s *storm) publish(node int, rng *rand.Rand) {
	for i := node * 1_000_000; !s.ended.Load(); i++ {
		at, err := s.nodes[node].PublishEvent(context.Background(), "r", "n", i)
		if err == nil {
			s.mu.Lock()
			s.stored[at] = i
			s.epochs[at.Epoch] = true
			s.mu.Unlock()
		}
		<-time.After(time.Duration(rng.IntN(3000)) * time.Microsecond)
	}
}

// breakThings breaks the links and the store.
func (s *storm) breakThings(rng *rand.Rand) {
	for range 80 {
		n := s.nodes[rng.IntN(3)]
		switch rng.IntN(8) {
		case 0, 1:
			n.link.Cut()
		case 2, 3:
			n.link.Mend()
		case 4:
			n.link.LoseStored(1 + rng.IntN(4))
		case 5:
			n.link.Lose(1 + rng.IntN(4))
		case 6:
			n.link.FailAppend(1, rng.IntN(2) == 0)
		case 7:
			if s.wipes && rng.IntN(2) == 0 {
				n.hub.Wipe()
			} else if s.size < 1000 {
				n.hub.Drop("r", rng.IntN(20))
			}
		}
		<-time.After(time.Duration(rng.IntN(20)) * time.Millisecond)
		for _, n := range s.nodes {
			if rng.IntN(3) > 0 {
				n.link.Mend()
			}
		}
	}
}

// follow is the life of a member.
func (s *storm) follow(rng *rand.Rand) {
	f := &follower{}
	s.mu.Lock()
	s.follows = append(s.follows, f)
	s.mu.Unlock()
	for !f.done(s) {
		c := s.nodes[rng.IntN(3)].Dial(harness.Native)
		if f.join(c) {
			for range 1 + rng.IntN(200) {
				if f.done(s) {
					break
				}
				f.read(c)
			}
		}
		_ = c.Close()
	}
}

// done reports whether the member has got the last message.
func (f *follower) done(s *storm) bool {
	last := s.last.Load()
	return last != nil && f.position.Epoch == last.Epoch && f.position.Offset >= last.Offset
}

// join joins from the position.
func (f *follower) join(c *harness.Client) bool {
	data := `{"room":"r"}`
	if f.position.Epoch != "" {
		data = fmt.Sprintf(`{"room":"r","since":{"epoch":%q,"offset":%d}}`, f.position.Epoch, f.position.Offset)
	}
	c.Send(harness.Request("ws.join", "j", data))
	var reply struct {
		Code int
		Data ws.Position
	}
	payload := c.Next().Payload
	require.NoError(c.T, json.Unmarshal(payload, &reply))
	for isPlainGap(payload) {
		payload = c.Next().Payload
		require.NoError(c.T, json.Unmarshal(payload, &reply))
	}
	if reply.Code == 503 {
		return false
	}
	require.Equal(c.T, 200, reply.Code, "%s", payload)
	if f.position.Epoch == "" {
		f.note(followed{Position: reply.Data, joined: true})
	}
	return true
}

func (f *follower) note(e followed) {
	e.after = f.position
	f.events = append(f.events, e)
	f.position = e.Position
}

// isPlainGap reports whether the message is the gap of all messages without a room.
func isPlainGap(payload []byte) bool {
	var msg struct{ Event, Room string }
	return json.Unmarshal(payload, &msg) == nil && msg.Event == "ws.gap" && msg.Room == ""
}

// read reads a message or a gap.
func (f *follower) read(c *harness.Client) {
	var msg harness.RoomMessage
	payload := c.Next().Payload
	require.NoError(c.T, json.Unmarshal(payload, &msg))
	if isPlainGap(payload) {
		return
	}
	if msg.Event == "ws.gap" {
		var g ws.RoomGap
		require.NoError(c.T, json.Unmarshal(msg.Data, &g))
		if g.Reason != ws.GapEpoch {
			assert.Equal(c.T, f.position, ws.Position{Epoch: g.Epoch, Offset: g.After}, "%s", payload)
		}
		f.note(followed{Position: ws.Position{Epoch: g.Epoch, Offset: g.Next - 1}, gap: true})
		return
	}
	prev := msg.Offset - 1
	if msg.Prev != nil {
		prev = *msg.Prev
	}
	assert.LessOrEqual(c.T, prev, f.position.Offset, "%s", payload)
	assert.Greater(c.T, msg.Offset, f.position.Offset, "%s", payload)
	f.note(followed{Position: ws.Position{Epoch: f.position.Epoch, Offset: msg.Offset}, text: string(msg.Data)})
}

// check compares all that members have received with all that was stored.
func (s *storm) check() {
	gaps, messages := 0, 0
	for i, f := range s.follows {
		for _, e := range f.events {
			switch {
			case e.gap:
				gaps++
			case !e.joined:
				messages++
				s.note(i, e)
			}
		}
	}
	s.checkOrder()
	s.t.Logf("%d messages, %d read, %d gaps, %d epochs; %+v", len(s.stored), messages, gaps, len(s.epochs),
		s.nodes[0].Stats().Cluster)
	if !s.wipes && s.size >= 1000 {
		assert.Zero(s.t, gaps)
	}
	assert.Greater(s.t, messages, 100)
}

// note notes a message that a member has received.
func (s *storm) note(member int, e followed) {
	number, err := strconv.Atoi(e.text)
	require.NoError(s.t, err)
	if known, ok := s.stored[e.Position]; ok { // else its publish has failed
		require.Equal(s.t, known, number, "member %d: %v", member, e.Position)
	} else {
		s.stored[e.Position] = number
	}
}

// checkOrder holds that no message is missing before another one.
func (s *storm) checkOrder() {
	all := make(map[string][]uint64)
	for at := range s.stored {
		all[at.Epoch] = append(all[at.Epoch], at.Offset)
	}
	for _, offsets := range all {
		slices.Sort(offsets)
	}
	for i, f := range s.follows {
		for _, e := range f.events {
			if e.gap || e.joined {
				continue
			}
			place, _ := slices.BinarySearch(all[e.Epoch], e.Offset)
			if place > 0 && all[e.Epoch][place-1] > e.after.Offset {
				s.t.Fatalf("member %d lacks %d between %v and %v", i, all[e.Epoch][place-1], e.after, e.Position)
			}
		}
	}
}

// TestStoreErrors holds the errors of publishes and joins while the store cannot be reached, and those
// of a store that fails.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	warm := nodes[0].member("r")
	warm.Join("")
	nodes[0].link.FailAppend(1, true)
	_, err := nodes[0].PublishEvent(context.Background(), "r", "n", 1)
	require.Error(t, err)
	require.False(t, errors.Is(err, ws.ErrBrokerUnavailable))
	take(warm, 1) // it was stored all the same
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = nodes[0].PublishEvent(ended, "r", "n", 2)
	require.ErrorIs(t, err, context.Canceled)
	for _, n := range nodes {
		n.link.Cut()
		harness.Eventually(t, func() bool { return !n.Stats().Cluster.Up }, "the link is up")
		_, err = n.PublishEvent(context.Background(), "r", "n", 3)
		require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	}
	cold := nodes[1].member("r")
	cold.Send(harness.Request("ws.join", "1", `{"room":"r"}`))
	cold.ExpectReply("1", 503, "broker unavailable")
	_, err = nodes[1].RoomPosition("r")
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	second := nodes[0].member("r")
	assert.Zero(t, second.Join("")) // the room is warm there
	for _, n := range nodes {
		n.link.Mend()
		n.awaitLink()
	}
	expectGap(cold.Client, "") // for messages to all clients
	at, err := nodes[1].RoomPosition("r")
	require.NoError(t, err)
	assert.Equal(t, warm.Position, at)
	cold.Join("")
	nodes[1].say(4)
	for _, m := range []*harness.Member{warm, second, cold} {
		take(m, 4)
	}
}

// TestLostStoredMessages holds that messages which are lost without a word come soon: with the next message, or
// when the room is silent.
func TestLostStoredMessages(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	m := nodes[1].member("r")
	m.Join("")
	nodes[1].link.LoseStored(2)
	for i := range 3 {
		nodes[0].say(i)
	}
	take(m, 0, 1, 2)
	nodes[1].link.LoseStored(1)
	nodes[0].say(3)
	take(m, 3)
	nodes[1].link.Lose(1)
	nodes[0].say(4)
	take(m, 4)
	nodes[1].link.Cut()
	nodes[0].say(5)
	nodes[1].link.Mend()
	take(m, 5)
	assert.Empty(t, m.Gaps)
	harness.Eventually(t, func() bool { return nodes[1].Stats().Cluster.Repairs >= 4 }, "repairs are not counted")
}

// TestWipedStore holds that members learn of a new history once, and go on in it.
func TestWipedStore(t *testing.T) {
	t.Parallel()
	nodes := storedNodes(t, 2, ws.History{})
	members := []*harness.Member{nodes[0].member("r"), nodes[1].member("r")}
	for _, m := range members {
		m.Join("")
	}
	for i := range 5 {
		nodes[0].say(i)
	}
	for _, m := range members {
		take(m, 0, 1, 2, 3, 4)
	}
	nodes[0].hub.Wipe()
	at := nodes[1].say(5)
	for _, m := range members {
		require.Equal(t, "ws.gap", m.Take().Event)
		require.Equal(t, ws.GapEpoch, m.Gaps[0].Reason)
		require.Equal(t, at, m.Position)
	}
	nodes[0].say(6)
	for _, m := range members {
		take(m, 6)
		assert.Len(t, m.Gaps, 1)
	}
	late := nodes[0].member("r")
	late.Position = members[0].Position
	assert.Zero(t, late.Rejoin())
	assert.True(t, slices.Equal([]uint64{2}, members[0].Got[5:]))
}
