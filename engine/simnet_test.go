package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// simServer is a server on a simulated network, with the frames that its
// peers have received.
type simServer struct {
	*server
	*engine.Simnet

	slowWrites atomic.Int64 // duration of each frame, in nanoseconds

	mu       sync.Mutex
	received map[int][]gobwas.Frame // by peer; guarded by mu
}

func startSimnet(t testing.TB, configure func(*engine.Config, *server)) *simServer {
	t.Helper()
	m := &simServer{Simnet: engine.NewSimnet(), received: make(map[int][]gobwas.Frame)}
	m.OnFrame = func(peer int, frame []byte) {
		for began := time.Now(); time.Since(began) < time.Duration(m.slowWrites.Load()); {
			continue
		}
		r := bytes.NewReader(frame)
		h, err := gobwas.ReadHeader(r)
		f := gobwas.Frame{Header: h, Payload: bytes.Clone(frame[len(frame)-r.Len():])}
		if !assert.NoError(t, err) || !assert.EqualValues(t, h.Length, len(f.Payload)) {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.received[peer] = append(m.received[peer], f)
	}
	m.server = start(t, func(cfg *engine.Config, s *server) {
		cfg.ListenAddr, cfg.Simnet = "", m.Simnet
		if configure != nil {
			configure(cfg, s)
		}
	})
	return m
}

// connect adds open connections.
func (m *simServer) connect(n int) {
	m.t.Helper()
	before := m.opened.Load()
	m.Connect(n, []byte(upgradeRequest))
	m.Wait()
	require.EqualValues(m.t, n, m.opened.Load()-before)
}

// take returns the frames that a peer has received since the last call, as
// text.
func (m *simServer) take(peer int) (texts []string) {
	m.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.received[peer] {
		switch f.Header.OpCode {
		case gobwas.OpText:
			texts = append(texts, string(f.Payload))
		case gobwas.OpClose:
			code, reason := gobwas.ParseCloseFrameData(f.Payload)
			texts = append(texts, fmt.Sprintf("close %d %s", code, reason))
		default:
			texts = append(texts, fmt.Sprintf("opcode %x", f.Header.OpCode))
		}
	}
	delete(m.received, peer)
	return texts
}

func (m *simServer) text(peer int, payload string) {
	m.Send(peer, []byte(frame(gobwas.OpText, payload)))
}

func TestSimnetEchoes(t *testing.T) {
	m := startSimnet(t, nil)
	m.connect(500)
	for peer := range 500 {
		m.text(peer, seq(peer))
	}
	for peer := range 500 {
		require.Equal(t, []string{seq(peer)}, m.take(peer))
	}
	stats := m.Stats()
	assert.EqualValues(t, 500, stats.Upgraded)
	assert.EqualValues(t, 500, stats.Messages)
	for _, s := range m.Shards() {
		assert.Equal(t, 250, s.Connections(), "spread over the loops")
	}
}

// A request and a message may come in pieces of any size, and together.
func TestSimnetTakesPieces(t *testing.T) {
	stream := upgradeRequest + frame(gobwas.OpText, "first") + frame(gobwas.OpText, "second")
	m := startSimnet(t, nil)
	first := m.Connect(len(stream)-1, nil)
	for cut := 1; cut < len(stream); cut++ {
		peer := first + cut - 1
		m.Send(peer, []byte(stream[:cut]))
		m.Send(peer, []byte(stream[cut:]))
		require.Equal(t, []string{"first", "second"}, m.take(peer), "cut at %d", cut)
	}
}

// Bytes that come while a worker decides on the request wait for the decision.
func TestSimnetAdmitsOffLoop(t *testing.T) {
	decide := make(chan struct{})
	m := startSimnet(t, func(_ *engine.Config, s *server) {
		s.offLoop = true
		s.admit = func(r *http.Request) ([]byte, bool) {
			<-decide
			return codec.AppendAccept(nil, r, codec.Accept{}), true
		}
	})
	m.Connect(1, []byte(upgradeRequest+frame(gobwas.OpText, "early")))
	m.Wait()
	require.Zero(t, m.opened.Load())
	close(decide)
	m.eventually(func() bool { return m.opened.Load() == 1 }, "the connection did not open")
	m.text(0, "late")
	require.Equal(t, []string{"early", "late"}, m.take(0))
}

func TestSimnetRefuses(t *testing.T) {
	m := startSimnet(t, nil)
	m.Connect(3, []byte("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"))
	m.Connect(1, []byte("nonsense\r\n\r\n"))
	m.Wait()
	assert.EqualValues(t, 4, m.Stats().Refused)
	for _, s := range m.Shards() {
		assert.Zero(t, s.Connections(), "the peer hangs up behind a refusal")
	}
}

func TestSimnetCloses(t *testing.T) {
	tests := []struct {
		name  string
		close func(m *simServer)
		end   engine.CloseInfo
		reads []string
	}{
		{
			"by the engine", func(m *simServer) { m.peer(0).conn.Close(codec.ClosePolicyViolation, "no") },
			engine.CloseInfo{Code: codec.ClosePolicyViolation, Reason: "no"},
			[]string{"close 1008 no"},
		},
		{
			"by the peer", func(m *simServer) {
				m.Send(0, []byte(frame(gobwas.OpClose, string(gobwas.NewCloseFrameBody(4000, "bye")))))
			},
			engine.CloseInfo{Code: 4000, Reason: "bye", Remote: true},
			[]string{"close 4000 bye"},
		},
		{
			"by a hang-up", func(m *simServer) { m.HangUp(0) },
			engine.CloseInfo{Code: codec.CloseAbnormal},
			nil,
		},
		{
			"by a frame that is not masked", func(m *simServer) { m.Send(0, codec.NewFrame(codec.OpText, []byte("x"))) },
			engine.CloseInfo{Code: codec.CloseProtocolError},
			[]string{"close 1002 client frame is not masked"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := startSimnet(t, nil)
			m.connect(1)
			tt.close(m)
			reads := m.take(0)
			end := <-m.peer(0).ends
			if tt.end.Code == codec.CloseProtocolError {
				require.Len(t, reads, 1)
				assert.Contains(t, reads[0], "close 1002")
			} else {
				assert.Equal(t, tt.reads, reads)
				assert.Equal(t, tt.end.Reason, end.Reason)
			}
			assert.Equal(t, tt.end.Code, end.Code)
			assert.Equal(t, tt.end.Remote, end.Remote)
			m.text(0, "too late")
			assert.Empty(t, m.take(0))
			assert.EqualValues(t, 1, m.closed.Load())
		})
	}
}

// Pings come once in each interval, a peer that answers lives for ever, and one
// that does not read ends at the read timeout.
func TestSimnetHeartbeat(t *testing.T) {
	const conns, tick = 200, 250 * time.Millisecond
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = slowPing, slowDeath
	})
	m.connect(conns)
	pass := func(d time.Duration) {
		for ; d > 0; d -= tick {
			m.Advance(tick)
			m.Wait()
		}
	}
	pass(slowPing + time.Second) // the first comes at a random time
	before := m.Stats().Pings
	assert.GreaterOrEqual(t, before, uint64(conns))
	pass(10 * slowPing)
	assert.InDelta(t, 10*conns, m.Stats().Pings-before, conns)
	m.OnFrame = nil
	allocs := testing.AllocsPerRun(1, func() { pass(10 * slowPing) })
	assert.Less(t, allocs, 10*conns*2.5,
		"a pong of a simulated peer is one object; the pings of a loop and tick share a frame, which is two")
	assert.Zero(t, m.closed.Load())
	m.Stall(7)
	pass(slowDeath + 2*slowPing)
	assert.EqualValues(t, 1, m.closed.Load())
	end := <-m.closedPeer(t).ends
	assert.Equal(t, codec.CloseAbnormal, end.Code)
}

