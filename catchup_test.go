package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// followTo reads the response to a join and then messages until the position has that offset. It
// is for goroutines that are not the test's.
func followTo(m *harness.Member, offset uint64) error {
	for joined := false; !joined || m.Position.Offset < offset; {
		f, err := harness.ReadFrame(m.R)
		if err != nil {
			return err
		}
		if joined {
			if _, err := m.Follow(f.Payload); err != nil {
				return err
			}
			continue
		}
		var e harness.Envelope
		if err := json.Unmarshal(f.Payload, &e); err != nil || e.Code != 200 {
			return fmt.Errorf("%.200s: %w", f.Payload, err)
		}
		joined = true
	}
	return nil
}

// tiles reports whether the messages and the gaps of m cover all offsets from first to last once.
func tiles(m *harness.Member, first, last uint64) bool {
	var lost uint64
	for _, g := range m.Gaps {
		lost += g.Next - 1 - g.After
	}
	return uint64(len(m.Got))+lost == last-first+1
}

// TestRejoinStorm has many clients come back at once, each with another position, while a publisher
// outruns a short history. Half of them read nothing until it has ended.
func TestRejoinStorm(t *testing.T) {
	const before, last = 30, 230
	clients := harness.FewerUnderRace(500)
	s := startHistory(t, ws.History{Size: 10, Bytes: -1}, smallBuffers)
	publisher, bystander := dialMember(s, harness.Native, "r"), dialMember(s, harness.NetHTTP, "other")
	publisher.Join("")
	_, err := s.CreateRoom("other", nil, ws.WithHistory(ws.History{Size: 1000, Bytes: -1}))
	require.NoError(t, err)
	bystander.Join("")
	publishSome(t, s, "r", 1, before)
	members := make([]*harness.Member, clients)
	for i := range members {
		members[i] = dialMember(s, harness.Native, "r")
		members[i].Position = ws.Position{Epoch: publisher.Position.Epoch, Offset: uint64(i % (before + 1))}
	}
	var readers sync.WaitGroup
	published, errs := make(chan struct{}), make([]error, clients)
	for i, m := range members {
		m.Send(harness.Request("ws.join", "j", `{"room":"r",`+m.Since()+`}`))
		readers.Go(func() {
			if i%2 == 0 {
				<-published
			}
			errs[i] = followTo(m, last)
		})
	}
	text := strings.Repeat("x", 1500)
	for range last - before {
		for _, room := range []string{"r", "other"} {
			_, err := s.PublishEvent(context.Background(), room, "n", text)
			require.NoError(t, err)
		}
	}
	close(published)
	readers.Wait()
	publisher.TakeUpTo(last)
	bystander.TakeUpTo(last - before)
	assert.Empty(t, bystander.Gaps)
	gaps := len(publisher.Gaps)
	for i, m := range members {
		require.NoError(t, errs[i], "client %d", i)
		require.True(t, tiles(m, uint64(i%(before+1))+1, last), "client %d: %d messages, %v", i, len(m.Got), m.Gaps)
		gaps += len(m.Gaps)
	}
	assert.EqualValues(t, gaps, s.Stats().Gaps)
	assert.Zero(t, s.Stats().Total.Drops)
}

// rejoiner is a peer that comes back, as its event loop sees it.
type rejoiner struct {
	answered   bool
	next       uint64 // offset that it expects
	got, gaps  int
	gapsAt     uint64 // Next of the last gap
	firstFault string
}

// follow checks a message that the peer has got.
func (p *rejoiner) follow(payload []byte) {
	var msg harness.RoomMessage
	var gap ws.RoomGap
	err := json.Unmarshal(payload, &msg)
	isGap := err == nil && msg.Event == "ws.gap" && json.Unmarshal(msg.Data, &gap) == nil
	switch {
	case p.firstFault != "":
	case err == nil && msg.Type == ws.TypeResponse:
		p.answered = true
	case err == nil && p.answered && msg.Event == "n" && msg.Offset == p.next:
		p.got++
		p.next++
	case isGap && p.answered && gap.After == p.next-1:
		p.gaps++
		p.next, p.gapsAt = gap.Next, gap.Next
	default:
		p.firstFault = fmt.Sprintf("expected %d, got %s", p.next, payload)
	}
}

