package redisbroker_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

// keep bounds the histories of tests that do not test the bounds.
var keep = ws.History{Size: 10_000, Bytes: 1 << 30, TTL: 10 * time.Minute}

func history(room string) ws.Topic { return ws.Topic{Kind: ws.TopicHistory, Name: room} }

// connectHistory starts a HistoryBroker and waits for its connection.
func connectHistory(t testing.TB, n *node, cfg redisbroker.Config) *redisbroker.HistoryBroker {
	t.Helper()
	b, err := redisbroker.NewHistoryBroker(withDefaults(cfg))
	require.NoError(t, err)
	require.NoError(t, b.Start(n))
	t.Cleanup(func() { stop(t, n, b.Broker) })
	eventually(t, n.isUp, "no connection")
	return b
}

// historyPair starts two HistoryBrokers.
func historyPair(t *testing.T, cfg redisbroker.Config) (a, b *redisbroker.HistoryBroker, an, bn *node) {
	t.Helper()
	an, bn = newNode(t, "a"), newNode(t, "b")
	return connectHistory(t, an, cfg), connectHistory(t, bn, cfg), an, bn
}

// add appends messages and returns the position of the last one.
func add(t *testing.T, b *redisbroker.HistoryBroker, room string, keep ws.History, msgs ...string) (p ws.Position) {
	t.Helper()
	for _, msg := range msgs {
		next, err := b.Append(t.Context(), room, []byte(msg), keep)
		require.NoError(t, err)
		require.NotEmpty(t, next.Epoch)
		if p.Offset > 0 {
			require.Equal(t, ws.Position{Epoch: p.Epoch, Offset: p.Offset + 1}, next)
		}
		p = next
	}
	return p
}

func read(t testing.TB, b *redisbroker.HistoryBroker, room string, after uint64, limit int) ws.HistoryPage {
	t.Helper()
	page, err := b.Read(t.Context(), room, after, limit)
	require.NoError(t, err)
	for i, msg := range page.Messages {
		require.Equal(t, page.Base+1+uint64(i), msg.Offset, "a hole")
		require.LessOrEqual(t, msg.Offset, page.Top)
		require.GreaterOrEqual(t, msg.Age, time.Duration(0))
		require.Less(t, msg.Age, keep.TTL)
	}
	if len(page.Messages) == 0 {
		require.Equal(t, page.Top, page.Base)
	}
	return page
}

func heads(t testing.TB, b *redisbroker.HistoryBroker, rooms ...string) []ws.Position {
	t.Helper()
	positions, err := b.Heads(t.Context(), rooms)
	require.NoError(t, err)
	require.Len(t, positions, len(rooms))
	return positions
}

// storedIn returns the messages that have come to the node.
func (n *node) storedIn(room string) (all []stored) {
	n.read(func() { all = n.stored[room] })
	return all
}

func dataOf(page ws.HistoryPage) (texts []string) {
	for _, msg := range page.Messages {
		texts = append(texts, string(msg.Data))
	}
	return texts
}

func testStoredMessages(t *testing.T, cfg redisbroker.Config) {
	a, b, an, bn := historyPair(t, cfg)
	require.NoError(t, b.Subscribe([]ws.Topic{history("r")}))
	require.NoError(t, a.Subscribe([]ws.Topic{history("r"), room("r")}))
	msgs := []string{"one", "", "two words", "\x00\r\n\xff", strings.Repeat("x", 100_000)}
	last := add(t, a, "r", keep, msgs...)
	require.EqualValues(t, len(msgs), last.Offset)
	for _, n := range []*node{an, bn} {
		eventually(t, func() bool { return len(n.storedIn("r")) == len(msgs) }, "messages are missing")
		for i, msg := range n.storedIn("r") {
			p := ws.Position{Epoch: last.Epoch, Offset: uint64(i) + 1}
			require.Equal(t, stored{p, uint64(i), msgs[i]}, msg)
		}
		require.Zero(t, n.count(history("r"))+n.count(room("r")), "a message in Receive")
	}
	page := read(t, b, "r", 0, 100)
	require.Equal(t, last, ws.Position{Epoch: page.Epoch, Offset: page.Top})
	require.Equal(t, msgs, dataOf(page))
	page = read(t, b, "r", 3, 100)
	require.Equal(t, msgs[3:], dataOf(page))
	require.Equal(t, []ws.Position{last}, heads(t, b, "r"))
	for _, after := range []uint64{5, 6, 1<<64 - 1} {
		page = read(t, b, "r", after, 100)
		require.Empty(t, page.Messages)
		require.EqualValues(t, 5, page.Top)
	}
	next := add(t, b, "r", keep, "of the other node")
	require.Equal(t, ws.Position{Epoch: last.Epoch, Offset: 6}, next)
}

