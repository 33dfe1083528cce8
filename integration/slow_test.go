//go:build linux

package integration_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// stall makes the client stop reading: the swarm does not look at its socket
// any more, until resume.
func (c *swarmConn) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, unix.EpollCtl(c.swarm.epfd, unix.EPOLL_CTL_DEL, c.fd, nil))
	}
}

// resume makes the client read again.
func (c *swarmConn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		assert.NoError(c.swarm.t, c.swarm.watch(c.fd))
	}
}

// watch puts a socket into the swarm's epoll.
func (s *clientSwarm) watch(fd int) error {
	return unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)})
}

// soon is harness.Eventually for goroutines other than the test's: it
// reports whether the condition holds in time, and marks the test as failed if
// not. Its patience is shorter than that of who waits for the goroutine.
func soon(t testing.TB, condition func() bool, format string, args ...any) bool {
	deadline := time.Now().Add(harness.Patience / 2)
	poll := time.NewTicker(100 * time.Microsecond)
	defer poll.Stop()
	for ; !condition(); <-poll.C {
		if t.Failed() {
			return false
		}
		if time.Now().After(deadline) {
			return assert.Fail(t, "condition never held", append([]any{format}, args...)...)
		}
	}
	return true
}

// confirms is the publisher's number in a stamp that confirms all
// before it.
const confirms = math.MaxUint32

// witness is a client that reads at all times.
type witness struct {
	*swarmConn
	side  *ws.Client
	heard atomic.Int64 // number of the last stamp of confirms
}

// witnesses opens one connection on each event loop.
func witnesses(s *harness.Server, swarm *clientSwarm) []*witness {
	s.T.Helper()
	found := make([]*witness, len(s.Stats().Loops))
	for try := 0; slices.Contains(found, nil); try++ {
		before := s.Stats()
		w := new(witness)
		query := queryOf(0, -1-try)
		w.swarmConn = swarm.dial(s.AddrOf(harness.Native), dialOptions{query: query, onMessage: func(b []byte) {
			if len(b) >= 8 && binary.BigEndian.Uint32(b) == confirms {
				w.heard.Store(int64(binary.BigEndian.Uint32(b[4:])))
			}
		}})
		w.side = serverSide(s, query)
		after := s.Stats()
		loop := slices.IndexFunc(found, func(w *witness) bool { return w == nil })
		for i := range found {
			if after.Loops[i].Opened > before.Loops[i].Opened {
				loop = i
			}
		}
		if found[loop] != nil {
			w.hangUp()
			continue
		}
		found[loop] = w
	}
	return found
}

// hear sends the witness a message and waits until it has come: its loop has
// then written, or tried to, what was posted to it before.
func (w *witness) hear(t testing.TB) bool {
	next := w.heard.Load() + 1
	publish(t, func() error { return w.side.SendBytes(stamp(confirms, uint32(next))) })
	return soon(t, func() bool { return w.heard.Load() == next }, "the witness heard nothing")
}

// reuser is one worker of TestScenarioReusedDescriptors: it opens
// connections one after the other, each in a room of its own.
type reuser struct {
	*harness.Server
	swarm *clientSwarm
	way   harness.Way
	id    atomic.Uint64 // of the running connection
	wrong atomic.Int64  // messages that were not for their connection, or came in another shape
}

// reuseSize is the size of a message: a few of them fill a socket.
const reuseSize = 16 << 10

// reuseRoom is the room of a connection.
func reuseRoom(id uint64) string { return fmt.Sprint("of connection ", id) }

// message is the n-th message to a connection: its identity is all over it.
func (r *reuser) message(id, n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, id<<32|n), reuseSize/8)
}

