package engine_test

// Each test here guards against one fact of gnet that does harm if it is
// forgotten. docs/design/gnet.md lists the facts under the same numbers.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
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

// nextFD returns the next descriptor of the process.
func nextFD(t *testing.T) int {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	return int(f.Fd())
}

func TestFact01ConnectionsBeyondTheDescriptorReserveWait(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.MaxDescriptors = nextFD(t) + 100
	})
	const n = 60 // each takes two descriptors, because the clients are in this process
	waiting := make(map[*client]chan int)
	for range n {
		c := s.dialTCP()
		c.raw(upgradeRequest)
		answer := make(chan int, 1)
		waiting[c] = answer
		go func() { answer <- c.response() }()
	}
	s.eventually(func() bool { return s.AcceptStats().Descriptors.Resting }, "no listener rests")
	require.Less(t, s.opened.Load(), int64(n))
	for len(waiting) > 0 { // each close lets one more connect
		left := len(waiting)
		for c, answer := range waiting {
			select {
			case status := <-answer:
				require.Equal(t, 101, status)
				c.echo()
				_ = c.Close()
				delete(waiting, c)
			default:
			}
		}
		s.eventually(func() bool { return len(waiting) < left || s.opened.Load() > int64(n-left) },
			"no connection is accepted")
	}
	st := s.AcceptStats().Descriptors
	require.EqualValues(t, 1, st.Times)
	require.Positive(t, st.Time)
	s.eventually(func() bool { return !s.AcceptStats().Descriptors.Resting }, "listeners still rest")
}

// TestFact01WithoutReadinessConnectionsBeyondAreRefused covers the last resort,
// where the loops' epolls are unknown.
func TestFact01WithoutReadinessConnectionsBeyondAreRefused(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.NoReadiness = true
		cfg.MaxDescriptors = nextFD(t) + 40
	})
	var clients []*client
	refused := 0
	for range 60 {
		c := s.dialTCP()
		_, err := io.WriteString(c, upgradeRequest)
		if err != nil {
			refused++ // the refusal was faster than the request
			continue
		}
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
			refused++
			continue
		}
		require.Equal(t, 101, resp.StatusCode)
		clients = append(clients, c)
	}
	require.NotZero(t, refused)
	require.NotEmpty(t, clients)
	for _, c := range clients {
		c.echo()
	}
}

// TestFact01RunReturnsAnErrorWhenDescriptorsAreExhausted starts a process of
// its own with this test, with few descriptors and without the reserve.
func TestFact01RunReturnsAnErrorWhenDescriptorsAreExhausted(t *testing.T) {
	const child = "WS_TEST_EXHAUST_DESCRIPTORS"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}))
	s := &server{t: t}
	cfg := testConfig()
	cfg.MaxDescriptors = 1 << 20
	s.Engine = engine.New(cfg, s, s)
	ran := make(chan error, 1)
	go func() { ran <- s.Run() }()
	<-s.Started()
	var conns []net.Conn
	for {
		select {
		case err := <-ran:
			require.Error(t, err)
			return
		default:
		}
		if nc, err := net.DialTimeout("tcp", s.Addr().String(), time.Second); err == nil {
			conns = append(conns, nc)
		}
		require.Less(t, len(conns), 100)
	}
}

func TestFact02APanicInAnyCallbackCostsOnlyItsConnection(t *testing.T) {
	boom := func() { panic("boom") }
	cases := map[string]func(s *server){
		"new connection": func(s *server) { s.newConn = boom },
		"admit": func(s *server) {
			s.admit = func(*http.Request) ([]byte, bool) { panic("boom") }
		},
		"admit off the loop": func(s *server) {
			s.offLoop = true
			s.admit = func(*http.Request) ([]byte, bool) { panic("boom") }
		},
		"open":    func(s *server) { s.onOpen = func(*peer) { boom() } },
		"message": func(s *server) { s.onMessage = func(*peer, codec.Opcode, []byte) { boom() } },
		"close":   func(s *server) { s.onClose = func(*peer, engine.CloseInfo) { boom() } },
		"task": func(s *server) {
			s.onOpen = func(p *peer) { p.conn.Shard().Post(taskFunc(func(*engine.Shard) { boom() })) }
		},
	}
	for name, install := range cases {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			witness := s.dial()
			onBoth(s, func() { install(s) })
			for range 4 { // so that each loop gets its share
				c := s.dialTCP()
				c.raw(upgradeRequest + frame(gobwas.OpText, "hello") + frame(gobwas.OpClose, ""))
				_, _ = io.Copy(io.Discard, c.r) // until the server closes
			}
			onBoth(s, func() {
				s.newConn, s.admit, s.onOpen, s.onMessage, s.onClose = nil, nil, nil, nil, nil
			})
			witness.echo()
			s.dial().echo()
		})
	}
}

