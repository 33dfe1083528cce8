package engine_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	"github.com/qi-realtime/ws/internal/testcert"
)

// tlsServer is a server that speaks TLS, with the certificate pool of its
// clients.
type tlsServer struct {
	*server
	roots *x509.CertPool
}

// startTLS runs an engine whose listener speaks TLS.
func startTLS(t testing.TB, configure func(*engine.Config, *server)) *tlsServer {
	t.Helper()
	cert, roots := testcert.New("localhost")
	return &tlsServer{roots: roots, server: start(t, func(cfg *engine.Config, s *server) {
		cfg.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
		cfg.TLSHandshakes = 16
		// The first ping comes at a random time within the interval: for 200
		// connections, one within 10 s of an hour is likely.
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 1000*time.Hour, 2000*time.Hour
		if configure != nil {
			configure(cfg, s)
		}
	})}
}

// clientTLS returns the configuration of a client of s that speaks one version.
func (s *tlsServer) clientTLS(version uint16) *tls.Config {
	return &tls.Config{ServerName: "localhost", RootCAs: s.roots, MinVersion: version, MaxVersion: version}
}

// over returns a client that speaks TLS over c.
func (c *client) over(cfg *tls.Config) *client {
	c.t.Helper()
	tc := tls.Client(c.Conn, cfg)
	require.NoError(c.t, tc.Handshake())
	return &client{Conn: tc, t: c.t, r: bufio.NewReaderSize(tc, 64<<10)}
}

// upgrade upgrades a connection.
func (c *client) upgrade() *client {
	c.t.Helper()
	c.raw(upgradeRequest)
	require.Equal(c.t, 101, c.response())
	return c
}

// dialTLS connects with TLS and upgrades.
func (s *tlsServer) dialTLS(version uint16) *client {
	s.t.Helper()
	return s.dialTCP().over(s.clientTLS(version)).upgrade()
}

// onBothVersions runs test with TLS 1.2 and 1.3.
func onBothVersions(t *testing.T, test func(t *testing.T, version uint16)) {
	t.Helper()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { test(t, version) })
	}
}

func TestTLSEcho(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		s := startTLS(t, nil)
		c := s.dialTLS(version)
		for i := range 100 {
			c.send(seq(i))
			c.expect(seq(i))
		}
		c.raw(frame(gobwas.OpClose, "\x03\xe8bye"))
		c.expectClose(1000)
		c.expectEOF() // close_notify: io.ErrUnexpectedEOF without it
		s.eventually(func() bool { return s.closed.Load() == 1 }, "not closed")
	})
}

// choppedConn writes in small pieces.
type choppedConn struct {
	net.Conn
	size int
}

func (c choppedConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Conn.Write(p[n:min(len(p), n+c.size)])
		n += m
	}
	return n, err
}

// Records may be cut anywhere, in the handshake as well.
func TestTLSRecordsCut(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		for _, size := range []int{1, 7} {
			t.Run(fmt.Sprintf("size=%d", size), func(t *testing.T) {
				s := startTLS(t, nil)
				plain := s.dialTCP()
				require.NoError(t, plain.Conn.(*net.TCPConn).SetNoDelay(true))
				plain.Conn = choppedConn{plain.Conn, size}
				c := plain.over(s.clientTLS(version)).upgrade()
				for i := range 20 {
					c.send(strings.Repeat(seq(i), 20))
					c.expect(strings.Repeat(seq(i), 20))
				}
				s.dialTLS(version).echo()
			})
		}
	})
}

// Frames may follow the upgrade request in its record, and may come before the
// decision on it.
func TestTLSPipelined(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		for _, offLoop := range []bool{false, true} {
			t.Run(fmt.Sprintf("offLoop=%v", offLoop), func(t *testing.T) {
				release := make(chan struct{})
				s := startTLS(t, func(_ *engine.Config, s *server) {
					s.offLoop = offLoop
					s.admit = func(r *http.Request) ([]byte, bool) {
						if offLoop {
							<-release
						}
						return codec.AppendAccept(nil, r, codec.Accept{}), true
					}
				})
				c := s.dialTCP().over(s.clientTLS(version))
				c.raw(upgradeRequest[:40])
				c.raw(upgradeRequest[40:] + frame(gobwas.OpText, "1"))
				c.raw(frame(gobwas.OpText, "2"))
				close(release)
				require.Equal(t, 101, c.response())
				c.expect("1")
				c.expect("2")
			})
		}
	})
}