// dial opens a connection and joins its room. The connection checks that it
// gets nothing but what was published there.
func (r *reuser) dial(id uint64) (*swarmConn, *ws.Client) {
	query := queryOf(1, int(id))
	last := uint64(0)
	conn, err := r.swarm.tryDial(r.AddrOf(r.way), dialOptions{query: query, recvBuf: 4096, onMessage: func(b []byte) {
		stamp := binary.BigEndian.Uint64(b)
		if len(b) != reuseSize || stamp>>32 != id || stamp&math.MaxUint32 <= last ||
			!bytes.Equal(b[8:], b[:len(b)-8]) {
			r.wrong.Add(1)
		}
		last = stamp & math.MaxUint32
	}})
	if !assert.NoError(r.T, err) {
		return nil, nil
	}
	side := serverSide(r.Server, query)
	assert.NoError(r.T, side.JoinRoom(reuseRoom(id)))
	r.id.Store(id)
	return conn, side
}

// publish publishes to the running connection's room, and to that of the one
// before, whose member is gone or goes, until stop.
func (r *reuser) publish(stop *atomic.Bool) {
	for n := uint64(1); !stop.Load(); n++ {
		for _, id := range []uint64{r.id.Load(), r.id.Load() - 1} {
			if err := r.BroadcastToRoom(reuseRoom(id), r.message(id, n), nil); err != nil {
				assert.ErrorIs(r.T, err, ws.ErrRoomNotFound)
			}
		}
	}
}

// usedDescriptors knows which of the server's descriptors were in use.
type usedDescriptors struct {
	mu     sync.Mutex
	seen   map[int]int // connections by descriptor; guarded by mu
	reused int         // connections whose descriptor another had before; guarded by mu
}

// note finds the server's descriptor of a connection: the socket in this
// process whose peer it is.
func (f *usedDescriptors) note(c *swarmConn) {
	c.mu.Lock()
	local, err := unix.Getsockname(c.fd)
	c.mu.Unlock()
	if err != nil {
		return
	}
	for fd := range 1024 {
		if peer, err := unix.Getpeername(fd); err == nil && reflect.DeepEqual(peer, local) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.seen[fd]++; f.seen[fd] > 1 {
				f.reused++
			}
			return
		}
	}
}

// Connections are reset while their queues are full and their sockets blocked,
// and new ones take their descriptors at once, while publishers go on: no
// connection sees a byte that was for another.
func TestScenarioReusedDescriptors(t *testing.T) {
	const workers, rounds, queueBytes = 4, 30, 256 << 10
	s := startScenario(t, ws.WithQueueBytes(queueBytes), func(c *ws.Config) { c.Broadcast.QueueSize = 64 })
	swarm := newSwarm(t)
	fds := &usedDescriptors{seen: make(map[int]int)}
	var working sync.WaitGroup
	reusers := make([]*reuser, workers)
	for w := range reusers {
		r := &reuser{Server: s, swarm: swarm, way: []harness.Way{harness.Native, harness.NetHTTP}[w/3]}
		reusers[w] = r
		working.Go(func() {
			var stop atomic.Bool
			var publishing sync.WaitGroup
			publishing.Go(func() { r.publish(&stop) })
			defer publishing.Wait()
			defer stop.Store(true)
			for n := 0; n < rounds && !t.Failed(); n++ {
				conn, side := r.dial(uint64(w)<<16 + uint64(n) + 1)
				if side == nil {
					return
				}
				if r.way == harness.Native {
					fds.note(conn)
				}
				soon(t, func() bool { return conn.received.Load() >= 2 }, "a new connection gets nothing")
				conn.stall()
				soon(t, func() bool { return side.QueuedBytes() > queueBytes-2*reuseSize },
					"the queue did not fill")
				conn.abort()
			}
		})
	}
	endsInTime(t, "churn", working.Wait)
	for w, r := range reusers {
		assert.Zero(t, r.wrong.Load(), "worker %d: messages that were for others, or torn", w)
	}
	t.Logf("%d of %d descriptors were used before", fds.reused, (workers-1)*rounds)
	assert.Greater(t, fds.reused, (workers-1)*rounds/2, "descriptors were not reused: this shows nothing")
}

// echo sends a message from the witness and waits until it has come back, from
// a server that echoes.
func (w *witness) echo(t testing.TB) bool {
	next := w.heard.Load() + 1
	return assert.NoError(t, w.send(gobwas.OpBinary, stamp(confirms, uint32(next)))) &&
		soon(t, func() bool { return w.heard.Load() == next }, "the witness is not served")
}