// Ten thousand clients send ws.join at once, each from another position, while a publisher outruns the
// history. Half of them read nothing until it has ended: they get all that is kept then, and one more
// gap than their join has found.
func TestManyRejoinWhileAPublisherOutruns(t *testing.T) {
	const kept, before, last = 50, 100, 300
	peers := make([]rejoiner, harness.FewerUnderRace(10_000))
	network := ws.NewSimnet()
	network.OnFrame = func(peer int, frame []byte) {
		if op, payload := codec.SplitFrame(frame); op == codec.OpText {
			peers[peer].follow(payload)
		}
	}
	m := harness.NewManager(t, ws.WithListenAddr(""), ws.WithSimnet(network), ws.WithHandlerMode(ws.Inline))
	require.NoError(t, ws.HandleJoin(m, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }))
	go func() { _ = m.Run() }() // ends with the test
	_, err := m.CreateRoom("r", nil, ws.WithHistory(ws.History{Size: kept}))
	require.NoError(t, err)
	publish := func(n int) {
		for range n {
			_, err := m.PublishEvent(context.Background(), "r", "n", "x")
			assert.NoError(t, err)
		}
	}
	network.Connect(len(peers), []byte(harness.UpgradeRequest("/ws", "")))
	network.Wait()
	publish(before)
	at, err := m.RoomPosition("r")
	require.NoError(t, err)
	since := func(peer int) uint64 { return uint64(peer % (before + 1)) }
	for i := range peers {
		peers[i].next = since(i) + 1
		if i%2 == 0 {
			network.Stall(i)
		}
	}
	network.Wait()
	var publisher sync.WaitGroup
	publisher.Go(func() { publish(last - before) })
	for i := range peers {
		network.Send(i, []byte(harness.Frame(gobwas.OpText, harness.Request("ws.join", "j",
			fmt.Sprintf(`{"room":"r","since":{"epoch":%q,"offset":%d}}`, at.Epoch, since(i))))))
	}
	publisher.Wait()
	network.Wait()
	for i := range peers {
		network.Resume(i)
	}
	network.Wait()
	gaps := 0
	for i := range peers {
		p := &peers[i]
		require.Empty(t, p.firstFault, "peer %d", i)
		require.EqualValues(t, last+1, p.next, "peer %d", i)
		if gaps += p.gaps; i%2 == 0 {
			require.Contains(t, []int{1, 2}, p.gaps, "peer %d", i)
			require.LessOrEqual(t, p.gapsAt, uint64(last-kept+1), "peer %d lacks messages that were kept", i)
		}
	}
	assert.EqualValues(t, gaps, m.Stats().Gaps)
	assert.Zero(t, m.Stats().Total.Drops)
}

// A member whose socket is full holds few messages in its queue, and gets the rest from the history.
func TestStalledMemberHoldsFewMessages(t *testing.T) {
	const messages = 100
	r := startSimulatedRoom(t, 1, ws.WithHistory(ws.History{}))
	c := r.clients[0]
	require.NoError(t, c.JoinRoom("r"))
	r.Wait()
	r.Stall(0)
	var one int
	for i := range messages {
		_, err := r.PublishEvent(context.Background(), "r", "n", "x")
		require.NoError(t, err)
		if r.Wait(); i == 0 {
			one = c.QueuedBytes()
		}
	}
	require.Positive(t, one)
	assert.Equal(t, 16*one, c.QueuedBytes())
	r.Resume(0)
	r.Wait()
	assert.Zero(t, c.QueuedBytes())
	assert.EqualValues(t, messages, r.Manager.Stats().Total.MessagesOut)
	assert.EqualValues(t, messages-16, r.Manager.Stats().Replayed)
}

