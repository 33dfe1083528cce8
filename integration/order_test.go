//go:build linux

package integration_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
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

// numberLog holds the messages that one client has received: the numbers of each publisher. Only
// the swarm's goroutine writes it, until the swarm is quiet.
type numberLog [][]uint32

// stamp encodes a message that names its publisher and its number.
func stamp(publisher int, number uint32) []byte {
	b := make([]byte, 0, 24)
	b = binary.BigEndian.AppendUint32(b, uint32(publisher))
	return binary.BigEndian.AppendUint32(b, number)
}

// take records a stamped message.
func (l numberLog) take(payload []byte) {
	p := binary.BigEndian.Uint32(payload)
	l[p] = append(l[p], binary.BigEndian.Uint32(payload[4:]))
}

// publish repeats a publish as its errors allow: nothing was sent then.
func publish(t testing.TB, publish func() error) {
	for {
		err := publish()
		if errors.Is(err, ws.ErrBroadcastTimeout) || errors.Is(err, ws.ErrChannelFull) {
			continue
		}
		assert.NoError(t, err)
		return
	}
}

// Several publishers send to rooms, users, clients and everybody at once: each
// client receives each publisher's messages in the order sent, whichever way
// they were sent, all of them and each once.
func TestScenarioOrderOfPublishers(t *testing.T) {
	for _, ring := range []int{1, 8, 1024} {
		t.Run(fmt.Sprintf("ring=%d", ring), func(t *testing.T) { orderOfPublishers(t, ring) })
	}
}

func orderOfPublishers(t *testing.T, ring int) {
	const clients, users, rooms, publishers, messages = 60, 12, 5, 6, 1500
	s := startScenario(t, unbounded, func(c *ws.Config) { c.Broadcast.QueueSize = ring })
	swarm := newSwarm(t)
	conns := make([]*swarmConn, clients)
	logs := make([]numberLog, clients)
	members := make([][]int, rooms)
	for i := range conns {
		way := []harness.Way{harness.Native, harness.NetHTTP}[i/2%2]
		logs[i] = make(numberLog, publishers)
		conns[i] = swarm.dial(s.AddrOf(way), dialOptions{query: queryOf(1+i%users, i), onMessage: logs[i].take})
	}
	sides := make([]*ws.Client, clients)
	for query, c := range serverSides(s) {
		i, err := strconv.Atoi(query[strings.LastIndex(query, "=")+1:])
		require.NoError(t, err)
		sides[i] = c
		for r := range rooms {
			if i%(r+1) == 0 {
				require.NoError(t, c.JoinRoom(fmt.Sprint("room ", r)))
				members[r] = append(members[r], i)
			}
		}
	}

	audience := &orderAudience{Server: s, sides: sides, users: users, members: members}
	want := make([]numberLog, publishers) // by publisher, then client
	var publishing sync.WaitGroup
	for p := range publishers {
		want[p] = make(numberLog, clients)
		publishing.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(p), 1))
			for n := range uint32(messages) {
				audience.publish(rnd, stamp(p, n), func(i int) { want[p][i] = append(want[p][i], n) })
			}
		})
	}
	endsInTime(t, "publishing", publishing.Wait)
	for i, c := range conns {
		total := 0
		for p := range publishers {
			total += len(want[p][i])
		}
		harness.Eventually(t, func() bool { return c.received.Load() >= int64(total) }, "%d messages on connection %d: %v",
			total, i, lazyText(func() string { return fmt.Sprint(c.received.Load()) }))
	}
	s.Stop() // nothing more can come
	for i := range conns {
		for p := range publishers {
			require.Equal(t, want[p][i], logs[i][p], "publisher %d to client %d", p, i)
		}
	}
	assert.Zero(t, s.Stats().Total.Drops.Full)
}

// orderAudience is the clients that a publisher can reach.
type orderAudience struct {
	*harness.Server
	sides   []*ws.Client
	users   int     // client i belongs to user 1+i%users
	members [][]int // by room
}