// reader is a member that checks the numbers of what it gets.
type reader struct {
	*swarmConn
	side    *ws.Client
	numbers []uint64 // what came; the swarm's goroutine only, until the member is quiet
	wrong   atomic.Int64
	last    atomic.Int64 // number of the last message; they begin with 1
}

// numbered is message n of so many bytes.
func numbered(n, size int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(n))
	return append(b, bytes.Repeat([]byte{byte(n)}, size-len(b))...)
}

// dialReader opens a connection that reads numbered messages of one size. With
// small buffers if it is to stall.
func dialReader(s *harness.Server, swarm *clientSwarm, id, size, recvBuf int) *reader {
	s.T.Helper()
	r := new(reader)
	query := queryOf(0, id)
	r.swarmConn = swarm.dial(s.AddrOf(harness.Native),
		dialOptions{query: query, recvBuf: recvBuf, onMessage: func(b []byte) {
			r.take(b, size)
		}})
	r.side = serverSide(s, query)
	return r
}

func (r *reader) take(b []byte, size int) {
	if len(b) < 8 {
		r.wrong.Add(1)
		return
	}
	n := binary.BigEndian.Uint64(b)
	if r.swarmConn != nil && r.closeCode.Load() != 0 {
		r.wrong.Add(1) // nothing may follow a close frame
	}
	if len(b) != size || n <= uint64(r.last.Load()) || !bytes.Equal(b, numbered(int(n), size)) {
		r.wrong.Add(1)
	}
	r.numbers = append(r.numbers, n)
	r.last.Store(int64(n))
}

// complete checks that a member has got messages 1 to n, all of them.
func (r *reader) complete(t testing.TB, n int) {
	t.Helper()
	harness.Eventually(t, func() bool { return r.received.Load() >= int64(n) }, "message %d", n)
	require.EqualValues(t, n, r.received.Load(), "no duplicate")
	require.EqualValues(t, n, r.last.Load(), "no loss")
	require.Zero(t, r.wrong.Load(), "out of order or in another shape")
}

// A member that reads one byte a second, and later byte by byte, holds up
// nobody: the others lose nothing. What it gets itself are whole frames in
// order.
func TestScenarioTricklingReader(t *testing.T) {
	const members, size, seconds = 40, 1024, 3
	const queue, burst = 64, 32
	s := startScenario(t, ws.WithMessageQueueSize(queue))
	swarm := newSwarm(t)
	fd, err := connectTCP(s.AddrOf(harness.Native), 4096) // a blocking socket
	require.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	stream, err := handshake(fd, queryOf(0, members))
	require.NoError(t, err)
	trickling := serverSide(s, queryOf(0, members))
	require.NoError(t, trickling.JoinRoom("news")) // first, so that all others come behind it
	healthy := make([]*reader, members)
	for i := range healthy {
		healthy[i] = dialReader(s, swarm, i, size, 0)
		require.NoError(t, healthy[i].side.JoinRoom("news"))
	}

	published := 0
	publish := func() { // never more than half a queue ahead of the healthy
		for range burst {
			published++
			require.NoError(t, s.BroadcastToRoom("news", numbered(published, size), nil))
		}
		for _, r := range healthy {
			r.complete(t, published)
		}
	}
	read := func(n int) {
		b := make([]byte, n)
		n, err := unix.Read(fd, b)
		require.NoError(t, err)
		require.Positive(t, n, "the server hung up")
		stream = append(stream, b[:n]...)
	}
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for second := 0; second < seconds; {
		publish()
		select {
		case <-pace.C:
			read(1)
			second++
		default:
		}
	}
	require.Positive(t, s.Stats().Total.Drops.Full, "the trickling member loses what its queue does not hold")
	for range 20 * size {
		read(1)
	}
	b := make([]byte, 64<<10)
	harness.Eventually(t, func() bool { // what is queued may have been read already
		if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); err == nil {
			stream = append(stream, b[:n]...)
		}
		return trickling.QueuedBytes() == 0
	}, "%d bytes stay queued", trickling.QueuedBytes())
	publish() // these reach it again
	got := &reader{}
	for got.last.Load() < int64(published) {
		op, payload, rest, ok := cutFrame(stream)
		if !ok {
			read(64 << 10)
			continue
		}
		require.Equal(t, gobwas.OpText, op, "no frame begins here")
		got.take(payload, size)
		stream = rest
	}
	require.Empty(t, stream, "bytes behind the last frame")
	require.Zero(t, got.wrong.Load(), "out of order or in another shape")
	require.EqualValues(t, s.Stats().Total.Drops.Full, published-len(got.numbers), "what it lost is counted")
	t.Logf("%d messages published, %d reached the trickling member", published, len(got.numbers))
}