// closedPeer returns the one peer that has ended.
func (m *simServer) closedPeer(t *testing.T) (closed *peer) {
	for i := range int(m.opened.Load()) {
		if p := m.peer(i); p.conn.Closed() {
			require.Nil(t, closed)
			closed = p
		}
	}
	require.NotNil(t, closed)
	return closed
}

// A stalled peer's queue fills up to its bound, and its frames arrive in order
// once the peer reads again.
func TestSimnetStallsAndResumes(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops, cfg.MessageQueueSize = 1, 20 })
	m.connect(2)
	m.Stall(0)
	m.Wait()
	var want []string
	for n := range 20 {
		want = append(want, seq(n))
		for i := range 2 {
			f := engine.NewFrame(codec.OpText, []byte(seq(n)), engine.Handling{})
			require.NoError(t, m.peer(i).conn.Send(f))
		}
		m.Wait()
	}
	require.ErrorIs(t, m.peer(0).conn.Send(engine.NewFrame(codec.OpText, nil, engine.Handling{})), engine.ErrQueueFull)
	assert.Empty(t, m.take(0))
	assert.Equal(t, want, m.take(1), "the other reads")
	assert.Equal(t, 1, m.Shards()[0].Stats().Blocked)
	assert.EqualValues(t, 1, m.slow.Load())
	m.Resume(0)
	assert.Equal(t, want, m.take(0))
	assert.Zero(t, m.Shards()[0].Stats().Blocked)
	assert.EqualValues(t, 1, m.drained.Load())
}