// publish sends msg in one of the ways, drawn from rnd, and reports each client that
// receives it.
func (a *orderAudience) publish(rnd *rand.Rand, msg []byte, receives func(i int)) {
	switch rnd.IntN(8) {
	case 0:
		a.BroadcastAll(msg)
		for i := range a.sides {
			receives(i)
		}
	case 1:
		user := rnd.IntN(a.users)
		a.BroadcastToUser(int64(1+user), msg)
		for i := user; i < len(a.sides); i += a.users {
			receives(i)
		}
	case 2, 3, 4:
		r, exclude := rnd.IntN(len(a.members)), rnd.IntN(len(a.sides))
		publish(a.T, func() error { return a.BroadcastToRoom(fmt.Sprint("room ", r), msg, a.sides[exclude]) })
		for _, i := range a.members[r] {
			if i != exclude {
				receives(i)
			}
		}
	default:
		i := rnd.IntN(len(a.sides))
		publish(a.T, func() error { return a.sides[i].SendBytes(msg) })
		receives(i)
	}
}

// The publishers are inline handlers: each broadcasts to rooms that have its own client and members
// on other loops, and then sends to its client and to another. They must not wait: a message that a
// full ring refuses was not sent.
func TestScenarioOrderOfInlinePublishers(t *testing.T) {
	inline := map[string]func(m *ws.Manager, handle func(*ws.Client, []byte)) ws.Option{
		"mode of the manager": func(*ws.Manager, func(*ws.Client, []byte)) ws.Option { return ws.WithHandlerMode(ws.Inline) },
		"mode of the route":   func(*ws.Manager, func(*ws.Client, []byte)) ws.Option { return ws.WithHandlerMode(ws.Pooled) },
	}
	for name, mode := range inline {
		for _, ring := range []int{2, 1024} {
			t.Run(fmt.Sprintf("%s, ring=%d", name, ring), func(t *testing.T) {
				orderOfInlinePublishers(t, mode(nil, nil), ring)
			})
		}
	}
}

// inlinePublisher is one client whose handler publishes. Only its event
// loop touches it.
type inlinePublisher struct {
	number  uint32
	refused int
	want    numberLog // by client
}

func orderOfInlinePublishers(t *testing.T, mode ws.Option, ring int) {
	const clients, requests, each = 16, 150, 6
	const rooms = 3
	s := startScenario(t, unbounded, mode, func(c *ws.Config) {
		c.Broadcast.QueueSize = ring
		c.MailboxSize = 1 << 20
	})
	sides := make([]*ws.Client, clients)
	publishers := make([]*inlinePublisher, clients)
	index := make(map[*ws.Client]int) // written before the first request
	var handled atomic.Int64
	require.NoError(t, s.Register("publish", func(c *ws.Client, msg *ws.Message) error {
		defer handled.Add(1)
		me := index[c]
		p := publishers[me]
		try := func(err error, reach ...int) {
			switch {
			case err == nil:
				for _, i := range reach {
					p.want[i] = append(p.want[i], p.number)
				}
			case errors.Is(err, ws.ErrChannelFull):
				p.refused++
			default:
				t.Error(err)
			}
			p.number++
		}
		for k := range each {
			room := (me + k) % rooms
			var members []int
			for i := room; i < clients; i += rooms {
				members = append(members, i)
			}
			try(s.BroadcastToRoom(fmt.Sprint("room ", room), stamp(me, p.number), nil), members...)
			try(c.SendBytes(stamp(me, p.number)), me)
			other := (me + 1 + k) % clients
			try(sides[other].SendBytes(stamp(me, p.number)), other)
		}
		return nil
	}, ws.RunInline()))

	swarm := newSwarm(t)
	conns := make([]*swarmConn, clients)
	logs := make([]numberLog, clients)
	for i := range conns {
		way := []harness.Way{harness.Native, harness.NetHTTP}[i/2%2]
		query := queryOf(0, i)
		logs[i] = make(numberLog, clients)
		conns[i] = swarm.dial(s.AddrOf(way), dialOptions{query: query, onMessage: logs[i].take})
		sides[i] = serverSide(s, query)
		index[sides[i]] = i
		publishers[i] = &inlinePublisher{want: make(numberLog, clients)}
		require.NoError(t, sides[i].JoinRoom(fmt.Sprint("room ", i%rooms)))
	}
	request := maskedFrame(gobwas.OpText, []byte(`{"type":"notify","event":"publish"}`))
	var sending sync.WaitGroup
	for half := range 2 {
		sending.Go(func() {
			for n := range requests {
				for i := half; i < clients; i += 2 {
					burst := strings.Repeat(string(request), 1+n%3) // several in one read too
					assert.NoError(t, conns[i].raw([]byte(burst)))
				}
			}
		})
	}
	endsInTime(t, "sending", sending.Wait)
	total := 0
	for n := range requests {
		total += (1 + n%3) * clients
	}
	harness.Eventually(t, func() bool { return handled.Load() == int64(total) }, "%d requests: %v", total,
		lazyText(func() string { return fmt.Sprint(handled.Load()) }))
	s.Stop()
	refused := 0
	for i, c := range conns {
		harness.Eventually(t, c.over.Load, "end of connection %d", i)
		require.EqualValues(t, 1001, c.closeCode.Load())
		for me, p := range publishers {
			require.Equal(t, p.want[i], logs[i][me], "publisher %d to client %d", me, i)
		}
	}
	for _, p := range publishers {
		refused += p.refused
	}
	t.Logf("%d requests, %d of %d publishes refused", total, refused, total*each*3)
}