// onBoth changes the server's hooks while both loops stand still.
func onBoth(s *server, change func()) {
	onLoop(s.Shards()[0], func(*engine.Shard) {
		onLoop(s.Shards()[1], func(*engine.Shard) { change() })
	})
}

func TestFact03TasksRunInTheOrderPosted(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.BroadcastQueueSize = 64 })
	const n = 20_000 // far beyond the 1,024 where gnet's own queue forks
	got := make([]int, 0, n)
	for i := range n {
		s.Shards()[0].Post(taskFunc(func(*engine.Shard) { got = append(got, i) }))
	}
	onLoop(s.Shards()[0], func(*engine.Shard) {})
	require.Len(t, got, n)
	for i, v := range got {
		require.Equal(t, i, v)
	}
}

func TestFact03APublisherInAnEndlessLoopDoesNotStarveConnections(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	c := s.dial()
	member := s.dial()
	go func() { _, _ = io.Copy(io.Discard, member.r) }()
	p := s.peer(1)
	f := engine.NewFrame(codec.OpText, bytes.Repeat([]byte("x"), 512), engine.Handling{})
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	var published atomic.Int64
	publisher.Go(func() {
		fan := taskFunc(func(*engine.Shard) { p.conn.DeliverInLoop(f) })
		for {
			select {
			case <-stop:
				return
			default:
				if s.Publish(context.Background(), fan, s.Shards()) == nil {
					published.Add(1)
				}
			}
		}
	})
	for echoes := 0; echoes < 200 || published.Load() < 1000; echoes++ {
		c.echo()
	}
	close(stop)
	publisher.Wait()
}

func TestFact04AMessageOnItsWayDoesNotReachTheNextClientOfTheDescriptor(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	s.dial() // keeps the order of descriptors simple
	old := s.dial()
	stale := s.peer(1)
	fd := stale.conn.FD()
	late := engine.NewSendTask(&stale.conn, engine.NewFrame(codec.OpText, []byte("for the old client"), engine.Handling{}))
	onLoop(s.Shards()[0], func(sh *engine.Shard) { sh.CloseLater(&stale.conn) })
	<-stale.ends
	_ = old.Close()
	var next *client
	for i := 0; next == nil; i++ {
		require.Less(t, i, 50, "the descriptor was not reused")
		c := s.dial()
		if s.peer(2+i).conn.FD() == fd {
			next = c
		}
	}
	s.Shards()[0].Post(late)
	require.ErrorIs(t, stale.conn.Send(engine.NewFrame(codec.OpText, []byte("x"), engine.Handling{})), net.ErrClosed)
	next.echo() // nothing came before the answer
}

func TestFact05AMemberWhoseWriteFailsDoesNotDisturbTheFanOut(t *testing.T) {
	s := start(t, nil)
	const n = 40
	var clients []*client
	var members []*peer
	for i := range n {
		clients = append(clients, s.dial())
		members = append(members, s.peer(i))
	}
	for i := 0; i < n; i += 2 { // every second peer resets its connection
		tcp, ok := clients[i].Conn.(*net.TCPConn)
		require.True(t, ok)
		must(t, tcp.SetLinger(0))
	}
	fan := func(i int) engine.Task {
		f := engine.NewFrame(codec.OpText, []byte(seq(i)), engine.Handling{})
		return taskFunc(func(sh *engine.Shard) {
			for _, m := range members {
				if m.conn.Shard() == sh {
					m.conn.DeliverInLoop(f)
				}
			}
		})
	}
	for i := range 100 {
		if i%5 == 0 && i/5 < n/2 {
			_ = clients[2*(i/5)].Close()
		}
		must(t, s.Publish(context.Background(), fan(i), s.Shards()))
	}
	for i := 1; i < n; i += 2 {
		for k := range 100 {
			clients[i].expect(seq(k))
		}
	}
	s.eventually(func() bool { return s.closed.Load() == n/2 }, "%d of %d closed", s.closed.Load(), n/2)
}

