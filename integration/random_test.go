//go:build linux

package integration_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Random operations of several goroutines on many clients, against a model of the messages that
// each of them must have received: all that were published between the return of JoinRoom and the
// call of LeaveRoom, nothing that was published before the one was called or after the other
// returned, each message once, and those of one publisher in order. Some of the clients stop
// reading and go on later: without bounds they lose nothing either; with bounds they may lose
// broadcasts, and the others still lose nothing.
func TestScenarioRandomOperations(t *testing.T) {
	for _, queueBytes := range randomBounds {
		t.Run(boundName(queueBytes), func(t *testing.T) {
			randomOperations(t, randomPlan{
				seed: rand.Uint64(), workers: 6, clients: 36, operations: 2000, queueBytes: queueBytes,
			})
		})
	}
}

// randomBounds are the values of randomPlan.queueBytes.
var randomBounds = []int64{0, 256 << 10}

func boundName(queueBytes int64) string {
	if queueBytes == 0 {
		return "unbounded queues"
	}
	return fmt.Sprintf("queues of %d bytes", queueBytes)
}

// randomPlan is the size of a run.
type randomPlan struct {
	seed                         uint64
	workers, clients, operations int
	queueBytes                   int64 // bound of each client's queue; 0 for none
	scarce                       bool  // descriptors run out at times
}

const (
	rooms     = 6
	wildRooms = 2 // the last of them; joins and deletions of them run at once
	users     = 8

	// stallable is the number of clients for each one that may stall: their sockets are small, and
	// they stop reading at times.
	stallable = 3
	fat       = 64 << 10 // padding of a large message
)

// padding follows the stamp of a large message.
var padding = bytes.Repeat([]byte("padding "), fat/8)

// span is the time of a call, on the model's clock.
type span struct{ call, ret int64 }

// forever is the time of an event that has not happened.
const forever = math.MaxInt64

// stay is the time that a client was somewhere.
type stay struct {
	room        int // -1: connected
	enter, exit span
}

// within reports whether a publish at that time must reach the members that stay.
func (s *stay) within(at span) bool {
	return at.call > s.enter.ret && at.ret < s.exit.call
}

// touches reports whether a publish at that time may reach the members that stay.
func (s *stay) touches(at span) bool {
	return at.ret > s.enter.call && at.call < s.exit.ret
}

// message is one publish that was accepted.
type message struct {
	publisher int
	number    uint32
	at        span
	room      int       // -1 if it went to user or only
	user      int       // -1 if not; 0 is everybody
	only      *identity // nil if it is no direct send
	exclude   *identity
}

// identity is one connection of a random run.
type identity struct {
	number int
	user   int
	conn   *swarmConn
	side   *ws.Client

	stallable bool
	slow      atomic.Bool // it has stalled, be it once

	got    [][2]uint32 // publisher and number; only the swarm's goroutine writes it
	echoed atomic.Int64
	torn   atomic.Bool // a large message came in another shape

	// Of the worker that owns the client.
	stalled   bool
	stays     []*stay // the first is the connection itself
	in        [rooms]*stay
	cutOff    bool  // ended without waiting for messages under way
	confirmed int64 // all that was published before has arrived
}

// randomRun is the state of a random run.
type randomRun struct {
	randomPlan
	*harness.Server
	swarm *clientSwarm
	clock atomic.Int64
	next  atomic.Int64 // number of the next connection

	witnesses []*witness   // one on each loop
	fat       sync.Mutex   // held while a large message is under way
	full      atomic.Int64 // direct sends that a full queue refused
	crowd     sync.Mutex   // held by the worker that takes descriptors

	// Deleting one of the tame rooms excludes joins and leaves, so that the
	// model knows its members.
	deleting [rooms]sync.RWMutex

	mu       sync.Mutex
	all      []*identity                   // guarded by mu
	current  []*identity                   // guarded by mu; by client
	members  [rooms]map[*identity]struct{} // guarded by mu; of tame rooms
	messages []message                     // guarded by mu
}