// A client's requests are handled in turn by a pooled and an inline handler:
// the replies come in that order, too.
func TestScenarioOrderOfMixedHandlers(t *testing.T) {
	const clients, pairs = 8, 500
	s := startScenario(t, func(c *ws.Config) { c.MailboxSize = 1 << 20 }, unbounded)
	reply := func(c *ws.Client, msg *ws.Message) error { return c.SendBytes(msg.Data) }
	require.NoError(t, s.Register("pooled", reply, ws.RunPooled()))
	require.NoError(t, s.Register("inline", reply, ws.RunInline()))
	swarm := newSwarm(t)
	conns := make([]*swarmConn, clients)
	var disorder atomic.Int64
	for i := range conns {
		next := 0
		conns[i] = swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, i), onMessage: func(b []byte) {
			if string(b) != strconv.Itoa(next) {
				disorder.Add(1)
			}
			next++
		}})
	}
	for n := range 2 * pairs {
		event := []string{"pooled", "inline"}[n%2]
		for _, c := range conns {
			require.NoError(t, c.send(gobwas.OpText,
				fmt.Appendf(nil, `{"type":"request","event":%q,"request_id":"r","data":%d}`, event, n)))
		}
	}
	for i, c := range conns {
		harness.Eventually(t, func() bool { return c.received.Load() == 2*pairs }, "replies on connection %d", i)
	}
	assert.Zero(t, disorder.Load(), "replies out of order")
}

// heldServer is a server with one event loop that an inline handler holds.
type heldServer struct {
	*harness.Server
	free        chan struct{}             // ends the hold
	held, other *ws.Client                // on the loop held, on the other one
	conns       map[*ws.Client]*swarmConn // the clients' ends
	texts       map[*ws.Client]*texts
	inline      chan func(*ws.Client) // the handler of the "run" message, on the loop of its client
}

// texts collects messages.
type texts struct {
	mu    sync.Mutex
	texts []string // guarded by mu
}

func (l *texts) take(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = append(l.texts, string(b))
}

func (l *texts) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.texts...)
}

// holdLoop starts two loops with a client on each, both in the room
// "both" and each in a room of its own, "held" and "other"; then an inline
// handler of the first client holds its loop.
func holdLoop(t *testing.T, opts ...ws.Option) *heldServer {
	t.Helper()
	h := &heldServer{
		free: make(chan struct{}), conns: make(map[*ws.Client]*swarmConn),
		texts: make(map[*ws.Client]*texts), inline: make(chan func(*ws.Client), 1),
	}
	h.Server = startScenario(t, append([]ws.Option{ws.WithHandlerMode(ws.Inline)}, opts...)...)
	holding := make(chan struct{})
	h.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
		switch string(payload) {
		case "hold":
			close(holding)
			<-h.free
		case "run":
			(<-h.inline)(c)
		}
	})
	swarm := newSwarm(t)
	t.Cleanup(sync.OnceFunc(h.release))
	var byLoop [2]*ws.Client
	for i := 0; byLoop[0] == nil || byLoop[1] == nil; i++ {
		before := h.Stats()
		query := queryOf(0, i)
		texts := new(texts)
		conn := swarm.dial(h.AddrOf(harness.Native), dialOptions{query: query, onMessage: texts.take})
		after := h.Stats()
		for loop := range byLoop {
			if after.Loops[loop].Opened > before.Loops[loop].Opened && byLoop[loop] == nil {
				c := serverSide(h.Server, query)
				byLoop[loop], h.conns[c], h.texts[c] = c, conn, texts
			}
		}
	}
	h.held, h.other = byLoop[0], byLoop[1]
	require.NoError(t, h.held.JoinRoom("held"))
	require.NoError(t, h.other.JoinRoom("other"))
	require.NoError(t, h.held.JoinRoom("both"))
	require.NoError(t, h.other.JoinRoom("both"))
	require.NoError(t, h.BroadcastToRoom("both", []byte("ready"), nil))
	for c := range h.conns {
		h.expect(c, "ready")
	}
	require.NoError(t, h.conns[h.held].send(gobwas.OpText, []byte("hold")))
	harness.Receive(t, holding, "the hold")
	return h
}