// fill sends numbered messages to a client that has stalled until its queue is
// full and its socket as well. It returns how many it took and how many it
// refused; none of them is on its way to the loop any more.
func fillReader(s *harness.Server, r *reader, size int) (taken, refused int) {
	s.T.Helper()
	require.NoError(s.T, r.side.JoinRoom("fill"))
	defer s.DeleteRoom("fill")
	blocked := s.Stats().Total.BlockedTotal
	harness.Eventually(s.T, func() bool {
		err := r.side.SendBytes(numbered(taken+1, size))
		if err == nil {
			taken++
			return false
		}
		require.ErrorIs(s.T, err, ws.ErrChannelFull)
		refused++
		d, err := s.Publish("fill", nil, ws.Exclude(r.side)) // comes to the loop behind what was sent
		require.NoError(s.T, err)
		harness.Receive(s.T, d.Done(), "what was sent")
		return s.Stats().Total.BlockedTotal > blocked
	}, "the queue did not fill")
	return taken, refused
}

// A client closes while its queue is full. If it reads on, it gets all that was
// queued and then the answer to its close frame; what is sent afterwards is
// refused.
func TestScenarioCloseOfAClientWithAFullQueueThatReadsOn(t *testing.T) {
	const queue, size, code = 64, 2048, 4001
	s := startScenario(t, ws.WithMessageQueueSize(queue))
	closed := disconnections(s)
	swarm := newSwarm(t)
	r := dialReader(s, swarm, 0, size, 4096)
	_, err := s.CreateRoom("news", nil)
	require.NoError(t, err)
	require.NoError(t, r.side.JoinRoom("news"))
	r.stall()
	taken, refused := fillReader(s, r, size)
	require.NoError(t, r.send(gobwas.OpClose, gobwas.NewCloseFrameBody(code, "enough")))
	harness.Eventually(t, r.side.IsClosed, "the close frame was read")
	require.ErrorIs(t, r.side.SendBytes(numbered(taken+1, size)), ws.ErrConnectionClosed)
	require.NoError(t, s.BroadcastToRoom("news", numbered(taken+1, size), nil))
	require.Positive(t, r.side.QueuedBytes(), "what was queued is still to be sent")
	r.resume()
	harness.Eventually(t, r.over.Load, "the end of the connection")
	r.complete(t, taken)
	assert.EqualValues(t, code, r.closeCode.Load(), "the answer has the code of the question")
	assert.True(t, r.orderly.Load(), "a reset")
	end := harness.Receive(t, closed, "the event")
	assert.Equal(t, code, end.Code)
	assert.True(t, end.Remote)
	assert.Equal(t, []string{"news"}, end.Rooms)
	assert.Equal(t, ws.DropCounts{Full: uint64(refused)}, s.Stats().Total.Drops,
		"what did not fit; it was out of its room")
	expectEmpty(s, r)
}