func randomOperations(t *testing.T, plan randomPlan) {
	t.Logf("seed %d", plan.seed)
	r := &randomRun{randomPlan: plan, current: make([]*identity, plan.clients)}
	r.Server = startScenario(t, unbounded, func(c *ws.Config) {
		c.Broadcast.QueueSize = 32
		if plan.queueBytes > 0 {
			c.QueueBytes = plan.queueBytes
		}
	})
	r.registerTrouble()
	r.swarm = newSwarm(t)
	r.witnesses = witnesses(r.Server, r.swarm)
	for i := range r.members {
		r.members[i] = make(map[*identity]struct{})
	}
	for i := range r.current {
		r.connect(rand.New(rand.NewPCG(plan.seed, uint64(i))), i)
	}
	var working sync.WaitGroup
	for w := range plan.workers {
		working.Go(func() {
			worker := &worker{randomRun: r, index: w, rnd: rand.New(rand.NewPCG(plan.seed, uint64(1000+w)))}
			for n := 0; n < plan.operations && !t.Failed(); n++ {
				worker.step()
			}
		})
	}
	endsInTime(t, "random operations", working.Wait)
	for _, id := range r.current {
		r.confirm(id)
	}
	stats, accept := r.Stats().Total, r.Stats().Accept
	r.Stop() // nothing more can come
	for _, id := range r.all {
		harness.Eventually(t, id.conn.over.Load, "seed %d: end of connection %d", plan.seed, id.number)
	}
	r.check()
	t.Logf("sockets were full %d times, %d messages dropped, %d direct sends refused", stats.BlockedTotal,
		stats.Drops.Full, r.full.Load())
	require.Positive(t, stats.BlockedTotal, "no stall was felt")
	if plan.scarce {
		require.Positive(t, accept.Descriptors.Times, "descriptors never ran out")
	}
}

// span measures a call on the model's clock.
func (r *randomRun) span(call func()) (s span) {
	s.call = r.clock.Add(1)
	call()
	s.ret = r.clock.Add(1)
	return s
}

// connect opens a new connection for a client.
func (r *randomRun) connect(rnd *rand.Rand, client int) {
	number := int(r.next.Add(1))
	id := &identity{number: number, user: 1 + client%users, stallable: r.stallable(client)}
	dial := dialOptions{query: queryOf(id.user, number), onMessage: id.take}
	if id.stallable {
		dial.recvBuf = 4096
	}
	way := r.anyWay(rnd)
	stay := &stay{room: -1, exit: span{forever, forever}}
	stay.enter = r.span(func() {
		var err error
		soon(r.T, func() bool {
			id.conn, err = r.swarm.tryDial(r.AddrOf(way), dial)
			return !errors.Is(err, unix.EMFILE)
		}, "seed %d: no descriptors for a client", r.seed)
		assert.NoError(r.T, err, "seed %d", r.seed)
	})
	if id.conn == nil {
		return
	}
	id.side = serverSide(r.Server, dial.query)
	id.stays = append(id.stays, stay)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, id)
	r.current[client] = id
}

// stallable reports whether a client stops reading at times.
func (r *randomRun) stallable(client int) bool {
	return client/r.workers%stallable == 0
}

// take records a message. It runs on the swarm's goroutine.
func (id *identity) take(b []byte) {
	p, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if p == confirms {
		id.echoed.Store(int64(n))
		return
	}
	id.got = append(id.got, [2]uint32{p, n})
	if b = b[8:]; len(b) > 0 && !bytes.Equal(b, padding) {
		id.torn.Store(true)
	}
}

// confirm waits until the client has received all that was published so far. A
// client that has stalled goes on.
func (r *randomRun) confirm(id *identity) {
	if id.stays[0].exit.call != forever {
		return
	}
	id.resume()
	at := r.clock.Add(1)
	want := id.echoed.Load() + 1
	publish(r.T, func() error { return id.side.SendBytes(stamp(confirms, uint32(want))) })
	if soon(r.T, func() bool { return id.echoed.Load() == want },
		"seed %d, connection %d: not confirmed", r.seed, id.number) {
		id.confirmed = at
	}
}

// stall makes the client stop reading.
func (id *identity) stall() {
	if !id.stalled {
		id.slow.Store(true)
		id.stalled = true
		id.conn.stall()
	}
}

// resume makes the client read again.
func (id *identity) resume() {
	if id.stalled {
		id.stalled = false
		id.conn.resume()
	}
}

// worker is one of the goroutines. It alone operates on the clients
// whose number is its own modulo the number of workers, and publishes to all.
type worker struct {
	*randomRun
	index  int
	rnd    *rand.Rand
	number uint32 // of the last message
}

