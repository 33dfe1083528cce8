package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// patience is the time that a test waits for a condition before it fails.
const patience = time.Minute

// server is an engine that listens on a free port and echoes, with hooks.
type server struct {
	*engine.Engine
	t    testing.TB
	ran  chan error
	stop sync.Once

	newConn   func()
	deflate   *codec.Deflate // of new connections
	admit     func(r *http.Request) ([]byte, bool)
	offLoop   bool
	turnAway  func(addr netip.Addr, err error) (polite bool)
	onOpen    func(p *peer)
	onMessage func(p *peer, op codec.Opcode, payload []byte)
	onClose   func(p *peer, end engine.CloseInfo)

	onWriteError func()
	onStall      func(engine.Stall)
	onRefused    func(err error)

	onEnding func(p *peer) bool

	opened, closed, abandoned, dropped, invalid, slow, drained, turnedAway atomic.Int64

	mu    sync.Mutex
	peers []*peer // guarded by mu
}

// peer is one connection's owner. Its conn comes first; see server.Owner.
type peer struct {
	conn engine.Conn
	srv  *server
	ends chan engine.CloseInfo
}

func testConfig() engine.Config {
	return engine.Config{
		ListenAddr:         "tcp://127.0.0.1:0",
		Loops:              2,
		BroadcastQueueSize: 256,
		BroadcastBatchSize: 64,
		MessageQueueSize:   256,
		QueueBytes:         1 << 20,
		HighQueueSize:      64,
		HighQueueBytes:     1 << 18,
		OverflowPolicy:     engine.DropNewest,
		HighWaterMark:      0.5,
		LowWaterMark:       0.1,
		MessageSizeLimit:   1 << 20,
		HeadBytes:          16 << 10,
		HeadLines:          128,
		HandshakeTimeout:   5 * time.Second,
		HeartbeatInterval:  1000 * time.Hour, // no ping comes between the expected frames
		HeartbeatTimeout:   2000 * time.Hour,
		CloseTimeout:       3 * time.Second,
		BroadcastTimeout:   patience,
		Logger:             slog.New(slog.DiscardHandler),
	}
}

// start runs an engine until the test ends.
func start(t testing.TB, configure func(*engine.Config, *server)) *server {
	t.Helper()
	cfg := testConfig()
	s := &server{t: t, ran: make(chan error, 1)}
	if configure != nil {
		configure(&cfg, s)
	}
	s.Engine = engine.New(cfg, s, s)
	go func() { s.ran <- s.Run() }()
	select {
	case <-s.Started():
	case err := <-s.ran:
		t.Fatalf("Run returned %v", err)
	case <-time.After(patience):
		t.Fatal("the engine did not start")
	}
	t.Cleanup(s.shutdown)
	return s
}

func (s *server) shutdown() {
	s.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = s.Stop(ctx, codec.CloseGoingAway, "bye") // clients that do not answer are closed at the end
		select {
		case err := <-s.ran:
			require.NoError(s.t, err)
		case <-time.After(patience):
			s.t.Error("Run did not return")
		}
	})
}

func (s *server) NewConn() *engine.Conn {
	if s.newConn != nil {
		s.newConn()
	}
	p := &peer{srv: s, ends: make(chan engine.CloseInfo, 1)}
	if s.deflate != nil {
		p.conn.SetDeflate(*s.deflate)
	}
	return &p.conn
}

func (s *server) Owner(c *engine.Conn) engine.Owner { return (*peer)(unsafe.Pointer(c)) }

func (s *server) TurnAway(addr netip.Addr, err error) bool {
	return s.turnAway != nil && s.turnAway(addr, err)
}

func (s *server) Screen(r *http.Request, turnedAway bool) (engine.Decision, bool) {
	if turnedAway {
		s.turnedAway.Add(1)
		accept := codec.AppendAccept(nil, r, codec.Accept{})
		return engine.Decision{Response: codec.AppendClose(accept, codec.CloseTryAgainLater, "later")}, false
	}
	return engine.Decision{}, s.offLoop
}