func TestTLSLargeMessages(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		s := startTLS(t, func(cfg *engine.Config, _ *server) { cfg.QueueBytes = 8 << 20 })
		c := s.dialTLS(version)
		message := strings.Repeat("0123456789abcdef", 1<<16)
		const n = 4
		var wg sync.WaitGroup
		wg.Go(func() {
			for range n {
				_, err := io.WriteString(c.Conn, frame(gobwas.OpText, message))
				assert.NoError(t, err)
			}
		})
		for range n {
			c.expect(message)
		}
		wg.Wait()
	})
}

// Replies keep their order, whether they are batched or queued behind a full
// socket.
func TestTLSReplyOrder(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		s := startTLS(t, func(cfg *engine.Config, _ *server) { cfg.MessageQueueSize, cfg.QueueBytes = 1<<15, 64<<20 })
		c := s.dialTLS(version)
		const n = 5000
		padding := strings.Repeat("x", 4000)
		var wg sync.WaitGroup
		wg.Go(func() {
			w := bufio.NewWriterSize(c.Conn, 60_000)
			for i := range n {
				_, _ = w.WriteString(frame(gobwas.OpText, seq(i)+padding))
			}
			assert.NoError(t, w.Flush())
		})
		for i := range n {
			c.expect(seq(i) + padding)
		}
		wg.Wait()
		assert.Zero(t, s.dropped.Load())
	})
}

// Many frames that are flushed together take few records and writes.
func TestTLSBatches(t *testing.T) {
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops = 1
		cfg.TLSConfig.DynamicRecordSizingDisabled = true
	})
	c := s.dialTLS(tls.VersionTLS13)
	p, shard := s.peer(0), s.Shards()[0]
	c.echo()
	var before uint64
	onLoop(shard, func(*engine.Shard) {
		before = shard.Stats().Writes
		for i := range 100 {
			p.conn.DeliverInLoop(engine.NewFrame(codec.OpText, []byte(seq(i)), engine.Handling{}))
		}
	})
	for i := range 100 {
		c.expect(seq(i))
	}
	onLoop(shard, func(*engine.Shard) { assert.EqualValues(t, 1, shard.Stats().Writes-before) })
}

// A peer that sends half a ClientHello takes no worker: other clients connect
// beside more of them than the bound. They are closed in time.
func TestTLSHalfHello(t *testing.T) {
	t.Parallel()
	hello := clientHello(t)
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSHandshakes = 2
		cfg.HandshakeTimeout = 5 * time.Second
	})
	var slow []*client
	for i := range 20 {
		c := s.dialTCP()
		c.raw(hello[:i*len(hello)/20])
		slow = append(slow, c)
	}
	s.dialTLS(tls.VersionTLS13).echo()
	s.dialTLS(tls.VersionTLS12).echo()
	for _, c := range slow {
		c.expectEOF()
	}
	s.dialTLS(tls.VersionTLS13).echo()
	s.eventually(func() bool { return s.Shards()[0].Connections()+s.Shards()[1].Connections() == 3 }, "sockets stay")
}

// A peer that goes silent after its ClientHello releases its worker.
func TestTLSSilentAfterHello(t *testing.T) {
	t.Parallel()
	hello := clientHello(t)
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSHandshakes = 2
		cfg.HandshakeTimeout = 3 * time.Second
	})
	var slow []*client
	for range 8 {
		c := s.dialTCP()
		c.raw(hello)
		slow = append(slow, c)
	}
	for _, c := range slow {
		c.expectEOF()
	}
	s.eventually(func() bool { // a busy machine may need longer than HandshakeTimeout
		return tls.Client(s.dialTCP().Conn, s.clientTLS(tls.VersionTLS13)).Handshake() == nil
	}, "no worker is free")
}

// While others wait for its worker, a peer that is silent in its handshake is
// closed long before the handshake timeout.
func TestTLSSilentPeersGiveWay(t *testing.T) {
	var offset atomic.Int64
	hello := clientHello(t)
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSHandshakes = 2
		cfg.HandshakeTimeout = 100 * time.Second
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	for range 2 {
		c := s.dialTCP()
		c.raw(hello)
		_, err := c.r.Peek(5) // the handshake runs
		require.NoError(t, err)
	}
	waits := s.dialTCP()
	done := make(chan error, 1)
	tc := tls.Client(waits.Conn, s.clientTLS(tls.VersionTLS13))
	go func() { done <- tc.Handshake() }()
	step := time.NewTicker(100 * time.Millisecond)
	defer step.Stop()
	for range 8 {
		select {
		case err := <-done:
			require.NoError(t, err)
			(&client{Conn: tc, t: t, r: bufio.NewReader(tc)}).upgrade().echo()
			return
		case <-step.C:
			offset.Add(int64(11 * time.Second))
		}
	}
	require.NoError(t, <-done, "88 s of 100 have passed")
}