// step does one random operation.
func (w *worker) step() {
	client := w.index + w.workers*w.rnd.IntN(w.clients/w.workers)
	w.mu.Lock()
	id := w.current[client]
	w.mu.Unlock()
	switch n := w.rnd.IntN(1000); {
	case n < 200:
		w.join(id, w.rnd.IntN(rooms))
	case n < 320:
		w.leave(id, w.rnd.IntN(rooms))
	case n < 325:
		w.delete(w.rnd.IntN(rooms))
	case n < 340:
		w.end(id)
		w.connect(w.rnd, client)
	case n < 345:
		w.confirm(id)
	case n < 375 && id.stallable:
		id.stall()
	case n < 385:
		id.resume()
	case n < 395:
		w.trouble()
	default:
		w.publish()
	}
}

func tame(room int) bool { return room < rooms-wildRooms }

func (w *worker) join(id *identity, room int) {
	w.deleting[room].RLock()
	defer w.deleting[room].RUnlock()
	var err error
	at := w.span(func() { err = id.side.JoinRoom(fmt.Sprint("room ", room)) })
	if !tame(room) {
		return
	}
	if id.in[room] != nil {
		assert.ErrorIs(w.T, err, ws.ErrAlreadyInRoom, "seed %d, connection %d", w.seed, id.number)
		return
	}
	if !assert.NoError(w.T, err, "seed %d, connection %d", w.seed, id.number) {
		return
	}
	stay := &stay{room: room, enter: at, exit: span{forever, forever}}
	id.stays = append(id.stays, stay)
	w.mu.Lock()
	defer w.mu.Unlock()
	id.in[room] = stay
	w.members[room][id] = struct{}{}
}

func (w *worker) leave(id *identity, room int) {
	w.deleting[room].RLock()
	defer w.deleting[room].RUnlock()
	at := w.span(func() { id.side.LeaveRoom(fmt.Sprint("room ", room)) })
	w.left(id, room, at)
}

// left ends a stay in the model, if there is one.
func (w *worker) left(id *identity, room int, at span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stay := id.in[room]; stay != nil {
		stay.exit, id.in[room] = at, nil
		delete(w.members[room], id)
	}
}

func (w *worker) delete(room int) {
	if tame(room) {
		w.deleting[room].Lock()
		defer w.deleting[room].Unlock()
	}
	at := w.span(func() { w.DeleteRoom(fmt.Sprint("room ", room)) })
	if !tame(room) {
		return
	}
	w.mu.Lock()
	members := make([]*identity, 0, len(w.members[room]))
	for id := range w.members[room] {
		members = append(members, id)
	}
	w.mu.Unlock()
	for _, id := range members {
		w.left(id, room, at)
	}
}

// end ends the connection in one of several ways.
func (w *worker) end(id *identity) {
	for room := range rooms {
		w.deleting[room].RLock()
		defer w.deleting[room].RUnlock()
	}
	var at span
	switch w.rnd.IntN(3) {
	case 0: // earlier messages are still sent
		at = w.span(func() { id.side.CloseWithCode(ws.CloseNormal, "") })
		assert.ErrorIs(w.T, id.side.SendBytes([]byte("too late")), ws.ErrConnectionClosed)
		id.resume()
	case 1:
		w.confirm(id)
		id.cutOff = true
		at = w.span(id.conn.abort)
		at.ret = forever // the server hears of it later
	default:
		id.cutOff = true
		at = w.span(id.conn.abort)
		at.ret = forever
	}
	id.stays[0].exit = at
	for room := range rooms {
		w.left(id, room, at)
	}
}