func (s *server) Admit(_ *engine.Conn, r *http.Request) engine.Decision {
	if s.admit != nil {
		response, accepted := s.admit(r)
		return engine.Decision{Response: response, Accepted: accepted}
	}
	if err := codec.CheckUpgrade(r); err != nil {
		return engine.Decision{Response: codec.AppendRefusal(nil, 400, err.Error(), nil), Refused: err}
	}
	return engine.Decision{Response: codec.AppendAccept(nil, r, codec.Accept{}), Accepted: true}
}

func (s *server) Abandon(*engine.Conn) { s.abandoned.Add(1) }

func (s *server) OnRefused(_ *engine.Conn, _ *http.Request, err error) {
	if s.onRefused != nil {
		s.onRefused(err)
	}
}

func (s *server) OnDrop(engine.DropReason) { s.dropped.Add(1) }
func (s *server) OnStall(st engine.Stall) {
	if s.onStall != nil {
		s.onStall(st)
	}
}
func (s *server) OnSlow(*engine.Conn, int) { s.slow.Add(1) }
func (s *server) OnDrain(*engine.Conn)     { s.drained.Add(1) }
func (s *server) OnReadError()             {}

func (s *server) OnRoundTrip(*engine.Conn, time.Duration) {}

func (s *server) OnWriteError() {
	if s.onWriteError != nil {
		s.onWriteError()
	}
}
func (s *server) OnInvalid(*engine.Conn, error) { s.invalid.Add(1) }

func (s *server) Go(_ context.Context, fn func()) bool {
	go fn()
	return true
}

func (p *peer) OnOpen() {
	p.srv.mu.Lock()
	p.srv.peers = append(p.srv.peers, p)
	p.srv.mu.Unlock()
	p.srv.opened.Add(1)
	if p.srv.onOpen != nil {
		p.srv.onOpen(p)
	}
}

func (p *peer) Handling() bool { return false }

func (p *peer) OnClosing() {}

func (p *peer) OnEnding() bool { return p.srv.onEnding == nil || p.srv.onEnding(p) }

func (p *peer) OnMessage(op codec.Opcode, payload []byte) {
	if p.srv.onMessage != nil {
		p.srv.onMessage(p, op, payload)
		return
	}
	_ = p.conn.SendPayload(op, payload, engine.LaneNormal)
}

func (p *peer) OnClose(end engine.CloseInfo) {
	p.srv.closed.Add(1)
	p.ends <- end
	if p.srv.onClose != nil {
		p.srv.onClose(p, end)
	}
}

// peer returns the n-th connection that opened.
func (s *server) peer(n int) *peer {
	s.t.Helper()
	s.eventually(func() bool { return int(s.opened.Load()) > n }, "connection %d did not open", n)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peers[n]
}

// eventually waits until the condition holds.
func (s *server) eventually(condition func() bool, format string, args ...any) {
	s.t.Helper()
	require.Eventuallyf(s.t, condition, patience, time.Millisecond, format, args...)
}

// onLoop runs fn on the loop of shard s and waits for it.
func onLoop(s *engine.Shard, fn func(*engine.Shard)) {
	done := make(chan struct{})
	s.Post(taskFunc(func(s *engine.Shard) {
		defer close(done)
		fn(s)
	}))
	<-done
}

// taskFunc is a function as a task.
type taskFunc func(*engine.Shard)

func (f taskFunc) RunInLoop(s *engine.Shard) { f(s) }

// client is a WebSocket client that can also break the protocol.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

const upgradeRequest = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// enroll connects through a listener of package net and hands the connection
// over.
func (s *server) enroll(network, address string) net.Conn {
	s.t.Helper()
	l, err := net.Listen(network, address)
	require.NoError(s.t, err)
	defer l.Close()
	peer, err := net.Dial(network, l.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = peer.Close() })
	accepted, err := l.Accept()
	require.NoError(s.t, err)
	require.NoError(s.t, s.Enroll(s.t.Context(), s.NewConn(), accepted, engine.Decision{Response: []byte("hello")}, nil))
	return peer
}

