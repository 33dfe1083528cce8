package engine_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// trickle begins n TLS handshakes that never end: after its ClientHello each
// client sends one byte of a long record in each interval. It returns when the
// server has answered as many as it can.
func (s *tlsServer) trickle(n int, interval time.Duration, again bool) (cutOff *atomic.Int64) {
	s.t.Helper()
	hello := clientHello(s.t)
	cutOff = new(atomic.Int64)
	var wg sync.WaitGroup
	over := make(chan struct{})
	begin := func() net.Conn {
		nc, err := net.DialTimeout("tcp", s.Addr().String(), patience)
		if err == nil {
			_, err = io.WriteString(nc, hello)
		}
		if err != nil {
			return nil
		}
		return nc
	}
	for range n {
		nc := begin()
		require.NotNil(s.t, nc)
		wg.Go(func() {
			record := "\x16\x03\x03\x3f\xff\x0b\x00\x3f\xfb" // the rest of it is zeros
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for i := 0; ; i++ {
				b := []byte{0}
				if i < len(record) {
					b[0] = record[i]
				}
				if _, err := nc.Write(b); err != nil {
					cutOff.Add(1)
					_ = nc.Close()
					if nc = begin(); !again || nc == nil {
						return
					}
					i = -1
				}
				select {
				case <-ticker.C:
				case <-over:
					_ = nc.Close()
					return
				}
			}
		})
	}
	s.t.Cleanup(func() { close(over); wg.Wait() })
	return cutOff
}

// newcomers connects n clients one after the other, and returns the median of
// their times to upgrade.
func (s *tlsServer) newcomers(n int) time.Duration {
	s.t.Helper()
	times := make([]time.Duration, 0, n)
	for range n {
		start := time.Now()
		c := s.dialTLS(tls.VersionTLS13)
		times = append(times, time.Since(start))
		_ = c.Conn.(*tls.Conn).NetConn().Close()
	}
	slices.Sort(times)
	return times[n/2]
}

// Clients that send their handshakes byte by byte do not hold up the others: a
// handshake that waits for its peer does not take the place of one that
// computes.
func TestTLSTricklersDoNotHoldUpOthers(t *testing.T) {
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSHandshakes, cfg.HandshakeTimeout = 20, 1000*time.Second
	})
	cutOff := s.trickle(300, 10*time.Millisecond, false)
	t.Logf("median with 300 tricklers: %v", s.newcomers(20))
	assert.Zero(t, cutOff.Load(), "there is place for all of them")
}

// A handshake gives way to others when it has waited long for its peer, even if
// the client sends a byte now and then.
func TestTLSTricklersGiveWay(t *testing.T) {
	t.Parallel()
	var offset atomic.Int64
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSHandshakes, cfg.HandshakeTimeout = 1, 1000*time.Second
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	cutOff := s.trickle(2*engine.HandshakesUnderWay, 10*time.Millisecond, false)
	done := make(chan *client, 1)
	go func() {
		c := s.dialTCP()
		tc := tls.Client(c.Conn, s.clientTLS(tls.VersionTLS13))
		if assert.NoError(t, tc.Handshake()) {
			done <- &client{Conn: tc, t: t, r: bufio.NewReader(tc)}
		}
	}()
	step := time.NewTicker(50 * time.Millisecond)
	defer step.Stop()
	for elapsed := time.Duration(0); elapsed < 900*time.Second; {
		select {
		case c := <-done:
			c.upgrade().echo()
			s.eventually(func() bool { return cutOff.Load() > 0 }, "no handshake has given way")
			return
		case <-step.C:
			offset.Add(int64(5 * time.Second))
			elapsed += 5 * time.Second
		}
	}
	select {
	case c := <-done:
		c.upgrade().echo()
	case <-time.After(patience):
		require.Fail(t, "the newcomer waits")
	}
}

// A slow client may take longer as long as no other client needs its place.
func TestTLSSlowClientGetsIn(t *testing.T) {
	s := startTLS(t, func(cfg *engine.Config, _ *server) {
		cfg.TLSHandshakes, cfg.HandshakeTimeout = 1, 7*time.Second
	})
	plain := s.dialTCP()
	plain.Conn = slowConn{plain.Conn}
	c := plain.over(s.clientTLS(tls.VersionTLS13)).upgrade()
	c.echo()
}

// slowConn delays its answers.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	<-time.After(800 * time.Millisecond)
	return c.Conn.Write(p)
}

// An unfinished handshake holds a bounded number of bytes: before its answer
// the hello and little more, afterwards some KiB.
func TestTLSHandshakeMemory(t *testing.T) {
	hello := clientHello(t)
	for _, auth := range []tls.ClientAuthType{tls.NoClientCert, tls.RequestClientCert} {
		t.Run(auth.String(), func(t *testing.T) {
			block := make(chan struct{})
			s := startTLS(t, func(cfg *engine.Config, _ *server) {
				cfg.TLSHandshakes, cfg.HandshakeTimeout = 1, 1000*time.Second
				cfg.TLSConfig.ClientAuth = auth
				cert := cfg.TLSConfig.Certificates[0]
				cfg.TLSConfig.Certificates = nil
				cfg.TLSConfig.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					<-block
					return &cert, nil
				}
			})
			defer close(block)
			const n = 50
			before := heap()
			var sent atomic.Int64
			var wg sync.WaitGroup
			var conns []*client
			for range n {
				c := s.dialTCP()
				conns = append(conns, c)
				require.NoError(t, c.Conn.(*net.TCPConn).SetWriteBuffer(16<<10))
				wg.Go(func() {
					b := append([]byte(hello), make([]byte, 4<<20)...)
					_ = c.SetWriteDeadline(time.Now().Add(time.Second))
					m, _ := c.Write(b)
					sent.Add(int64(m))
				})
			}
			wg.Wait()
			held := heap() - before
			t.Logf("%d KiB held for each, %d KiB sent", held/n>>10, sent.Load()/n>>10)
			assert.Less(t, held/n, int64(96<<10), "the client's side of it included")
			runtime.KeepAlive(conns)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