// clientHello returns the ClientHello of crypto/tls.
func clientHello(t testing.TB) string {
	t.Helper()
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { _ = tls.Client(near, &tls.Config{ServerName: "localhost"}).Handshake() })
	buf := make([]byte, 16<<10)
	n, err := far.Read(buf)
	require.NoError(t, err)
	_, _ = near.Close(), far.Close()
	wg.Wait()
	require.EqualValues(t, 22, buf[0])
	return string(buf[:n])
}

// A peer that does not speak TLS gets an answer that it can read, and holds up
// no other.
func TestTLSGarbage(t *testing.T) {
	const unexpectedMessage = "\x15\x03\x01\x00\x02\x02\x0a"
	tests := []struct{ name, send, want string }{
		{"HTTP", upgradeRequest, "HTTP/1.1 400 Bad Request\r\n"},
		{"one byte of HTTP", "G", "HTTP/1.1 400 Bad Request\r\n"},
		{"bytes", "\x00\x01\x02", unexpectedMessage},
		{"SSL 2", "\x80\x2e\x01\x00\x02", unexpectedMessage},
		{"another version", "\x16\x02\x01", unexpectedMessage},
		{"an empty record", "\x16\x03\x01\x00\x00", unexpectedMessage},
		{"an endless record", "\x16\x03\x01\xff\xff", unexpectedMessage},
		{"another handshake message", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", unexpectedMessage},
		{"an endless hello", "\x16\x03\x01\x00\x04\x01\xff\xff\xff", unexpectedMessage},
		{"data in the hello", "\x16\x03\x01\x00\x01\x01\x17\x03\x01\x00\x01a", unexpectedMessage},
		{"a hello of nonsense", "\x16\x03\x01\x00\x05\x01\x00\x00\x01a", "\x15\x03\x01\x00\x02\x02\x32"},
	}
	s := startTLS(t, nil)
	bystander := s.dialTLS(tls.VersionTLS13)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.dialTCP()
			c.raw(tt.send)
			got, err := io.ReadAll(c.r)
			require.NoError(t, err)
			assert.Equal(t, tt.want, string(got[:min(len(got), len(tt.want))]))
		})
	}
	bystander.echo()
}

// A record that was tampered with ends its connection with an alert.
func TestTLSBrokenRecord(t *testing.T) {
	t.Parallel()
	onBothVersions(t, func(t *testing.T, version uint16) {
		s := startTLS(t, nil)
		bystander := s.dialTLS(version)
		c := s.dialTLS(version)
		c.echo()
		_, err := c.Conn.(*tls.Conn).NetConn().Write([]byte("\x17\x03\x03\x00\x20" + strings.Repeat("x", 32)))
		require.NoError(t, err)
		_, err = io.ReadAll(c.r)
		var alert tls.AlertError
		require.ErrorContains(t, err, "bad record MAC", "%T", alert)
		end := receiveEnd(t, s.peer(1))
		assert.Equal(t, codec.CloseAbnormal, end.Code)
		require.Error(t, end.Err)
		bystander.echo()
	})
}

func receiveEnd(t *testing.T, p *peer) engine.CloseInfo {
	t.Helper()
	select {
	case end := <-p.ends:
		return end
	case <-time.After(patience):
		t.Fatal("OnClose was not called")
		panic("not reached")
	}
}

// The peer's close_notify ends the connection, and is answered.
func TestTLSCloseNotify(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		s := startTLS(t, nil)
		c := s.dialTLS(version)
		c.send("last")
		require.NoError(t, c.Conn.(*tls.Conn).CloseWrite())
		c.expect("last")
		c.expectEOF()
		end := receiveEnd(t, s.peer(0))
		assert.Equal(t, codec.CloseAbnormal, end.Code)
		require.ErrorIs(t, end.Err, io.EOF)
	})
}

// Stop closes with 1001 and close_notify.
func TestTLSStop(t *testing.T) {
	s := startTLS(t, nil)
	c := s.dialTLS(tls.VersionTLS13)
	half := s.dialTCP()
	half.raw(clientHello(t)[:50])
	silent := s.dialTCP()
	silent.raw(clientHello(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, s.Stop(ctx, codec.CloseGoingAway, "bye"))
	})
	c.expectClose(1001)
	c.raw(frame(gobwas.OpClose, "\x03\xe9"))
	c.expectEOF()
	for _, other := range []*client{half, silent} {
		_, _ = io.Copy(io.Discard, other.r) // or a reset, if its bytes come after the end
	}
	wg.Wait()
}