// testPages reads more than one answer holds, in number and in bytes.
func testPages(t *testing.T, cfg redisbroker.Config) {
	b := connectHistory(t, newNode(t, "a"), cfg)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 150 {
				_, err := b.Append(t.Context(), "many", nil, keep)
				assert.NoError(t, err)
			}
		})
	}
	running.Wait()
	add(t, b, "large", keep, strings.Split(strings.Repeat(strings.Repeat("x", 100_000)+" ", 24)+"x", " ")...)
	for room, top := range map[string]uint64{"many": 1200, "large": 25} {
		var got, pages uint64
		for got < top {
			page := read(t, b, room, got, 10_000)
			require.Equal(t, got, page.Base)
			require.Equal(t, top, page.Top)
			require.NotEmpty(t, page.Messages)
			got += uint64(len(page.Messages))
			pages++
		}
		require.EqualValues(t, 2, pages, room)
		require.Len(t, read(t, b, room, 0, 1).Messages, 1)
		require.Len(t, read(t, b, room, 0, 13).Messages, 13)
		require.Len(t, read(t, b, room, 0, 0).Messages, 1)
	}
}

// testStoredOrder publishes with 8 goroutines on two nodes.
func testStoredOrder(t *testing.T, cfg redisbroker.Config) {
	a, b, an, bn := historyPair(t, cfg)
	const publishers, each = 8, 250
	for _, broker := range []*redisbroker.HistoryBroker{a, b} {
		require.NoError(t, broker.Subscribe([]ws.Topic{history("r")}))
	}
	sent := make([]string, publishers*each+1) // by offset
	var mu sync.Mutex
	var running sync.WaitGroup
	for p := range publishers {
		running.Go(func() {
			broker := []*redisbroker.HistoryBroker{a, b}[p%2]
			for i := range each {
				text := fmt.Sprint(p, " ", i)
				position, err := broker.Append(t.Context(), "r", []byte(text), keep)
				if assert.NoError(t, err) {
					mu.Lock()
					assert.Empty(t, sent[position.Offset], "an offset twice")
					sent[position.Offset] = text
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	for _, n := range []*node{an, bn} {
		eventually(t, func() bool { return len(n.storedIn("r")) == publishers*each }, "messages are missing")
		for i, msg := range n.storedIn("r") {
			require.EqualValues(t, i+1, msg.position.Offset)
			require.Equal(t, sent[i+1], msg.data)
		}
	}
	page := read(t, b, "r", 1500, 10_000)
	require.Equal(t, sent[1501:], dataOf(page))
}

func testNamesOfHistories(t *testing.T, cfg redisbroker.Config) {
	b := connectHistory(t, newNode(t, "a"), cfg)
	names := []string{"", " ", ".", "{", "}", "{}", "{a}", "\x00\r\n", "\xff", "a.s", strings.Repeat("x", 10_000)}
	for _, name := range names {
		require.EqualValues(t, 2, add(t, b, name, keep, "of ", name).Offset, "%q", name)
	}
	for i, head := range heads(t, b, names...) {
		require.EqualValues(t, 2, head.Offset)
		require.Equal(t, []string{"of ", names[i]}, dataOf(read(t, b, names[i], 0, 10)), "%q", names[i])
	}
}

func testHeads(t *testing.T, cfg redisbroker.Config) {
	b := connectHistory(t, newNode(t, "a"), cfg)
	require.Empty(t, heads(t, b))
	var names []string
	var want []ws.Position
	for i := range 1000 {
		names = append(names, fmt.Sprint("room ", i))
		var p ws.Position
		if i%3 == 0 {
			p = add(t, b, names[i], keep, "a", "b")
		}
		want = append(want, p)
	}
	require.Equal(t, want, heads(t, b, names...))
}

func testForget(t *testing.T, cfg redisbroker.Config) {
	b := connectHistory(t, newNode(t, "a"), cfg)
	p := add(t, b, "r", keep, "a", "b")
	other := add(t, b, "other", keep, "a")
	require.NoError(t, b.Forget(t.Context(), "r"))
	require.NoError(t, b.Forget(t.Context(), "r"), "a room that nobody knows")
	require.Equal(t, []ws.Position{{}, other}, heads(t, b, "r", "other"))
	next := add(t, b, "r", keep, "c")
	require.EqualValues(t, 1, next.Offset)
	require.NotEqual(t, p.Epoch, next.Epoch)
	require.Equal(t, []string{"c"}, dataOf(read(t, b, "r", 0, 10)))
}

// testUnknownRoom reads a room before its first message: the message has the same epoch.
func testUnknownRoom(t *testing.T, cfg redisbroker.Config) {
	b := connectHistory(t, newNode(t, "a"), cfg)
	page := read(t, b, "r", 0, 10)
	require.Zero(t, page.Top)
	require.NotEmpty(t, page.Epoch)
	require.Equal(t, []ws.Position{{Epoch: page.Epoch}}, heads(t, b, "r"))
	require.Equal(t, page, read(t, b, "r", 7, 10))
	require.Equal(t, ws.Position{Epoch: page.Epoch, Offset: 1}, add(t, b, "r", keep, "a"))
}

// TestBoundsOfHistories holds that a history keeps as much as it has to, and not much more.
func TestBoundsOfHistories(t *testing.T) {
	s := newServer(t)
	b := connectHistory(t, newNode(t, "a"), s.config())
	for name, test := range map[string]struct {
		keep        ws.History
		msg, count  int
		least, most int
	}{
		"size":            {ws.History{Size: 100, Bytes: -1, TTL: -1}, 10, 500, 100, 200},
		"size one":        {ws.History{Size: 1, Bytes: -1, TTL: -1}, 10, 300, 1, 101},
		"size of large":   {ws.History{Size: 20, Bytes: -1, TTL: -1}, 5000, 100, 20, 21},
		"bytes":           {ws.History{Size: 1000, Bytes: 10_000, TTL: -1}, 100, 300, 100, 125},
		"bytes of large":  {ws.History{Size: 1000, Bytes: 10_000, TTL: -1}, 20_000, 10, 1, 1},
		"bytes and size":  {ws.History{Size: 50, Bytes: 20_000, TTL: -1}, 100, 300, 50, 150},
		"bytes of nobody": {ws.History{Size: 1000, Bytes: 0, TTL: -1}, 100, 10, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			msg := strings.Repeat("x", test.msg)
			for i := range test.count {
				add(t, b, name, test.keep, msg)
				if i%7 > 0 {
					continue
				}
				kept, err := strconv.Atoi(s.do("XLEN", "ws.s."+name))
				require.NoError(t, err)
				require.GreaterOrEqual(t, kept, min(i+1, test.least))
				require.LessOrEqual(t, kept, test.most)
			}
			page := read(t, b, name, 0, 1000)
			require.EqualValues(t, test.count, page.Top)
			require.EqualValues(t, test.count-len(page.Messages), page.Base)
			require.Equal(t, "-1", s.do("PTTL", "ws.s."+name))
			require.Equal(t, "-1", s.do("PTTL", "ws.m."+name))
		})
	}
}

// TestExpiryOfHistories holds that the evidence of the head outlives the messages.
func TestExpiryOfHistories(t *testing.T) {
	s := newServer(t)
	b := connectHistory(t, newNode(t, "a"), s.config())
	short := keep
	short.TTL = 100 * time.Millisecond
	p := add(t, b, "r", short, "a", "b")
	life := func() time.Duration {
		ms, err := strconv.Atoi(s.do("PTTL", "ws.m.r"))
		require.NoError(t, err)
		return time.Duration(ms) * time.Millisecond
	}
	eventually(t, func() bool { return s.do("EXISTS", "ws.s.r") == "0" }, "the messages stay")
	require.InDelta(t, 24*time.Hour, life(), float64(patience))
	page := read(t, b, "r", 1, 10)
	require.Equal(t, ws.HistoryPage{Epoch: p.Epoch, Base: 2, Top: 2, Messages: page.Messages}, page)
	require.Empty(t, page.Messages)

	s.do("PEXPIRE", "ws.m.r", "3600000")
	require.Equal(t, []ws.Position{p}, heads(t, b, "r"))
	require.InDelta(t, 24*time.Hour, life(), float64(patience), "the evidence is not kept")
	require.Equal(t, ws.Position{Epoch: p.Epoch, Offset: 3}, add(t, b, "r", keep, "c"))
	page = read(t, b, "r", 1, 10)
	require.EqualValues(t, 2, page.Base, "the second message was dropped")
	require.Equal(t, "-1", func() string {
		long := keep
		long.TTL = -1
		add(t, b, "r", long, "d")
		return s.do("PTTL", "ws.s.r")
	}(), "the limit is the newest one")

	read(t, b, "unknown", 0, 1)
	ms, err := strconv.Atoi(s.do("PTTL", "ws.m.unknown"))
	require.NoError(t, err)
	require.LessOrEqual(t, ms, 3600_000, "a room without messages")
}

// TestAgeOfMessages holds that the age is told by the server.
func TestAgeOfMessages(t *testing.T) {
	b := connectHistory(t, newNode(t, "a"), newServer(t).config())
	begin := time.Now()
	add(t, b, "r", keep, "a")
	eventually(t, func() bool {
		age := read(t, b, "r", 0, 1).Messages[0].Age
		require.LessOrEqual(t, age, time.Since(begin)+time.Millisecond)
		return age >= 20*time.Millisecond
	}, "the message gets no older")
}

// TestLastOffset holds that offsets stay exact up to the last one that clients can read.
func TestLastOffset(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	b := connectHistory(t, n, s.config())
	require.NoError(t, b.Subscribe([]ws.Topic{history("r")}))
	first := add(t, b, "r", keep, "a")
	s.do("HSET", "ws.m.r", "offset", strconv.Itoa(1<<53-4))
	require.EqualValues(t, 1<<53-1, add(t, b, "r", keep, "b", "c", "d").Offset)
	page := read(t, b, "r", 1<<53-4, 10)
	require.Equal(t, []string{"b", "c", "d"}, dataOf(page))
	next := add(t, b, "r", keep, "e")
	require.EqualValues(t, 1, next.Offset)
	require.NotEqual(t, first.Epoch, next.Epoch)
	eventually(t, func() bool { return len(n.storedIn("r")) == 5 }, "messages are missing")
	require.EqualValues(t, 1<<53-1, n.storedIn("r")[3].position.Offset)
}

// cpu returns the CPU time of the server.
func (s *server) cpu() (total time.Duration) {
	s.t.Helper()
	for line := range strings.Lines(s.do("INFO", "cpu")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			require.NoError(s.t, err)
			total += time.Duration(seconds * float64(time.Second))
		}
	}
	return total
}

func BenchmarkAppend(b *testing.B) {
	s := newServer(b)
	broker := connectHistory(b, newNode(b, "a"), s.config())
	msg, keep := make([]byte, 256), ws.History{Size: 100, Bytes: 256 << 10, TTL: time.Minute}
	for _, rooms := range []int{1, 1000} {
		b.Run(fmt.Sprint("rooms=", rooms), func(b *testing.B) {
			var next atomic.Int64
			before := s.cpu()
			defer func() { b.ReportMetric(float64(s.cpu()-before)/float64(b.N), "server-ns/op") }()
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					room := fmt.Sprint("room ", next.Add(1)%int64(rooms))
					if _, err := broker.Append(b.Context(), room, msg, keep); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkHeads(b *testing.B) {
	s := newServer(b)
	broker := connectHistory(b, newNode(b, "a"), s.config())
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("room ", i)
		read(b, broker, names[i], 0, 1)
	}
	before := s.cpu()
	defer func() { b.ReportMetric(float64(s.cpu()-before)/float64(b.N), "server-ns/op") }()
	for b.Loop() {
		heads(b, broker, names...)
	}
}

func BenchmarkRead(b *testing.B) {
	s := newServer(b)
	broker := connectHistory(b, newNode(b, "a"), s.config())
	for range 100 {
		if _, err := broker.Append(b.Context(), "r", make([]byte, 512), keep); err != nil {
			b.Fatal(err)
		}
	}
	before := s.cpu()
	defer func() { b.ReportMetric(float64(s.cpu()-before)/float64(b.N), "server-ns/op") }()
	for b.Loop() {
		if _, err := broker.Read(b.Context(), "r", 0, 100); err != nil {
			b.Fatal(err)
		}
	}
}