// Stop closes all connections with its code, and at once those whose peers do
// not answer.
func TestSimnetStops(t *testing.T) {
	m := startSimnet(t, nil)
	m.connect(100)
	m.Stall(3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- m.Stop(ctx, codec.CloseGoingAway, "bye") }()
	m.eventually(func() bool { return m.closed.Load() == 99 }, "those that answer are not closed")
	cancel()
	require.ErrorIs(t, <-stopped, context.Canceled)
	<-m.Stopped()
	for peer := range 100 {
		if peer != 3 {
			require.Equal(t, []string{"close 1001 bye"}, m.take(peer))
		}
	}
	assert.Empty(t, m.take(3))
	assert.EqualValues(t, 100, m.closed.Load())
	m.text(5, "nobody is there")
	m.Wait()
}

func TestSimnetIsForOneEngine(t *testing.T) {
	m := startSimnet(t, nil)
	cfg := testConfig()
	cfg.ListenAddr, cfg.Simnet = "", m.Simnet
	other := engine.New(cfg, m.server, m.server)
	require.ErrorContains(t, other.Run(), "for one engine")
	m.connect(1)
}

func TestSimnetTakesNoSockets(t *testing.T) {
	m := startSimnet(t, nil)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	var p peer
	require.ErrorContains(t, m.Enroll(t.Context(), &p.conn, ours, engine.Decision{}, nil), "no sockets")
}

// The queues of a fan-out of any size serve the next one, and are released when
// there is none. The number that stays does not grow with the loops.
func TestFreeQueuesServeTheNextFanOut(t *testing.T) {
	for _, loops := range []int{1, 8} {
		t.Run(fmt.Sprint("loops=", loops), func(t *testing.T) { testFreeQueues(t, loops) })
	}
}

func testFreeQueues(t *testing.T, loops int) {
	const conns = 2*engine.KeptQueues + 1
	m := startSimnet(t, func(cfg *engine.Config, _ *server) { cfg.Loops = loops })
	m.OnFrame = nil
	m.connect(conns)
	f := engine.NewFrame(codec.OpText, []byte("to all"), engine.Handling{})
	fanOut := func() {
		before := m.Stats().Messages
		for _, shard := range m.Shards() {
			onLoop(shard, func(s *engine.Shard) { s.EachInLoop(func(c *engine.Conn) { c.DeliverInLoop(f) }) })
		}
		m.Wait()
		require.EqualValues(t, conns, m.Stats().Messages-before)
	}
	free := func() (n int) {
		for _, shard := range m.Shards() {
			onLoop(shard, func(s *engine.Shard) { n += s.FreeQueuesInLoop() })
		}
		return n
	}
	fanOut()
	require.Equal(t, conns, free())
	assert.Less(t, testing.AllocsPerRun(3, fanOut), conns/100.0)
	for range 3 { // in use all along
		m.Advance(10 * time.Second)
		fanOut()
		require.Equal(t, conns, free())
	}
	m.eventually(func() bool { // a loop that was kept from its processor needs more ticks
		m.Advance(10 * time.Second)
		m.Wait()
		return free() == engine.KeptQueues
	}, "the surplus stays")
	fanOut()
	require.Equal(t, conns, free())
}