// The same, and the client never reads: it ends at the close timeout, and what
// was queued is counted.
func TestScenarioCloseOfAClientWithAFullQueueThatNeverReads(t *testing.T) {
	const queue, size, timeout = 64, 2048, 300 * time.Millisecond
	s := startScenario(t, ws.WithMessageQueueSize(queue), func(c *ws.Config) { c.CloseTimeout = timeout })
	closed := disconnections(s)
	swarm := newSwarm(t)
	r := dialReader(s, swarm, 0, size, 4096)
	require.NoError(t, r.side.JoinRoom("news"))
	r.stall()
	taken, _ := fillReader(s, r, size)
	began := time.Now()
	require.NoError(t, r.send(gobwas.OpClose, gobwas.NewCloseFrameBody(4001, "")))
	end := harness.Receive(t, closed, "the event")
	assert.GreaterOrEqual(t, time.Since(began), timeout*8/10, "it has its time to read") // ticks are a tenth
	assert.Equal(t, 4001, end.Code)
	assert.True(t, end.Remote)
	expectEmpty(s, r)
	total := s.Stats().Total
	assert.EqualValues(t, taken, total.MessagesOut+total.Drops.Closed, "each was sent or is counted")
	assert.Positive(t, total.Drops.Closed)
	r.resume() // what the socket had is whole, up to where it was cut
	harness.Eventually(t, r.over.Load, "the end of the connection")
	assert.Zero(t, r.wrong.Load(), "out of order or in another shape")
	assert.LessOrEqual(t, r.last.Load(), int64(total.MessagesOut))
}

// disconnections returns how clients end.
func disconnections(s *harness.Server) <-chan *ws.CloseError {
	ch := make(chan *ws.CloseError, 64)
	s.Subscribe(ws.EventClientDisconnected, func(e ws.Event) { ch <- e.Data.(*ws.CloseError) })
	return ch
}

// expectEmpty waits until nothing is left of the only client.
func expectEmpty(s *harness.Server, r *reader) {
	s.T.Helper()
	harness.Eventually(s.T, func() bool { return s.GetClientCount() == 0 && s.Stats().Total.Connections == 0 },
		"the end of the only client")
	assert.Zero(s.T, r.side.QueuedBytes())
	assert.Empty(s.T, r.side.GetRooms())
	assert.Empty(s.T, s.GetRoomMembers("news"))
}

// echoAll makes the server echo what clients send, on the event loops.
func echoAll(m *ws.Manager) {
	m.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendPrepared(ws.Prepare(op, payload)) })
}

// All members of a room stall at once while the publisher goes on. Other
// clients of the same loops are served meanwhile. When all go on, each sees
// messages in order and none twice, and at the end what is published then.
func TestScenarioAllMembersSlowAtOnce(t *testing.T) {
	const members, size, queue = 300, 2048, 64
	const during, after = 400, 10
	s := startScenario(t, ws.WithMessageQueueSize(queue), ws.WithHandlerMode(ws.Inline))
	echoAll(s.Manager)
	swarm := newSwarm(t)
	witnesses := witnesses(s, swarm)
	room := make([]*reader, members)
	for i := range room {
		room[i] = dialReader(s, swarm, i, size, 4096)
	}
	for _, r := range room {
		require.NoError(t, r.side.JoinRoom("news"))
	}
	published := 0
	publish := func() {
		published++
		require.NoError(t, s.BroadcastToRoom("news", numbered(published, size), nil))
	}
	publish()
	for _, r := range room {
		r.complete(t, 1)
	}
	for _, r := range room {
		r.stall()
	}
	for range during {
		publish()
		for _, w := range witnesses {
			require.True(t, w.echo(t), "message %d", published)
		}
	}
	total := s.Stats().Total
	require.GreaterOrEqual(t, total.BlockedTotal, uint64(members), "not all sockets filled")
	require.GreaterOrEqual(t, total.Drops.Full, uint64(members), "not all queues filled")
	for i, r := range room {
		require.LessOrEqual(t, r.side.QueuedBytes(), queue*(size+4), "member %d", i)
		require.Positive(t, r.side.QueuedBytes(), "member %d", i)
	}
	for _, r := range room {
		r.resume()
	}
	for i, r := range room {
		harness.Eventually(t, func() bool { return r.side.QueuedBytes() == 0 }, "member %d does not go on", i)
	}
	for range after {
		publish()
	}
	lost := 0
	for i, r := range room {
		harness.Eventually(t, func() bool { return r.last.Load() == int64(published) }, "the last message to member %d", i)
		harness.Eventually(t, func() bool { return r.received.Load() == int64(len(r.numbers)) }, "the end of member %d", i)
		require.Zero(t, r.wrong.Load(), "member %d: out of order, twice or in another shape", i)
		tail := r.numbers[len(r.numbers)-after-1:]
		require.EqualValues(t, published-after+1, tail[1], "member %d lost what came when it read again", i)
		require.LessOrEqual(t, tail[0], uint64(published-after), "member %d", i)
		lost += published - len(r.numbers)
	}
	assert.EqualValues(t, s.Stats().Total.Drops.Full, lost, "drops are counted")
	t.Logf("%d messages to %d members, %d lost", published, members, lost)
}