// TestFact06And07SharedFramesArriveWholeAtStalledReaders covers partial writes
// of frames that several connections share, and the writability poller.
func TestFact06And07SharedFramesArriveWholeAtStalledReaders(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.QueueBytes = 1 << 30 })
	const n, frames, size = 8, 24, 512 << 10
	want := sha256.New()
	var tasks []engine.Task
	var members []*peer
	for i := range frames {
		payload := bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)*2654435761), size/4)
		want.Write(payload)
		f := engine.NewFrame(codec.OpBinary, payload, engine.Handling{})
		tasks = append(tasks, taskFunc(func(sh *engine.Shard) {
			for _, m := range members {
				if m.conn.Shard() == sh {
					assert.True(t, m.conn.DeliverInLoop(f))
				}
			}
		}))
	}
	var clients []*client
	for i := range n {
		clients = append(clients, s.dial())
		members = append(members, s.peer(i))
	}
	for _, task := range tasks {
		must(t, s.Publish(context.Background(), task, s.Shards()))
	}
	var total engine.ShardStats
	s.eventually(func() bool {
		total = engine.ShardStats{}
		for _, sh := range s.Shards() {
			st := sh.Stats()
			total.Add(&st)
		}
		return total.BlockedTotal >= n
	}, "only %d sockets filled up", total.BlockedTotal)
	for first := range 2 { // half of them stall until the others are done
		var readers sync.WaitGroup
		for i := first; i < n; i += 2 {
			readers.Go(func() {
				got := sha256.New()
				for range frames {
					got.Write(clients[i].read().Payload)
				}
				assert.Equal(t, want.Sum(nil), got.Sum(nil), "client %d", i)
			})
		}
		readers.Wait()
	}
	for _, m := range members {
		s.eventually(func() bool { return m.conn.QueuedBytes() == 0 }, "bytes stay queued")
	}
}

func TestFact08TheLastFrameBeforeACloseArrives(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.QueueBytes, cfg.CloseTimeout = 1<<30, patience })
	c := s.dial()
	p := s.peer(0)
	const frames, size = 64, 256 << 10 // more than the socket's buffers take
	payload := bytes.Repeat([]byte("x"), size)
	for range frames {
		must(t, p.conn.Send(engine.NewFrame(codec.OpBinary, payload, engine.Handling{})))
	}
	must(t, p.conn.Send(engine.NewFrame(codec.OpText, []byte("the last"), engine.Handling{})))
	p.conn.Close(codec.CloseNormal, "done")
	require.ErrorIs(t, p.conn.Send(engine.NewFrame(codec.OpText, payload, engine.Handling{})), engine.ErrClosed)
	for range frames {
		require.Len(t, c.read().Payload, size)
	}
	c.expect("the last")
	c.expectClose(codec.CloseNormal)
	c.raw(frame(gobwas.OpClose, "\x03\xe8"))
	c.expectEOF()
	assert.Equal(t, codec.CloseNormal, (<-p.ends).Code)
}

func TestFact08TheReasonOfAFailureArrivesThoughTheClientKeepsSending(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c := s.dial()
	junk := strings.Repeat(frame(gobwas.OpText, strings.Repeat("x", 60<<10)), 64)
	unmasked := "\x81\x01x"
	go func() { _, _ = io.WriteString(c, unmasked+junk) }() // 4 MiB that nothing reads
	c.expectClose(codec.CloseProtocolError)
	assert.Equal(t, codec.CloseProtocolError, s.endOf(0).Code)
	s.dial().echo()
}

// endOf waits for the end of the n-th connection, whose client closes.
func (s *server) endOf(n int) engine.CloseInfo {
	s.t.Helper()
	select {
	case end := <-s.peer(n).ends:
		return end
	case <-time.After(patience):
		s.t.Fatal("the connection did not end")
		panic("unreachable")
	}
}

func TestFact09StopClosesWithAFrameAndRefusesNewConnections(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.CloseTimeout = patience })
	const n = 20
	var clients []*client
	for i := range n {
		clients = append(clients, s.dial())
		must(t, s.peer(i).conn.Send(engine.NewFrame(codec.OpText, []byte("queued before"), engine.Handling{})))
	}
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- s.Stop(ctx, codec.CloseGoingAway, "bye")
	}()
	s.eventually(s.Draining, "Stop did not begin")
	s.eventually(func() bool {
		late, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			_ = late.Close()
		}
		return errors.Is(err, unix.ECONNREFUSED)
	}, "a new connection is not refused by the kernel")
	for _, c := range clients {
		c.expect("queued before")
		c.expectClose(codec.CloseGoingAway)
		c.raw(frame(gobwas.OpClose, "\x03\xe9"))
		c.expectEOF()
	}
	require.NoError(t, <-stopped)
	assert.EqualValues(t, n, s.closed.Load())
}

