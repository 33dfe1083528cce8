package engine_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// The timers of slowServer: pings every 30 s, and the read timeout at 90 s of
// silence.
const (
	slowPing  = 30 * time.Second
	slowDeath = 90 * time.Second
)

// slowServer is a server of one loop whose time moves only by pass and step.
type slowServer struct {
	*server
	since   time.Time
	later   atomic.Int64 // nanoseconds by which the clock is ahead of since
	witness *client      // on the same loop; gets its pings together with the other clients
}

func startSlow(t *testing.T) *slowServer {
	t.Helper()
	s := &slowServer{since: time.Now()}
	s.server = start(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops = 1
		cfg.QueueBytes = 1 << 30
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = slowPing, slowDeath
		cfg.CloseTimeout = 50 * time.Millisecond // which makes a tick 5 ms
		cfg.Now = func() time.Time { return s.since.Add(time.Duration(s.later.Load())) }
	})
	s.witness = s.dial()
	s.witness.echo()
	return s
}

// pass moves the clock by one ping interval, and returns when the loop has
// queued the pings that are due by then: each connection has had at least one.
// The witness shows that it is alive.
func (s *slowServer) pass() {
	s.t.Helper()
	for range 3 {
		s.step(slowPing / 3)
	}
	require.Equal(s.t, gobwas.OpPing, s.witness.read().Header.OpCode)
	s.witness.echo()
}

// step moves the clock, and returns when the loop has seen it. A step of more
// than an eighth of slowDeath is a pause of the server.
func (s *slowServer) step(d time.Duration) {
	s.t.Helper()
	before := s.presence()
	s.later.Add(int64(d))
	s.eventually(func() bool { return s.presence() > before }, "the loop did not see the time pass")
}

func (s *slowServer) presence() (ticks uint32) {
	onLoop(s.Shards()[0], func(sh *engine.Shard) { ticks = sh.PresenceInLoop() })
	return ticks
}

// A client that stops in the middle of its frame is pinged, and lives as long
// as the read timeout allows; then the frame arrives whole.
func TestSlowSenderOfHalfAFrameGoesOnAMinuteLater(t *testing.T) {
	payload := make([]byte, 100_000)
	for i := range payload {
		payload[i] = byte('a' + rand.IntN(26))
	}
	message := frame(gobwas.OpText, string(payload))
	cuts := map[string]int{
		"behind the first byte": 1, "in the length": 5, "in the masking key": 12,
		"behind the header": 14, "in the payload": len(message) / 2, "before the last byte": len(message) - 1,
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			s := startSlow(t)
			c := s.dial()
			c.echo()
			s.sendPart(c, message[:cut])
			for range 2 { // one minute
				s.pass()
				require.Equal(t, gobwas.OpPing, c.read().Header.OpCode, "the client is asked whether it lives")
			}
			c.raw(message[cut:])
			f := c.message()
			require.Equal(t, gobwas.OpText, f.Header.OpCode)
			require.True(t, bytes.Equal(payload, f.Payload), "the message came in another shape")
			for range 2 { // the rest counted as life: it may be silent for as long again
				s.pass()
				require.Equal(t, gobwas.OpPing, c.read().Header.OpCode)
			}
			c.echo()
		})
	}
}

// sendPart sends bytes and waits until the loop has read them: they count as
// life at the time of the clock.
func (s *slowServer) sendPart(c *client, part string) {
	s.t.Helper()
	sh := s.Shards()[0]
	want := sh.Stats().BytesIn + uint64(len(part))
	c.raw(part)
	s.eventually(func() bool { return sh.Stats().BytesIn >= want }, "the server did not read the part")
}

// A client that never sends the rest of a frame ends at the read timeout: half
// a frame counts as life only when it comes.
func TestSlowSenderOfHalfAFrameIsClosedAtTheReadTimeout(t *testing.T) {
	s := startSlow(t)
	c := s.dial()
	c.echo()
	message := frame(gobwas.OpText, "a message without an end")
	s.pass()
	s.sendPart(c, message[:10]) // 30 s: the silence begins here
	s.pass()
	s.pass() // 60 s of silence
	assert.Empty(t, s.peer(1).ends, "closed before the timeout")
	s.pass() // 90 s
	s.expectSilentEnd(1)
	_, err := io.Copy(io.Discard, c.r)
	require.NoError(t, err)
	assert.Zero(t, s.invalid.Load(), "a slow client is no offender")
}

// expectSilentEnd waits until the n-th connection has ended because of its
// silence.
func (s *slowServer) expectSilentEnd(n int) {
	s.t.Helper()
	end := s.endOf(n)
	assert.Equal(s.t, codec.CloseAbnormal, end.Code)
	assert.ErrorContains(s.t, end.Err, "heartbeat")
}