// stall makes the socket buffers of c small. c is the n-th client and does not
// read.
func (s *tlsServer) stall(c *client, n int) {
	s.t.Helper()
	require.NoError(s.t, c.Conn.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4<<10))
	require.NoError(s.t, unix.SetsockoptInt(s.peer(n).conn.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10))
}

// A broadcast reaches many clients while some do not read: their bounds hold and
// their losses are counted, and the others lose nothing.
func TestTLSBroadcast(t *testing.T) {
	const members, stalled, messages, length = 200, 20, 100, 4 << 10
	s := startTLS(t, func(cfg *engine.Config, _ *server) { cfg.MessageQueueSize, cfg.QueueBytes = 32, 1<<20 })
	clients := make([]*client, members)
	for i := range clients {
		clients[i] = s.dialTLS(tls.VersionTLS13)
		if i < stalled {
			s.stall(clients[i], i)
		}
	}
	payload := func(i int) string { return seq(i) + strings.Repeat("x", length) }
	var wg sync.WaitGroup
	for _, c := range clients[stalled:] {
		wg.Go(func() {
			for i := range messages {
				c.expect(payload(i))
			}
		})
	}
	for i := range messages {
		f := engine.NewFrame(codec.OpText, []byte(payload(i)), engine.Handling{})
		for _, shard := range s.Shards() {
			onLoop(shard, func(s *engine.Shard) { s.EachInLoop(func(c *engine.Conn) { c.DeliverInLoop(f) }) })
		}
	}
	wg.Wait()
	var total engine.ShardStats
	for _, shard := range s.Shards() {
		onLoop(shard, func(*engine.Shard) {}) // it has counted what the clients have read
	}
	for _, shard := range s.Shards() {
		st := shard.Stats()
		total.Add(&st)
	}
	assert.Equal(t, stalled, total.Blocked)
	assert.Positive(t, total.Drops.Full)
	assert.Zero(t, total.Drops.Lost()-total.Drops.Full)
	var queued int
	s.mu.Lock()
	for _, p := range s.peers {
		queued += p.conn.QueuedBytes() / (length + 18)
		assert.LessOrEqual(t, p.conn.QueuedBytes(), 1<<20)
	}
	s.mu.Unlock()
	assert.EqualValues(t, members*messages, total.MessagesOut+total.Drops.Full+uint64(queued),
		"each is sent, queued or dropped")
	assert.LessOrEqual(t, total.QueuedMemory, int64(stalled*(34*(length+300)+34<<10)), "ciphertext included")
	// A client that reads again gets whole messages, in order.
	c := clients[0]
	last := -1
	for range 16 {
		f := c.read()
		var n int
		_, err := fmt.Sscanf(string(f.Payload[:14]), "message %06d", &n)
		require.NoError(t, err)
		require.Greater(t, n, last)
		require.Equal(t, payload(n), string(f.Payload))
		last = n
	}
}

// A budget counts sealed bytes, and holds.
func TestTLSBudget(t *testing.T) {
	const budget = 300 << 10
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.QueueBudget, cfg.OverflowPolicy = budget, engine.DropOldest
	})
	for i := range 20 {
		c := s.dialTLS(tls.VersionTLS13)
		s.stall(c, i)
	}
	f := engine.NewFrame(codec.OpBinary, make([]byte, 16<<10), engine.Handling{})
	for range 50 {
		for _, shard := range s.Shards() {
			onLoop(shard, func(s *engine.Shard) { s.EachInLoop(func(c *engine.Conn) { c.DeliverInLoop(f) }) })
		}
		var backlog int64
		for _, shard := range s.Shards() {
			backlog += shard.Stats().QueuedMemory
		}
		require.LessOrEqual(t, backlog, int64(budget)+2*(40<<10))
	}
	s.dialTLS(tls.VersionTLS12).echo()
}

// The application may return another configuration for each client.
func TestTLSCallbacks(t *testing.T) {
	t.Parallel()
	cert, roots := testcert.New("localhost")
	var calls atomic.Int32
	block := make(chan struct{})
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSConfig = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.Conn.RemoteAddr() == nil || hello.Conn.LocalAddr() == nil {
				return nil, errors.New("no addresses")
			}
			switch calls.Add(1) {
			case 1:
				panic("callback")
			case 2:
				<-hello.Context().Done()
				close(block)
				return nil, hello.Context().Err()
			}
			return &cert, nil
		}}
		cfg.HandshakeTimeout = 5 * time.Second
	})
	s.roots = roots
	for range 2 {
		require.Error(t, tls.Client(s.dialTCP().Conn, s.clientTLS(tls.VersionTLS13)).Handshake())
	}
	<-block
	s.dialTLS(tls.VersionTLS13).echo()
}
