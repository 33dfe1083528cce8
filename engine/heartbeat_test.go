package engine_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// A jump of the clock counts as presence only in part, on either side of the
// counter's overflow.
func TestPresenceCountsAJumpInPart(t *testing.T) {
	for _, start := range []uint32{0, math.MaxUint32 - 20} {
		var p engine.Presence
		p.Advance(start, math.MaxUint32)
		base := p.Ticks()
		for _, tt := range []struct {
			passed, counts uint32
			away           bool
		}{{1, 1, false}, {10, 10, false}, {11, 10, true}, {280, 10, true}, {0, 0, false}, {1, 1, false}} {
			start += tt.passed
			base += tt.counts
			assert.Equal(t, tt.away, p.Advance(start, 10), "after %d ticks", tt.passed)
			assert.Equal(t, base, p.Ticks(), "after %d ticks", tt.passed)
		}
	}
}

func TestProgressIsMoreThanAPing(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after int64
		known         [2]bool
		pings         uint32
		want          bool
	}{
		{"nothing", 70_000, 70_000, [2]bool{true, true}, 0, false},
		{"a ping over TLS", 70_000, 70_026, [2]bool{true, true}, 1, false},
		{"many pings over TLS", 70_000, 96_000, [2]bool{true, true}, 1000, false},
		{"a kilobyte and a ping", 70_000, 71_056, [2]bool{true, true}, 1, true},
		{"a window that is taken back", 70_000, 60_000, [2]bool{true, true}, 1, false},
		{"a Unix socket's queue that shrinks", -9000, -100, [2]bool{true, true}, 1, true},
		{"no first look", 0, 70_000, [2]bool{false, true}, 1, false},
		{"no second look", -9000, 0, [2]bool{true, false}, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, engine.Progressed(tt.before, tt.after, tt.known[0], tt.known[1], tt.pings))
		})
	}
}

// A machine that is suspended again and again closes no client that answers
// while it runs, but closes a peer that never does.
func TestSimnetPausesOfTheServerAreNoSilence(t *testing.T) {
	const conns = 200
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = slowPing, slowDeath
	})
	m.connect(conns)
	pass := func(d, step time.Duration) {
		for ; d > 0; d -= step {
			m.Advance(step)
			m.Wait()
		}
	}
	m.Stall(7)
	pass(slowPing+3*time.Second, time.Second)
	for range 4 {
		pass(70*time.Second, 70*time.Second)
		pass(2*time.Second, time.Second)
		assert.Zero(t, m.closed.Load())
	}
	pass(slowDeath, time.Second)
	assert.EqualValues(t, 1, m.closed.Load())
	end := <-m.closedPeer(t).ends
	assert.ErrorContains(t, end.Err, "heartbeat")
}

// After a pause the pings stay spread: each connection keeps its place in the
// interval.
func TestSimnetPingsStaySpreadAfterAPause(t *testing.T) {
	const conns = 3000
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = slowPing, slowDeath
	})
	m.connect(conns)
	step := func(d time.Duration) (pings uint64) {
		before := m.Stats().Pings
		m.Advance(d)
		m.Wait()
		return m.Stats().Pings - before
	}
	for range 31 {
		step(time.Second)
	}
	step(70 * time.Second)
	for range 30 {
		step(time.Second)
	}
	for range 30 {
		assert.Less(t, step(time.Second), uint64(conns/10), "pings within a second")
	}
}

// answering is a client that answers pings until its connection ends.
type answering struct {
	*client
	pings atomic.Int64
	ended atomic.Bool
}

func (s *server) dialAnswering(n int) (clients []*answering) {
	s.t.Helper()
	for range n {
		clients = append(clients, answer(s.dial()))
	}
	return clients
}