// TestCompressedCatchUp has members with compression stall, fall behind and catch up.
func TestCompressedCatchUp(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		for _, takeover := range []bool{false, true} {
			t.Run(fmt.Sprint("takeover ", takeover), func(t *testing.T) {
				s := start(smallBuffers, oneLoop, ws.WithCompression(ws.CompressionConfig{ContextTakeover: takeover}))
				_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{Size: 1000, Bytes: -1}))
				require.NoError(t, err)
				members := []*deflateClient{connectDeflate(s), connectDeflate(s)}
				for _, c := range members {
					c.takeover = takeover
				}
				s.RangeClients(func(c *ws.Client) bool {
					_, err := c.JoinRoomFrom("r", ws.Since{Last: 1})
					require.NoError(t, err)
					return true
				})
				at, err := s.RoomPosition("r")
				require.NoError(t, err)
				texts := publishTexts(t, s.Manager, 300)
				harness.Eventually(t, func() bool { return s.Stats().Total.Blocked > 0 }, "nobody is blocked")
				for _, c := range members {
					m := &harness.Member{Client: c.Client, Room: "r", Position: at}
					for _, text := range texts {
						_, payload, compressed := c.message()
						require.True(t, compressed || takeover)
						msg, err := m.Follow([]byte(payload))
						require.NoError(t, err)
						require.Equal(t, `"`+text+`"`, string(msg.Data))
					}
					assert.Empty(t, m.Gaps)
					c.Sync()
				}
				harness.Eventually(t, func() bool { return s.Stats().Replayed > 0 }, "nothing is replayed")
				assert.Zero(t, s.Stats().Total.Drops)
			})
		}
	})
}

// The compressed forms of a message count from the fan-out or the catch-up that makes them, and not
// only from the next read on.
func TestCompressedFormsCount(t *testing.T) {
	const messages = 20
	s := startSim(t, 0, byID, ws.WithCompression(ws.CompressionConfig{}))
	_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{Bytes: -1}))
	require.NoError(t, err)
	peer := 0
	join := func(offer string, since ws.Since) (counted int64) {
		if offer != "" {
			offer = "Sec-WebSocket-Extensions: permessage-deflate; " + offer + "\r\n"
		}
		s.net.Connect(1, []byte(harness.UpgradeRequest("/ws?id="+fmt.Sprint(peer), offer)))
		s.net.Wait()
		harness.Eventually(t, func() bool { return s.GetClientCount() == peer+1 }, "peer %d is not connected", peer)
		s.join(peer, since)
		peer++
		return s.Stats().HistoryMemory
	}
	join("", ws.Since{})
	publishTexts(t, s.Manager, messages)
	s.net.Wait()
	plain := s.Stats().HistoryMemory
	join("server_no_context_takeover", ws.Since{})
	publishTexts(t, s.Manager, messages)
	s.net.Wait()
	live := s.Stats().HistoryMemory
	assert.Greater(t, live-plain, plain+messages*1000, "the forms that the fan-out has made")
	last := ws.Since{Last: messages}
	assert.Equal(t, live, join("", last), "a read makes no form")
	assert.Equal(t, live, join("server_no_context_takeover", last), "a form is made once")
	smaller := join("server_no_context_takeover; server_max_window_bits=10", last)
	assert.Greater(t, smaller, live+messages*1000, "the forms that the catch-up has made")
	assert.Equal(t, smaller, join("", last))
}

// publishTexts publishes texts that compress to about two thirds.
func publishTexts(t *testing.T, m *ws.Manager, n int) (texts []string) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range n {
		b := make([]byte, 3000)
		for i := range b {
			b[i] = 'a' + byte(rng.IntN(26))
		}
		texts = append(texts, string(b))
		_, err := m.PublishEvent(context.Background(), "r", "n", texts[len(texts)-1])
		require.NoError(t, err)
	}
	return texts
}