func TestFact11TimersComeFromTheWheel(t *testing.T) {
	t.Parallel()
	t.Run("handshake timeout", func(t *testing.T) {
		s := start(t, func(cfg *engine.Config, _ *server) { cfg.HandshakeTimeout = 100 * time.Millisecond })
		c := s.dialTCP()
		c.raw("GET /ws HTTP/1.1\r\nHost: x\r\n")
		assert.Equal(t, http.StatusRequestTimeout, c.response())
		c.expectEOF()
	})
	t.Run("ping", func(t *testing.T) {
		s := start(t, func(cfg *engine.Config, _ *server) { cfg.HeartbeatInterval = 50 * time.Millisecond })
		c := s.dial()
		for range 3 {
			assert.Equal(t, gobwas.OpPing, c.read().Header.OpCode)
		}
	})
	t.Run("silence", func(t *testing.T) {
		s := start(t, func(cfg *engine.Config, _ *server) {
			cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 50*time.Millisecond, 200*time.Millisecond
		})
		s.dial()
		end := s.endOf(0)
		assert.Equal(t, codec.CloseAbnormal, end.Code)
		assert.ErrorContains(t, end.Err, "heartbeat")
	})
	t.Run("any byte counts as life", func(t *testing.T) {
		s := start(t, func(cfg *engine.Config, _ *server) {
			cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 50*time.Millisecond, 5*time.Second
		})
		c := s.dial()
		message := frame(gobwas.OpText, "a message that trickles in")
		pace := time.NewTicker(200 * time.Millisecond) // the whole is slower than the timeout
		defer pace.Stop()
		for i := range len(message) { // bytes, not runes
			c.raw(message[i : i+1])
			<-pace.C
		}
		for {
			f := c.read()
			if f.Header.OpCode == gobwas.OpText {
				break
			}
			require.Equal(t, gobwas.OpPing, f.Header.OpCode, "%q", f.Payload)
		}
	})
	t.Run("close timeout", func(t *testing.T) {
		s := start(t, func(cfg *engine.Config, _ *server) { cfg.CloseTimeout = 100 * time.Millisecond })
		c := s.dial()
		s.peer(0).conn.Close(codec.CloseNormal, "")
		c.expectClose(codec.CloseNormal)
		c.expectEOF() // though the client never answers
	})
}

func TestFact12EnrollHandsOverTheEarlyBytes(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.ListenAddr = "" })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer func() { _ = nc.Close() }()
	accepted, err := l.Accept()
	must(t, err)
	response := []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n")
	early := frame(gobwas.OpText, "first") + frame(gobwas.OpText, "second")
	cut := len(early) - 3
	must(t, s.Enroll(t.Context(), s.NewConn(), accepted, engine.Decision{Response: response}, []byte(early[:cut])))
	_, err = io.WriteString(nc, early[cut:])
	must(t, err)
	c := &client{Conn: nc, t: t, r: bufio.NewReader(nc)}
	must(t, nc.SetDeadline(time.Now().Add(patience)))
	assert.Equal(t, 101, c.response())
	c.expect("first")
	c.expect("second")
	_, err = accepted.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed, "the original descriptor is closed")
}

func TestFact12EnrollReturnsWhenTheEngineHasStopped(t *testing.T) {
	s := start(t, nil)
	s.shutdown()
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	require.ErrorIs(t, s.Enroll(t.Context(), s.NewConn(), a, engine.Decision{}, nil), engine.ErrStopped)
}

func TestFact13AHandshakeInPiecesAndFramesBehindIt(t *testing.T) {
	stream := upgradeRequest + frame(gobwas.OpText, "early")
	for _, offLoop := range []bool{false, true} {
		s := start(t, func(_ *engine.Config, s *server) { s.offLoop = offLoop })
		for _, cut := range []int{1, 3, 17, len(upgradeRequest) - 2, len(upgradeRequest), len(upgradeRequest) + 3} {
			c := s.dialTCP()
			for i := 0; i < len(stream); i += cut {
				c.raw(stream[i:min(i+cut, len(stream))])
			}
			require.Equal(t, 101, c.response())
			c.expect("early")
			c.echo()
		}
	}
}

func TestFact13ARequestBeyondTheLimitsIsRefused(t *testing.T) {
	s := start(t, nil)
	witness := s.dial()
	cases := map[string]struct {
		request string
		status  int
	}{
		"long header":      {"GET /ws HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 17_000), 431},
		"many headers":     {"GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 200) + "\r\n", 431},
		"long target":      {"GET /" + strings.Repeat("x", 17_000), 414},
		"not HTTP":         {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
		"no upgrade":       {"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"bare line feeds":  {"GET /ws HTTP/1.1\nHost: x\n\n", 400},
		"HTTP 1.2":         {"GET /ws HTTP/1.2\r\nHost: x\r\n\r\n", 505},
		"control in value": {"GET /ws HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := s.dialTCP()
			c.raw(tc.request)
			assert.Equal(t, tc.status, c.response())
			c.expectEOF()
		})
	}
	witness.echo()
}