// ticker is one publisher of numbered messages at full speed.
type ticker struct {
	begun, finished atomic.Uint32 // messages whose publish was called, has returned
}

// times are the numbers of each publisher at one moment.
type times [2]uint32

// visit is a time that a member was in the room, on the publishers'
// clocks.
type visit struct {
	after   times // all up to these must not come
	from    times // all behind these must come
	until   times // up to these
	before  times // none behind these may come
	mayLose bool  // it went by itself
}

// churn is the state of TestScenarioMembersGoDuringFanOut.
type churn struct {
	*harness.Server
	swarm   *clientSwarm
	tickers [2]ticker
}

func (c *churn) begun() (t times) {
	for p := range c.tickers {
		t[p] = c.tickers[p].begun.Load()
	}
	return t
}

func (c *churn) finished() (t times) {
	for p := range c.tickers {
		t[p] = c.tickers[p].finished.Load()
	}
	return t
}

// visitor is a member that comes and goes.
type visitor struct {
	*swarmConn
	side  *ws.Client
	heard atomic.Int64

	mu  sync.Mutex
	got [2][]uint32 // of each publisher; guarded by mu
}

func (v *visitor) take(b []byte) {
	p, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if p == confirms {
		v.heard.Store(int64(n))
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got[p] = append(v.got[p], n)
}

// check compares what came during a visit with what the model allows: one run
// of each publisher's messages without a gap.
func (v *visitor) check(t testing.TB, at visit, how string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for p, got := range v.got {
		for i := 1; i < len(got); i++ {
			if !assert.Equal(t, got[i-1]+1, got[i], "%s: publisher %d: a gap, or out of order", how, p) {
				return
			}
		}
		if len(got) > 0 {
			assert.Greater(t, got[0], at.after[p], "%s: publisher %d: from before the member joined", how, p)
			assert.LessOrEqual(t, got[len(got)-1], at.before[p], "%s: publisher %d: from behind the member's end", how, p)
		}
		if must := at.until[p] > at.from[p]; must && !at.mayLose && assert.NotEmpty(t, got, "%s: publisher %d", how, p) {
			assert.LessOrEqual(t, got[0], at.from[p]+1, "%s: publisher %d: the first is missing", how, p)
			assert.GreaterOrEqual(t, got[len(got)-1], at.until[p], "%s: publisher %d: the last is missing", how, p)
		}
		v.got[p] = nil
	}
}

// confirm waits until all has come that was sent before.
func (v *visitor) confirm(t testing.TB) bool {
	next := v.heard.Load() + 1
	publish(t, func() error { return v.side.SendBytes(stamp(confirms, uint32(next))) })
	return soon(t, func() bool { return v.heard.Load() == next }, "not confirmed")
}

// visit lets a new connection join and leave several times, and then end.
func (c *churn) visit(id int) {
	v := new(visitor)
	query := queryOf(0, id)
	way := []harness.Way{harness.Native, harness.NetHTTP}[id%2]
	var err error
	v.swarmConn, err = c.swarm.tryDial(c.AddrOf(way), dialOptions{query: query, onMessage: v.take})
	if !assert.NoError(c.T, err) {
		return
	}
	v.side = serverSide(c.Server, query)
	for round := range 4 {
		var at visit
		at.after = c.finished()
		assert.NoError(c.T, v.side.JoinRoom("news"))
		at.from = c.begun()
		enough := 1 + id%7
		soon(c.T, func() bool { return c.finished()[0] > at.from[0]+uint32(enough) }, "the publisher stands")
		at.until = c.finished()
		switch {
		case round < 3:
			v.side.LeaveRoom("news")
			at.before = c.begun()
			soon(c.T, func() bool { return c.finished()[0] > at.before[0]+16 }, "the publisher stands")
			if v.confirm(c.T) { // with room for what must not come
				v.check(c.T, at, "left")
			}
		case id%3 == 0:
			v.side.CloseWithCode(4002, "")
			at.before = c.begun()
			soon(c.T, v.over.Load, "the end of a connection")
			assert.EqualValues(c.T, 4002, v.closeCode.Load())
			v.check(c.T, at, "closed by the server")
		case id%3 == 1:
			assert.NoError(c.T, v.send(gobwas.OpClose, gobwas.NewCloseFrameBody(4003, "")))
			soon(c.T, v.over.Load, "the end of a connection")
			at.before, at.mayLose = c.begun(), true // its close frame is read before what waits in the ring
			v.check(c.T, at, "closed by the client")
		default:
			v.abort()
			at.before, at.mayLose = c.begun(), true
			v.check(c.T, at, "reset")
		}
	}
}

// publish publishes at full speed until stop, but not so far ahead of the
// steady members that memory matters.
func (c *churn) publish(p int, steady []*swarmConn, stop *atomic.Bool) {
	for !stop.Load() && !c.T.Failed() {
		n := c.tickers[p].begun.Add(1)
		if !assert.NoError(c.T, c.BroadcastToRoom("news", stamp(p, n), nil)) {
			return
		}
		c.tickers[p].finished.Store(n)
		if n%512 == 0 {
			for _, s := range steady {
				soon(c.T, func() bool { return s.received.Load() > int64(n)-2048 }, "a steady member is behind")
			}
		}
	}
}

// Members leave, are closed by the server, close themselves and reset while
// fan-outs to them are under way: none gets a message that was published after
// its leave had returned, or misses one from between; those that stay lose
// nothing.
func TestScenarioMembersGoDuringFanOut(t *testing.T) {
	const steady, churners, visits = 20, 4, 24
	c := &churn{Server: startScenario(t, unbounded, func(c *ws.Config) { c.Broadcast.QueueSize = 64 })}
	c.swarm = newSwarm(t)
	conns := make([]*swarmConn, steady)
	logs := make([]numberLog, steady)
	for i := range conns {
		logs[i] = make(numberLog, len(c.tickers))
		conns[i] = c.swarm.dial(c.AddrOf(harness.Native),
			dialOptions{query: queryOf(0, -1-i), onMessage: logs[i].take})
		require.NoError(t, serverSide(c.Server, queryOf(0, -1-i)).JoinRoom("news"))
	}
	var stop atomic.Bool
	var publishing, churning sync.WaitGroup
	for p := range c.tickers {
		publishing.Go(func() { c.publish(p, conns, &stop) })
	}
	for w := range churners {
		churning.Go(func() {
			for n := 0; n < visits && !t.Failed(); n++ {
				c.visit(w*visits + n)
			}
		})
	}
	endsInTime(t, "churn", churning.Wait)
	stop.Store(true)
	endsInTime(t, "publishing", publishing.Wait)
	total := int64(0)
	for _, n := range c.finished() {
		total += int64(n)
	}
	for i, conn := range conns {
		harness.Eventually(t, func() bool { return conn.received.Load() >= total }, "all messages to steady member %d", i)
		for p, log := range logs[i] {
			require.Len(t, log, int(c.finished()[p]), "publisher %d to steady member %d", p, i)
			for k, n := range log {
				require.EqualValues(t, k+1, n, "publisher %d to steady member %d", p, i)
			}
		}
	}
	harness.Eventually(t, func() bool { return len(c.GetRoomMembers("news")) == steady && c.GetClientCount() == steady },
		"only the steady are left")
	t.Logf("%d messages, %d visits", total, churners*visits*4)
}

// A room is deleted right after a publish to it: the message arrives always,
// and ahead of what is sent afterwards.
func TestScenarioDeleteRoomRightAfterBroadcast(t *testing.T) {
	const publishers, members, rounds = 4, 12, 400
	for _, ring := range []int{2, 1024} {
		t.Run(fmt.Sprintf("ring=%d", ring), func(t *testing.T) {
			s := startScenario(t, unbounded, func(c *ws.Config) { c.Broadcast.QueueSize = ring })
			swarm := newSwarm(t)
			conns := make([]*swarmConn, members)
			logs := make([]numberLog, members)
			sides := make([]*ws.Client, members)
			for i := range conns {
				logs[i] = make(numberLog, publishers)
				conns[i] = swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, i), onMessage: logs[i].take})
				sides[i] = serverSide(s, queryOf(0, i))
			}
			var publishing sync.WaitGroup
			for p := range publishers {
				publishing.Go(func() {
					room := fmt.Sprint("room ", p)
					for n := range uint32(rounds) {
						for _, c := range sides {
							assert.NoError(t, c.JoinRoom(room))
						}
						assert.NoError(t, s.BroadcastToRoom(room, stamp(p, 2*n), nil))
						s.DeleteRoom(room)
						assert.ErrorIs(t, s.BroadcastToRoom(room, stamp(p, 0), nil), ws.ErrRoomNotFound)
						for _, c := range sides {
							publish(t, func() error { return c.SendBytes(stamp(p, 2*n+1)) })
						}
					}
				})
			}
			endsInTime(t, "publishing", publishing.Wait)
			const all = publishers * rounds * 2
			for i, c := range conns {
				harness.Eventually(t, func() bool { return c.received.Load() >= all }, "all messages to member %d: %v", i,
					lazyText(func() string { return fmt.Sprintf("%d of %d", c.received.Load(), all) }))
				for p, log := range logs[i] {
					require.Len(t, log, rounds*2, "publisher %d to member %d", p, i)
					for k, n := range log {
						require.EqualValues(t, k, n, "publisher %d to member %d", p, i)
					}
				}
				require.Empty(t, sides[i].GetRooms())
			}
		})
	}
}