// holes is a room whose offsets have holes, as a store gives them, with peers that follow it.
type holes struct {
	*simRoom
	rng       *rand.Rand
	size      int      // messages that are kept
	published []uint64 // offsets
	base      uint64   // messages up to this offset are lost to all
	members   []*holesMember
}

// holesMember is a peer that has joined.
type holesMember struct {
	start   ws.Position
	stalled bool
}

// TestHolesInTheOffsets has random publications with holes in the offsets, messages that are lost to
// the node, members that stall, and joins from any position. Messages and gaps make up the list of
// the offsets.
func TestHolesInTheOffsets(t *testing.T) {
	for seed := range uint64(20) {
		const peers = 12
		h := &holes{
			simRoom: startSim(t, peers, byID, ws.WithMaxConnections(peers)),
			rng:     rand.New(rand.NewPCG(seed, 1)), size: []int{5, 200}[seed%2],
			members: make([]*holesMember, peers),
		}
		_, err := h.CreateRoom("r", nil, ws.WithHistory(ws.History{Size: h.size, Bytes: -1}))
		require.NoError(t, err)
		for range 150 {
			h.step()
		}
		for peer, m := range h.members {
			if m != nil {
				h.net.Resume(peer)
				h.check(peer, m)
			}
		}
		harness.Shutdown(t, h.Manager)
	}
}

// step does one random thing.
func (h *holes) step() {
	peer := h.rng.IntN(len(h.members))
	at, err := h.RoomPosition("r")
	require.NoError(h.t, err)
	next := at.Offset + 1 + uint64(h.rng.IntN(4))
	switch op := h.rng.IntN(20); {
	case op < 10:
		require.NoError(h.t, ws.PublishStored(h.Manager, "r", next))
		h.published = append(h.published, next)
	case op < 11 && h.rng.IntN(3) == 0:
		require.NoError(h.t, ws.SkipStored(h.Manager, "r", next))
		h.base = next
	case op < 13:
		h.net.Wait()
	case h.members[peer] == nil:
		h.enter(peer, at)
	default:
		m := h.members[peer]
		if m.stalled = !m.stalled; m.stalled {
			h.net.Stall(peer)
		} else {
			h.net.Resume(peer)
		}
	}
}

// enter lets a peer join live, from a position, or with the newest messages.
func (h *holes) enter(peer int, at ws.Position) {
	kept := h.kept()
	m := &holesMember{start: at}
	since, want := ws.Since{}, 0
	switch h.rng.IntN(3) {
	case 0:
		since.Last = h.rng.IntN(8)
		want = min(since.Last, len(kept))
		m.start.Offset = append([]uint64{h.lost()}, kept...)[len(kept)-want]
	case 1:
		m.start.Offset = 0
		if n := len(h.published); n > 0 {
			message := h.rng.IntN(n)
			if h.rng.IntN(2) == 0 { // about the oldest one that is kept
				message = min(n-1, max(0, n-len(kept)-2)+h.rng.IntN(4))
			}
			m.start.Offset = h.published[message]
		}
		since.Position = m.start
		want = len(kept) - countUpTo(kept, m.start.Offset)
	}
	joined := h.join(peer, since)
	require.Equal(h.t, []any{want, at}, []any{joined.Replaying, joined.Position})
	require.Equal(h.t, since.Position != ws.Position{} && since.Position.Offset < h.lost(), joined.Lost)
	h.members[peer] = m
}

// kept returns the offsets that the room keeps.
func (h *holes) kept() []uint64 {
	kept := h.published[countUpTo(h.published, h.base):]
	return kept[max(0, len(kept)-h.size):]
}

