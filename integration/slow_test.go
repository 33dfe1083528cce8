//go:build linux

package integration_test

import (
	"bytes"
	"encoding/binary"
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

// reader is a member that checks the numbers of its messages.
type reader struct {
	*swarmConn
	side    *ws.Client
	numbers []uint64 // received bytes; the swarm's goroutine only, until the member is quiet
	wrong   atomic.Int64
	last    atomic.Int64 // number of the last message; they begin with 1
}

// numbered returns message n, with size bytes.
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

// A member that reads one byte a second, and later byte by byte, holds up nobody: the others lose
// nothing. It gets whole frames in order itself.
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
		for err == unix.EINTR {
			n, err = unix.Read(fd, b)
		}
		require.NoError(t, err)
		require.Positive(t, n, "the server hung up")
		stream = append(stream, b[:n]...)
	}
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for second := 0; second < seconds || s.Stats().Total.Drops.Full == 0; {
		publish()
		select {
		case <-pace.C:
			read(1)
			second++
		default:
		}
	}
	require.Positive(t, s.Stats().Total.Drops.Full, "the trickling member loses the messages that its queue does not hold")
	for range 20 * size {
		read(1)
	}
	b := make([]byte, 64<<10)
	harness.Eventually(t, func() bool { // queued messages may have been read already
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
	require.EqualValues(t, s.Stats().Total.Drops.Full, published-len(got.numbers), "the losses are counted")
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
		d, err := s.Publish("fill", nil, ws.Exclude(r.side)) // comes to the loop behind the messages
		require.NoError(s.T, err)
		harness.Receive(s.T, d.Done(), "the sent messages")
		return s.Stats().Total.BlockedTotal > blocked
	}, "the queue did not fill")
	return taken, refused
}

// A client closes while its queue is full. If it reads on, it gets all that was queued and then the
// answer to its close frame; later messages are refused.
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
	require.Positive(t, r.side.QueuedBytes(), "queued messages are still to be sent")
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
		"messages that did not fit; it was out of its room")
	expectEmpty(s, r)
}

// The same, and the client never reads: it ends at the close timeout, and the queued messages are
// counted.
func TestScenarioCloseOfAClientWithAFullQueueThatNeverReads(t *testing.T) {
	const queue, size, timeout = 64, 2048, 3 * time.Second
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
	assert.GreaterOrEqual(t, time.Since(began), timeout/3, "it has its time to read") // the clock may be late
	assert.Equal(t, 4001, end.Code)
	assert.True(t, end.Remote)
	expectEmpty(s, r)
	total := s.Stats().Total
	assert.EqualValues(t, taken, total.MessagesOut+total.Drops.Closed, "each was sent or is counted")
	assert.Positive(t, total.Drops.Closed)
	r.resume() // the bytes of the socket are whole frames, up to the cut
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

// echoAll makes the server echo all messages, on the event loops.
func echoAll(m *ws.Manager) {
	m.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { _ = c.SendPrepared(ws.Prepare(op, payload)) })
}

// All members of a room stall at once while the publisher goes on. Other clients of the same loops
// are served meanwhile. When all go on, each sees messages in order and none twice, and at the end
// the messages that are published then.
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
		require.EqualValues(t, published-after+1, tail[1], "member %d lost messages that came when it read again", i)
		require.LessOrEqual(t, tail[0], uint64(published-after), "member %d", i)
		lost += published - len(r.numbers)
	}
	assert.EqualValues(t, s.Stats().Total.Drops.Full, lost, "drops are counted")
	t.Logf("%d messages to %d members, %d lost", published, members, lost)
}