// Publishers in a tight loop do not keep the only event loop from serving a
// client that sends.
func TestScenarioPublishersInATightLoop(t *testing.T) { tightLoop(t, 2*time.Second) }

func tightLoop(t *testing.T, length time.Duration) {
	const publishers, members, size = 4, 300, 512
	s := startScenario(t, ws.WithHandlerMode(ws.Inline), func(c *ws.Config) { c.Loops = 1 })
	echoAll(s.Manager)
	swarm := newSwarm(t)
	for i := range members {
		swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, i)})
	}
	for _, c := range serverSides(s) {
		require.NoError(t, c.JoinRoom("news"))
	}
	witness := witnesses(s, newSwarm(t))[0] // a swarm of its own: the members' must not hold it up
	var stop atomic.Bool
	var publishing sync.WaitGroup
	var published atomic.Int64
	for range publishers {
		publishing.Go(func() {
			msg := make([]byte, size)
			for ; !stop.Load(); published.Add(1) {
				if !assert.NoError(t, s.BroadcastToRoom("news", msg, nil)) {
					return
				}
			}
		})
	}
	defer publishing.Wait()
	defer stop.Store(true)
	var took []time.Duration
	for began := time.Now(); time.Since(began) < length || len(took) < 20; {
		sent := time.Now()
		require.True(t, witness.echo(t), "echo %d", len(took))
		took = append(took, time.Since(sent))
	}
	stop.Store(true)
	publishing.Wait()
	slices.Sort(took)
	t.Logf("%d messages published to %d members, %d delivered; %d echoes: p50 %v, p99 %v", published.Load(), members,
		s.Stats().Total.MessagesOut, len(took), took[len(took)/2], took[len(took)*99/100])
	assert.Greater(t, published.Load(), int64(1000), "that was no tight loop")
}