func (w *worker) publish() {
	w.number++
	m := message{publisher: w.index, number: w.number, room: -1, user: -1}
	msg := stamp(w.index, w.number)
	kind := w.rnd.IntN(10)
	toRoomOrAll := kind == 0 || kind > 4 // a direct send counts as queued while it is on its way
	if w.rnd.IntN(60) == 0 && (toRoomOrAll || w.queueBytes == 0) {
		msg = append(msg, padding...)
		w.fat.Lock()
		defer w.fat.Unlock()
		defer w.settle()
	}
	var err error
	switch kind {
	case 0:
		m.user = 0
		m.at = w.span(func() { w.BroadcastAll(msg) })
	case 1:
		m.user = 1 + w.rnd.IntN(users)
		m.at = w.span(func() { w.BroadcastToUser(int64(m.user), msg) })
	case 2, 3, 4:
		m.only = w.anyone()
		m.at = w.span(func() { err = m.only.side.SendBytes(msg) })
	default:
		m.room = w.rnd.IntN(rooms)
		var exclude *ws.Client
		if w.rnd.IntN(4) == 0 {
			m.exclude = w.anyone()
			exclude = m.exclude.side
		}
		m.at = w.span(func() { err = w.BroadcastToRoom(fmt.Sprint("room ", m.room), msg, exclude) })
	}
	if err != nil {
		switch {
		case m.only == nil:
			assert.ErrorIs(w.T, err, ws.ErrRoomNotFound, "seed %d", w.seed)
		case w.queueBytes > 0 && m.only.slow.Load() && errors.Is(err, ws.ErrChannelFull):
			w.full.Add(1)
		default:
			assert.ErrorIs(w.T, err, ws.ErrConnectionClosed, "seed %d", w.seed)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = append(w.messages, m)
}

// settle waits until a large message is written to all clients that have never
// stalled: their queues hold one at most, and so never overflow.
func (r *randomRun) settle() {
	for _, w := range r.witnesses {
		if !w.hear(r.T) {
			return
		}
	}
	r.mu.Lock()
	current := slices.Clone(r.current)
	r.mu.Unlock()
	for _, id := range current {
		soon(r.T, func() bool { return id.slow.Load() || id.side.QueuedBytes() < fat },
			"seed %d, connection %d: a large message stays queued", r.seed, id.number)
	}
}

// anyone returns a connection, of any worker.
func (w *worker) anyone() *identity {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current[w.rnd.IntN(len(w.current))]
}

// check compares the received messages with the model.
func (r *randomRun) check() {
	byPublisher := make([]map[uint32]*message, r.workers)
	for i := range byPublisher {
		byPublisher[i] = make(map[uint32]*message)
	}
	for i := range r.messages {
		m := &r.messages[i]
		byPublisher[m.publisher][m.number] = m
	}
	delivered := 0
	for _, id := range r.all {
		delivered += len(id.got)
		r.checkConnection(id, byPublisher)
	}
	r.T.Logf("%d connections, %d messages published, %d delivered", len(r.all), len(r.messages), delivered)
}

func (r *randomRun) checkConnection(id *identity, sent []map[uint32]*message) {
	what := fmt.Sprintf("seed %d, connection %d", r.seed, id.number)
	require.False(r.T, id.torn.Load(), "%s: a large message came in another shape", what)
	got := make(map[[2]uint32]bool, len(id.got))
	last := make([]uint32, r.workers)
	for _, g := range id.got {
		require.Less(r.T, last[g[0]], g[1], "%s: publisher %d out of order or twice", what, g[0])
		last[g[0]] = g[1]
		got[g] = true
		m := sent[g[0]][g[1]]
		require.NotNil(r.T, m, "%s: message %v was not published", what, g)
		require.True(r.T, r.mayReach(id, m),
			"%s: message %+v was not for it; its stays: %v", what, *m, lazyText(id.history))
	}
	for i := range r.messages {
		m := &r.messages[i]
		if r.mustReach(id, m) {
			require.True(r.T, got[[2]uint32{uint32(m.publisher), m.number}],
				"%s: message %+v is lost; its stays: %v", what, *m, lazyText(id.history))
		}
	}
}

// history prints the stays of a connection.
func (id *identity) history() (text string) {
	for _, s := range id.stays {
		text += fmt.Sprintf("\n%+v", *s)
	}
	return fmt.Sprintf("%s\nconfirmed until %d, cut off: %v, slow: %v", text, id.confirmed, id.cutOff, id.slow.Load())
}

// mayReach reports whether the model allows the delivery.
func (r *randomRun) mayReach(id *identity, m *message) bool {
	if m.exclude == id {
		return false
	}
	if m.user == 0 && m.at.call < id.stays[0].exit.ret {
		return true // also to a member that came while it was under way: no order is promised there
	}
	if !id.stays[0].touches(m.at) {
		return false
	}
	switch {
	case m.only != nil:
		return m.only == id
	case m.user >= 0:
		return m.user == id.user
	case !tame(m.room):
		return true
	}
	return slices.ContainsFunc(id.stays[1:], func(s *stay) bool { return s.room == m.room && s.touches(m.at) })
}

// mustReach reports whether the model demands the delivery.
func (r *randomRun) mustReach(id *identity, m *message) bool {
	if !id.stays[0].within(m.at) || m.exclude == id || (id.cutOff && m.at.ret >= id.confirmed) {
		return false
	}
	switch {
	case m.only != nil:
		return m.only == id // also if it has stalled: the sender was told that it is queued
	case r.queueBytes > 0 && id.slow.Load():
		return false
	case m.user >= 0:
		return m.user == 0 || m.user == id.user
	case !tame(m.room):
		return false
	}
	return slices.ContainsFunc(id.stays[1:], func(s *stay) bool { return s.room == m.room && s.within(m.at) })
}