// slowReader is a client of a slowServer with two large frames and a small
// message on their way to it. It has stopped within the first.
type slowReader struct {
	*client
	peer   *peer
	frames [2][]byte
	read   []byte // of the first frame
}

func (s *slowServer) dialSlowReader() *slowReader {
	s.t.Helper()
	n := int(s.opened.Load())
	r := &slowReader{client: s.dial(), peer: s.peer(n)}
	tcp, ok := r.Conn.(*net.TCPConn)
	require.True(s.t, ok)
	must(s.t, tcp.SetReadBuffer(16<<10))
	random := rand.NewChaCha8([32]byte{1})
	blocked := s.Shards()[0].Stats().BlockedTotal
	for i := range r.frames { // more than the socket's buffers take
		r.frames[i] = make([]byte, 16<<20)
		_, _ = random.Read(r.frames[i])
		must(s.t, r.peer.conn.Send(engine.NewFrame(codec.OpBinary, r.frames[i], engine.Handling{})))
	}
	must(s.t, r.peer.conn.Send(engine.NewFrame(codec.OpText, []byte("the last"), engine.Handling{})))
	s.eventually(func() bool { return s.Shards()[0].Stats().BlockedTotal > blocked }, "the socket did not fill")
	h, err := gobwas.ReadHeader(r.r)
	must(s.t, err)
	require.EqualValues(s.t, len(r.frames[0]), h.Length)
	r.goOn(100_001)
	return r
}

// goOn reads n more bytes of the first frame.
func (r *slowReader) goOn(n int) {
	r.t.Helper()
	part := make([]byte, n)
	_, err := io.ReadFull(r.r, part)
	must(r.t, err)
	r.read = append(r.read, part...)
}

// A client that stops in the middle of a frame from the server, and reads on a
// minute later, gets every byte in order. The pings that came due meanwhile
// wait for the frame's end, and are one: the latest.
func TestSlowReaderOfHalfAFrameGoesOnAMinuteLater(t *testing.T) {
	s := startSlow(t)
	r := s.dialSlowReader()
	s.pass()
	r.goOn(200_003) // a little; the pings must not get into it
	s.pass()
	assert.Empty(t, r.peer.ends, "closed before the timeout")
	r.goOn(len(r.frames[0]) - len(r.read))
	require.True(t, bytes.Equal(r.frames[0], r.read), "the first frame came in another shape")
	require.Equal(t, gobwas.OpPing, r.client.read().Header.OpCode, "the ping goes before the next frame")
	f := r.client.read()
	require.Equal(t, gobwas.OpBinary, f.Header.OpCode, "one ping is enough")
	require.True(t, bytes.Equal(r.frames[1], f.Payload), "the second frame came in another shape")
	r.expect("the last")
	r.echo()
	s.eventually(func() bool { return r.peer.conn.QueuedBytes() == 0 }, "bytes stay queued")
}

// A client that stops in the middle of a frame from the server, and never reads
// on, cannot answer the pings behind it: it ends at the read timeout, and its
// queued frames are counted.
func TestSlowReaderOfHalfAFrameIsClosedAtTheReadTimeout(t *testing.T) {
	s := startSlow(t)
	r := s.dialSlowReader()
	s.pass()
	s.pass()
	assert.Empty(t, r.peer.ends, "closed before the timeout")
	s.pass()
	s.expectSilentEnd(1)
	assert.Zero(t, r.peer.conn.QueuedBytes())
	assert.EqualValues(t, 3, s.Shards()[0].Stats().Drops.Closed)
	require.ErrorIs(t, r.peer.conn.Send(engine.NewFrame(codec.OpText, []byte("x"), engine.Handling{})), net.ErrClosed)
	s.witness.echo()
}

// A client that reads slower than the read timeout lives as long as it sends
// anything: ten minutes for one frame.
func TestSlowReaderThatSendsNowAndThenLives(t *testing.T) {
	s := startSlow(t)
	r := s.dialSlowReader()
	for range 10 {
		for range 2 { // one minute
			s.pass()
			r.goOn(10_007)
		}
		s.sendPart(r.client, frame(gobwas.OpPong, ""))
	}
	r.goOn(len(r.frames[0]) - len(r.read))
	require.True(t, bytes.Equal(r.frames[0], r.read))
	require.Equal(t, gobwas.OpPing, r.client.read().Header.OpCode)
	require.True(t, bytes.Equal(r.frames[1], r.client.read().Payload))
	r.expect("the last")
	r.echo()
}