// release ends the hold.
func (h *heldServer) release() {
	select {
	case <-h.free:
	default:
		close(h.free)
	}
}

// expect waits until c has received just these texts, in that order.
func (h *heldServer) expect(c *ws.Client, texts ...string) {
	h.T.Helper()
	harness.Eventually(h.T, func() bool { return len(h.texts[c].list()) >= len(texts) }, "want %q, got %v", texts,
		lazyText(func() string { return fmt.Sprintf("%q", h.texts[c].list()) }))
	require.Equal(h.T, texts, h.texts[c].list())
}

// onOther runs fn in an inline handler on the loop that is not held.
func (h *heldServer) onOther(fn func(*ws.Client)) {
	h.T.Helper()
	done := make(chan struct{})
	h.inline <- func(c *ws.Client) {
		defer close(done)
		fn(c)
	}
	require.NoError(h.T, h.conns[h.other].send(gobwas.OpText, []byte("run")))
	harness.Receive(h.T, done, "the inline handler")
}

// One loop's ring is full and stays full: a publish waits for as long as it was told, and then
// nobody has the message, on any loop. A handler on another loop does not wait: its task keeps its
// place beside the ring, and its client is paused. When the loop is free again everything flows.
func TestScenarioFullRing(t *testing.T) {
	const ring, timeout = 4, 2 * time.Second
	h := holdLoop(t, func(c *ws.Config) { c.Broadcast = ws.BroadcastConfig{QueueSize: ring, Timeout: timeout} })
	for i := range ring {
		require.NoError(t, h.BroadcastToRoom("held", fmt.Appendf(nil, "in the ring %d", i), nil))
	}
	refused := map[string]func() error{
		"room on the loop held": func() error { return h.BroadcastToRoom("held", []byte("no"), nil) },
		"room on both loops":    func() error { return h.BroadcastToRoom("both", []byte("no"), nil) },
		"prepared": func() error {
			return h.BroadcastPrepared("both", ws.Prepare(ws.OpText, []byte("no")), nil)
		},
	}
	var refusals sync.WaitGroup
	for name, publish := range refused {
		refusals.Go(func() {
			began := time.Now()
			assert.ErrorIs(t, publish(), ws.ErrBroadcastTimeout, name)
			assert.GreaterOrEqual(t, time.Since(began), timeout, name)
		})
	}
	refusals.Wait()
	require.ErrorIs(t, h.held.SendBytes([]byte("no")), ws.ErrChannelFull)
	require.NoError(t, h.BroadcastToRoom("other", []byte("to the other loop"), nil))
	h.expect(h.other, "ready", "to the other loop")

	h.onOther(func(c *ws.Client) {
		began := time.Now()
		assert.NoError(t, h.BroadcastToRoom("both", []byte("inline: both"), nil))
		assert.NoError(t, h.BroadcastToRoom("held", []byte("inline: held"), nil))
		assert.NoError(t, h.held.SendBytes([]byte("inline: direct")))
		h.held.LeaveRoom("both") // neither of these may wait, or be lost
		assert.NoError(t, h.held.JoinRoom("late"))
		assert.Less(t, time.Since(began), timeout, "waited on an event loop")
		assert.NoError(t, c.SendBytes([]byte("from the handler")))
	})
	h.expect(h.other, "ready", "to the other loop", "inline: both", "from the handler")
	harness.Eventually(t, func() bool { return h.Stats().Total.Paused == 1 }, "the publisher's connection is not paused")

	// Publishers that wait get their turn when the loop is free again.
	var waiting sync.WaitGroup
	began := make(chan struct{}, 8)
	for range cap(began) {
		waiting.Go(func() {
			began <- struct{}{}
			publish(t, func() error { return h.BroadcastToRoom("held", []byte("waited"), nil) })
		})
	}
	for range cap(began) {
		<-began
	}
	h.release()
	endsInTime(t, "waiting publishers", waiting.Wait)
	want := []string{
		"ready", "in the ring 0", "in the ring 1", "in the ring 2", "in the ring 3",
		"inline: both", "inline: held", "inline: direct",
	}
	for range cap(began) {
		want = append(want, "waited")
	}
	h.expect(h.held, want...)
	require.NoError(t, h.BroadcastToRoom("both", []byte("both: not for those that left"), nil))
	require.NoError(t, h.BroadcastToRoom("late", []byte("late"), nil))
	h.expect(h.held, append(want, "late")...)
	h.expect(h.other, "ready", "to the other loop", "inline: both", "from the handler", "both: not for those that left")
	harness.Eventually(t, func() bool {
		total := h.Stats().Total
		return total.InboxLen == 0 && total.Paused == 0
	}, "tasks wait, or the publisher is still paused")
}