// serve connects through a listener of Serve.
func (s *server) serve() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	s.t.Cleanup(func() {
		s.shutdown()
		require.NoError(s.t, <-ended)
	})
	peer, err := net.Dial("tcp", l.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = peer.Close() })
	c := newClient(s.t, peer)
	c.raw(upgradeRequest)
	require.Equal(s.t, 101, c.response())
}

// dialTCP connects without a handshake.
func (s *server) dialTCP() *client {
	s.t.Helper()
	nc, err := net.DialTimeout(s.Addr().Network(), s.Addr().String(), patience)
	require.NoError(s.t, err)
	if tcp, ok := nc.(*net.TCPConn); ok {
		// A fixed size: the kernel lets the buffer of a client that reads much at a time grow to 32 MiB.
		require.NoError(s.t, tcp.SetReadBuffer(64<<10))
	}
	require.NoError(s.t, nc.SetDeadline(time.Now().Add(2*patience)))
	s.t.Cleanup(func() { _ = nc.Close() })
	return newClient(s.t, nc)
}

func newClient(t testing.TB, nc net.Conn) *client {
	return &client{Conn: nc, t: t, r: bufio.NewReaderSize(nc, 64<<10)}
}

// dial connects and upgrades.
func (s *server) dial() *client {
	s.t.Helper()
	c := s.dialTCP()
	c.raw(upgradeRequest)
	require.Equal(s.t, 101, c.response())
	return c
}

// raw sends bytes unchanged.
func (c *client) raw(b string) {
	c.t.Helper()
	_, err := io.WriteString(c, b)
	require.NoError(c.t, err)
}

// response reads an HTTP response and returns its status.
func (c *client) response() int {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(c.t, err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// frame encodes a masked frame.
func frame(op gobwas.OpCode, payload string) string {
	var b strings.Builder
	f := gobwas.MaskFrame(gobwas.NewFrame(op, true, []byte(payload)))
	if err := gobwas.WriteFrame(&b, f); err != nil {
		panic(err)
	}
	return b.String()
}

// send sends one text message.
func (c *client) send(payload string) {
	c.t.Helper()
	c.raw(frame(gobwas.OpText, payload))
}

// read reads one frame.
func (c *client) read() gobwas.Frame {
	c.t.Helper()
	f, err := readFrame(c.r)
	require.NoError(c.t, err)
	return f
}

func readFrame(r io.Reader) (f gobwas.Frame, err error) {
	if f.Header, err = gobwas.ReadHeader(r); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// message reads frames until one is not a ping.
func (c *client) message() gobwas.Frame {
	c.t.Helper()
	for {
		if f := c.read(); f.Header.OpCode != gobwas.OpPing {
			return f
		}
	}
}

// expect reads one text message and compares it.
func (c *client) expect(payload string) {
	c.t.Helper()
	f := c.message()
	require.Equal(c.t, gobwas.OpText, f.Header.OpCode, "payload %q", f.Payload)
	require.Equal(c.t, payload, string(f.Payload))
}

// expectClose reads frames until a close frame and compares its code.
func (c *client) expectClose(code codec.CloseCode) {
	c.t.Helper()
	for {
		f := c.read()
		if f.Header.OpCode == gobwas.OpClose {
			got, reason := gobwas.ParseCloseFrameData(f.Payload)
			require.Equal(c.t, int(code), int(got), reason)
			return
		}
	}
}

// expectEOF reads until the server closes the connection.
func (c *client) expectEOF() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.r)
	require.NoError(c.t, err)
}

// echo checks that the server still serves the connection.
func (c *client) echo() {
	c.t.Helper()
	c.send("still there?")
	c.expect("still there?")
}

func must(t testing.TB, err error) {
	t.Helper()
	require.NoError(t, err)
}

func seq(n int) string { return fmt.Sprintf("message %06d", n) }