// answer makes c answer pings on a goroutine, which ends with its connection.
func answer(c *client) *answering {
	a := &answering{client: c}
	go func() {
		defer a.ended.Store(true)
		for {
			f, err := readFrame(a.r)
			if err != nil {
				return
			}
			if f.Header.OpCode == gobwas.OpPing {
				a.pings.Add(1)
				if _, err := io.WriteString(a.Conn, frame(gobwas.OpPong, string(f.Payload))); err != nil {
					return
				}
			}
		}
	}()
	return a
}

// expectPings waits until each client has received n more pings, and returns
// the number of clients that were closed meanwhile.
func expectPings(t *testing.T, clients []*answering, n int64) (closed int) {
	t.Helper()
	want := make([]int64, len(clients))
	for i, a := range clients {
		want[i] = a.pings.Load() + n
	}
	for i, a := range clients {
		require.Eventually(t, func() bool { return a.ended.Load() || a.pings.Load() >= want[i] }, patience, time.Millisecond)
		if a.ended.Load() {
			closed++
		}
	}
	return closed
}

// The heartbeat of the tests in which the server pauses.
func quickHeartbeat(cfg *engine.Config, _ *server) {
	cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 500*time.Millisecond, 3*time.Second
}

// TestPauseOfTheProcess starts a process of its own with this test, and stops
// it for three times the read timeout.
func TestPauseOfTheProcess(t *testing.T) {
	t.Parallel()
	const child = "WS_TEST_PAUSED_SERVER"
	if os.Getenv(child) != "" {
		s := start(t, quickHeartbeat)
		fmt.Println("listening", s.Addr())
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has done
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	clients := dialPaused(t, readAddress(t, out), 100)
	require.Zero(t, expectPings(t, clients, 2), "closed before the pause")
	must(t, cmd.Process.Signal(unix.SIGSTOP))
	<-time.After(9 * time.Second) // the pause
	must(t, cmd.Process.Signal(unix.SIGCONT))
	assert.Zero(t, expectPings(t, clients, 3), "healthy clients were closed")
	for _, a := range clients {
		_ = a.Close()
	}
	must(t, in.Close())
	must(t, cmd.Wait())
}

// readAddress reads the address that the child prints.
func readAddress(t *testing.T, out io.Reader) (addr string) {
	t.Helper()
	var text strings.Builder
	buf := make([]byte, 1)
	for !strings.HasSuffix(text.String(), "\n") || addr == "" {
		_, err := io.ReadFull(out, buf)
		require.NoError(t, err, "%s", text.String())
		text.Write(buf)
		if _, after, ok := strings.Cut(text.String(), "listening "); ok {
			addr, _, _ = strings.Cut(after, "\n")
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the child
	return addr
}

// dialPaused opens answering clients of a server in another process.
func dialPaused(t *testing.T, addr string, n int) (clients []*answering) {
	t.Helper()
	for range n {
		nc, err := net.DialTimeout("tcp", addr, patience)
		must(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		must(t, nc.SetDeadline(time.Now().Add(2*patience)))
		clients = append(clients, answer(newClient(t, nc).upgrade()))
	}
	return clients
}

// An inline handler that holds its loop for twice the read timeout ends no
// client of that loop.
func TestPauseByAnInlineHandler(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *engine.Config, s *server) {
		quickHeartbeat(cfg, s)
		cfg.Loops = 1
		s.onMessage = func(*peer, codec.Opcode, []byte) { <-time.After(6 * time.Second) }
	})
	clients := s.dialAnswering(50)
	require.Zero(t, expectPings(t, clients, 2), "closed before the pause")
	clients[0].send("hold the loop")
	assert.Zero(t, expectPings(t, clients, 15), "healthy clients were closed")
}

// A virtual machine that is suspended for 70 s, under the default heartbeat,
// keeps all its clients.
func TestPauseOfTheMachine(t *testing.T) {
	s := startSlow(t)
	clients := s.dialAnswering(200)
	_ = s.witness.Close()
	s.eventually(func() bool { return s.closed.Load() == 1 }, "the witness stays")
	base := s.Shards()[0].Stats()
	step := func(d time.Duration) {
		s.step(d)
		onLoop(s.Shards()[0], func(*engine.Shard) {}) // the pings of this tick are written
		s.eventually(func() bool {
			now := s.Shards()[0].Stats()
			return s.closed.Load() > 1 || 3*(now.BytesIn-base.BytesIn) == 5*(now.BytesOut-base.BytesOut) // a pong is masked
		}, "the pings were not answered")
	}
	for range 35 {
		step(time.Second)
	}
	step(70 * time.Second)
	for range 100 {
		step(time.Second)
	}
	assert.EqualValues(t, 1, s.closed.Load(), "healthy clients were closed")
	for _, a := range clients {
		assert.GreaterOrEqual(t, a.pings.Load(), int64(4))
	}
}

// A client that hangs is closed at the read timeout, although its kernel
// acknowledges the pings and takes data into the receive buffer.
func TestHungClientIsClosedAtTheReadTimeout(t *testing.T) {
	payload := func(n int) *engine.Frame { return engine.NewFrame(codec.OpBinary, make([]byte, n), engine.Handling{}) }
	for _, tt := range []struct {
		name   string
		hang   func(s *slowServer, c *client, p *peer) // once
		stream *engine.Frame                           // every 10 s
	}{
		{name: "nothing to read", hang: func(*slowServer, *client, *peer) {}},
		{name: "a full receive buffer", hang: func(s *slowServer, _ *client, p *peer) {
			must(s.t, p.conn.Send(payload(16<<20)))
			s.eventually(func() bool { return s.Shards()[0].Stats().BlockedTotal > 0 }, "the socket did not fill")
		}},
		{name: "a stream of messages", hang: func(*slowServer, *client, *peer) {}, stream: payload(32 << 10)},
		{name: "some data", hang: func(s *slowServer, _ *client, p *peer) { must(s.t, p.conn.Send(payload(2000))) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startSlow(t)
			c := s.dial()
			must(t, c.Conn.(*net.TCPConn).SetReadBuffer(4<<10))
			c.echo()
			p := s.peer(1)
			tt.hang(s, c, p)
			var silent time.Duration
			for ; len(p.ends) == 0 && silent < 3*slowDeath; silent += 10 * time.Second {
				if tt.stream != nil && !p.conn.Closed() {
					must(t, p.conn.Send(tt.stream))
				}
				s.passTen(t)
			}
			s.expectSilentEnd(1)
			assert.GreaterOrEqual(t, silent, slowDeath-10*time.Second)
			assert.LessOrEqual(t, silent, slowDeath+slowDeath/8+20*time.Second)
			onLoop(s.Shards()[0], func(sh *engine.Shard) { assert.Zero(t, sh.OverdueInLoop()) })
		})
	}
}

// passTen lets 10 s pass; the witness answers its pings.
func (s *slowServer) passTen(t *testing.T) {
	t.Helper()
	s.step(10 * time.Second)
	s.witness.raw(frame(gobwas.OpPong, ""))
	s.witness.send("seen")
	for {
		if f := s.witness.read(); f.Header.OpCode == gobwas.OpText {
			return
		}
	}
}

// A connection whose pong came in time takes no place in the shard's table.
func TestOnlyClientsThatDoNotAnswerAreProbed(t *testing.T) {
	s := startSlow(t)
	mute := s.dial()
	mute.echo()
	s.passTen(t)
	overdue := func() (n int) {
		onLoop(s.Shards()[0], func(sh *engine.Shard) { n = sh.OverdueInLoop() })
		return n
	}
	assert.Zero(t, overdue())
	becomes := func() bool { // before the timeout
		for range 7 {
			s.passTen(t)
			if overdue() == 1 {
				return true
			}
		}
		return false
	}
	require.True(t, becomes())
	mute.raw(frame(gobwas.OpPong, ""))
	s.eventually(func() bool { return overdue() == 0 }, "a client that answered is still probed")
	require.True(t, becomes())
	_ = mute.Close()
	s.eventually(func() bool { return overdue() == 0 }, "a connection that ended is still probed")
}