// lost returns the offset up to which messages are not kept.
func (h *holes) lost() uint64 {
	if dropped := len(h.published) - len(h.kept()); dropped > 0 {
		return max(h.base, h.published[dropped-1])
	}
	return h.base
}

func countUpTo(offsets []uint64, offset uint64) (n int) {
	for _, o := range offsets {
		if o <= offset {
			n++
		}
	}
	return n
}

// check compares all that a peer has received with the messages that were published.
func (h *holes) check(peer int, m *holesMember) {
	got := h.member(peer, m.start) // fails for a message that does not follow
	at, err := h.RoomPosition("r")
	require.NoError(h.t, err)
	require.Equal(h.t, at.Offset, got.Position.Offset, "peer %d", peer)
	want := h.published[countUpTo(h.published, m.start.Offset):]
	for _, g := range got.Gaps {
		require.LessOrEqual(h.t, g.Next-1, h.lost())
		require.Equal(h.t, at.Epoch, g.Epoch)
		from, to := countUpTo(want, g.After), countUpTo(want, g.Next-1)
		want = append(slices.Clone(want[:from]), want[to:]...)
	}
	require.Equal(h.t, want, append([]uint64{}, got.Got...), "peer %d, gaps %v", peer, got.Gaps)
}

// A handler that runs on the event loop joins from a position and publishes.
func TestInlineHandlersOfHistory(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{}))
		require.NoError(t, err)
		publishSome(t, s, "r", 1, 5)
		require.NoError(t, s.Register("enter", func(c *ws.Client, _ *ws.Message) error {
			if _, err := c.JoinRoomFrom("r", ws.Since{Last: 2}); err != nil {
				return err
			}
			for i := range 3 {
				if _, err := s.PublishEvent(c.Context(), "r", "n", i); err != nil {
					return err
				}
			}
			return nil
		}))
		at, err := s.RoomPosition("r")
		require.NoError(t, err)
		members := make([]*harness.Member, 20)
		for i := range members {
			members[i] = dialMember(s, w, "r")
			members[i].Send(`{"type":"notify","event":"enter","data":null}`)
		}
		last := 5 + 3*uint64(len(members))
		for _, m := range members {
			first := m.Next().Payload
			var msg harness.RoomMessage
			require.NoError(t, json.Unmarshal(first, &msg))
			m.Position = ws.Position{Epoch: at.Epoch, Offset: msg.Offset - 1}
			_, err := m.Follow(first)
			require.NoError(t, err)
			m.TakeUpTo(last)
			m.Sync()
			assert.Empty(t, m.Gaps)
		}
	})
}

// A client that is behind joins a new room of the ID before DeleteRoom has reached the loops: no
// message of the ended room comes among those of the new one.
func TestRejoinBeforeTheOldRoomIsTakenApart(t *testing.T) {
	const old, fresh = 60, 3
	s := startSim(t, 1, byID)
	publish := func(messages int, text string) {
		for range messages {
			_, err := s.PublishEvent(context.Background(), "r", "n", text)
			require.NoError(t, err)
		}
		s.net.Wait()
	}
	for _, text := range []string{"old", "new"} {
		_, err := s.CreateRoom("r", nil, ws.WithHistory(ws.History{}))
		require.NoError(t, err)
		s.join(0, ws.Since{})
		if text == "old" {
			s.net.Stall(0)
			publish(old, text)
			ws.TakeRoomOut(s.Manager, "r")
		}
	}
	s.net.Resume(0)
	s.net.Wait()
	publish(fresh, "new")
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []string
	for _, payload := range s.received[0] {
		var msg harness.RoomMessage
		require.NoError(t, json.Unmarshal([]byte(payload), &msg))
		got = append(got, string(msg.Data))
	}
	require.Less(t, len(got), old, "it was behind")
	queued := len(got) - fresh
	assert.Equal(t, slices.Repeat([]string{`"new"`}, fresh), got[queued:])
	assert.NotContains(t, got[:queued], `"new"`)
}