// A broadcast that was accepted is not lost to a client that reads because of later messages to
// that client.
func TestScenarioBroadcastAheadOfDirectSends(t *testing.T) {
	const queue = 16
	h := holdLoop(t, ws.WithMessageQueueSize(queue), func(c *ws.Config) {
		c.Broadcast.Timeout = 100 * time.Millisecond // a sender ahead of the loop waits so long
	})
	require.NoError(t, h.BroadcastToRoom("held", []byte("broadcast"), nil))
	want := []string{"ready", "broadcast"}
	for i := 0; ; i++ {
		text := fmt.Sprint("direct ", i)
		if err := h.held.SendBytes([]byte(text)); err != nil {
			require.ErrorIs(t, err, ws.ErrChannelFull)
			break
		}
		want = append(want, text)
	}
	require.Len(t, want, 2+queue)
	h.release()
	h.expect(h.held, want...)
}

// Publishers that find the smallest ring full never sleep past its emptying.
func TestScenarioWaitingPublishersWake(t *testing.T) {
	const publishers, messages = 8, 2000
	s := startScenario(t, unbounded, func(c *ws.Config) {
		c.Broadcast = ws.BroadcastConfig{QueueSize: 1, Timeout: 20 * time.Second}
		c.Loops = 1
	})
	swarm := newSwarm(t)
	conn := swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, 0)})
	client := serverSide(s, queryOf(0, 0))
	require.NoError(t, client.JoinRoom("room"))
	var publishing sync.WaitGroup
	var late atomic.Int64
	for range publishers {
		publishing.Go(func() {
			for range messages {
				if err := s.BroadcastToRoom("room", []byte("x"), nil); err != nil {
					late.Add(1)
				}
			}
		})
	}
	endsInTime(t, "publishing", publishing.Wait)
	assert.Zero(t, late.Load(), "publishes timed out although the loop was idle")
	harness.Eventually(t, func() bool { return conn.received.Load() == publishers*messages-late.Load() }, "all messages")
}

// A client leaves and joins a room on two goroutines while a third publishes to
// it: whatever the order, no message comes twice.
func TestScenarioConcurrentJoinAndLeave(t *testing.T) {
	const rounds = 300_000
	s := startScenario(t, unbounded)
	swarm := newSwarm(t)
	var twice atomic.Int64
	last := int64(-1)
	swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, 0), onMessage: func(b []byte) {
		n, _ := strconv.ParseInt(string(b), 10, 64)
		if n <= last {
			twice.Add(1)
		}
		last = n
	}})
	client := serverSide(s, queryOf(0, 0))
	_, err := s.CreateRoom("room", nil)
	require.NoError(t, err)
	var stop atomic.Bool
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for !stop.Load() {
				if err := client.JoinRoom("room"); err != nil {
					assert.ErrorIs(t, err, ws.ErrAlreadyInRoom)
				}
			}
		})
		others.Go(func() {
			for !stop.Load() {
				client.LeaveRoom("room")
			}
		})
	}
	for n := range rounds {
		require.NoError(t, s.BroadcastToRoom("room", strconv.AppendInt(nil, int64(n), 10), nil))
	}
	stop.Store(true)
	endsInTime(t, "joining and leaving", others.Wait)
	s.Stop()
	assert.Zero(t, twice.Load(), "messages that came twice")
}
