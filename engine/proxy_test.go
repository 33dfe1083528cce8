package engine_test

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// Headers of the PROXY protocol.
const (
	proxyV1Line    = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
	proxyV1Line6   = "PROXY TCP6 2001:db8::7 2001:db8::8 56324 443\r\n"
	proxyV1Unknown = "PROXY UNKNOWN\r\n"
	proxyV2TCP4    = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0C\xC0\x00\x02\x01\xC6\x33\x64\x01\xDC\x04\x01\xBB"
	proxyV2Local   = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

// loopback trusts the peers of the tests.
var loopback = codec.TrustedProxies{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// proxied makes connections begin with a header of the PROXY protocol.
func proxied(trusted codec.TrustedProxies) func(*engine.Config, *server) {
	return func(cfg *engine.Config, _ *server) { cfg.ProxyProtocol, cfg.TrustedProxies = true, trusted }
}

// upgradeWith is the upgrade request with one more line.
func upgradeWith(line string) string {
	return strings.TrimSuffix(upgradeRequest, "\r\n") + line + "\r\n\r\n"
}

func TestProxyHeader(t *testing.T) {
	for name, test := range map[string]struct{ header, want string }{
		"v1":         {proxyV1Line, "192.0.2.1:56324"},
		"v1 IPv6":    {proxyV1Line6, "[2001:db8::7]:56324"},
		"v1 UNKNOWN": {proxyV1Unknown, ""},
		"v2":         {proxyV2TCP4, "192.0.2.1:56324"},
		"v2 LOCAL":   {proxyV2Local, ""},
	} {
		for who, trusted := range map[string]codec.TrustedProxies{"of all": nil, "of trusted proxies": loopback} {
			t.Run(name+" "+who, func(t *testing.T) {
				s := start(t, proxied(trusted))
				c := s.dialTCP()
				c.raw(test.header + upgradeRequest + frame(gobwas.OpText, "early"))
				require.Equal(t, 101, c.response())
				c.expect("early")
				c.echo()
				assert.Equal(t, cmp.Or(test.want, c.LocalAddr().String()), s.peer(0).conn.RemoteAddr().String())
			})
		}
	}
}

// The header comes before the TLS handshake.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	onBothVersions(t, func(t *testing.T, version uint16) {
		s := startTLS(t, proxied(loopback))
		for i, header := range []string{proxyV1Line, proxyV2TCP4} {
			c := s.dialTCP()
			c.raw(header)
			c = c.over(s.clientTLS(version)).upgrade()
			c.echo()
			assert.Equal(t, "192.0.2.1:56324", s.peer(i).conn.RemoteAddr().String())
		}
	})
}

// The header, the request and a message may come in pieces of any size.
func TestProxyHeaderCut(t *testing.T) {
	for _, header := range []string{proxyV1Line, proxyV1Line6, proxyV2TCP4, proxyV2Local} {
		stream := header + upgradeRequest + frame(gobwas.OpText, "first")
		m := startSimnet(t, proxied(loopback))
		first := m.Connect(len(stream)-1, nil)
		for cut := 1; cut < len(stream); cut++ {
			peer := first + cut - 1
			m.Send(peer, []byte(stream[:cut]))
			m.Send(peer, []byte(stream[cut:]))
			require.Equal(t, []string{"first"}, m.take(peer), "cut at %d", cut)
		}
		byBytes := m.Connect(1, nil)
		for i := range len(stream) {
			m.Send(byBytes, []byte(stream[i:i+1]))
		}
		require.Equal(t, []string{"first"}, m.take(byBytes))
		if header == proxyV1Line {
			assert.Equal(t, "192.0.2.1:56324", m.peer(len(stream)-1).conn.RemoteAddr().String())
		}
	}
}

// countRefusals counts the peers that are refused for want of a header, and all.
func countRefusals(s *server) (headers, all *atomic.Int64) {
	headers, all = new(atomic.Int64), new(atomic.Int64)
	s.onRefused = func(err error) {
		all.Add(1)
		if errors.Is(err, engine.ErrProxyHeader) {
			headers.Add(1)
		}
	}
	return headers, all
}

func TestProxyHeaderMissing(t *testing.T) {
	for name, bytes := range map[string]string{
		"a request":         upgradeRequest,
		"malformed":         "PROXY TCP4 192.0.2.1\r\n" + upgradeRequest,
		"of another kind":   "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0C",
		"bytes behind it":   strings.Repeat("x", 100_000),
		"a ClientHello":     clientHello(t),
		"two, one too many": proxyV1Line + proxyV1Line + upgradeRequest,
	} {
		t.Run(name, func(t *testing.T) {
			var refused *atomic.Int64
			s := start(t, func(cfg *engine.Config, s *server) {
				proxied(loopback)(cfg, s)
				refused, _ = countRefusals(s)
			})
			c := s.dialTCP()
			c.raw(bytes)
			require.Equal(t, 400, c.response())
			c.expectEOF()
			if name != "two, one too many" {
				s.eventually(func() bool { return refused.Load() == 1 }, "not counted")
			}
			assert.Zero(t, s.opened.Load())
		})
	}
}

func TestProxyHeaderMissingWithTLS(t *testing.T) {
	var refused *atomic.Int64
	s := startTLS(t, func(cfg *engine.Config, s *server) {
		proxied(nil)(cfg, s)
		refused, _ = countRefusals(s)
	})
	c := s.dialTCP()
	require.Error(t, tls.Client(c.Conn, s.clientTLS(tls.VersionTLS13)).Handshake())
	s.eventually(func() bool {
		return refused.Load() == 1 && s.Shards()[0].Connections()+s.Shards()[1].Connections() == 0
	},
		"not refused")
}

// Peers that are no trusted proxy begin as usual, and their headers are not believed.
func TestProxyHeaderOfStrangers(t *testing.T) {
	s := start(t, proxied(codec.TrustedProxies{netip.MustParsePrefix("10.0.0.0/8")}))
	c := s.dial()
	c.echo()
	assert.Equal(t, c.LocalAddr().String(), s.peer(0).conn.RemoteAddr().String())
	for _, header := range []string{proxyV1Line, proxyV2TCP4} {
		c := s.dialTCP()
		c.raw(header + upgradeRequest)
		require.Equal(t, 400, c.response())
	}
	assert.EqualValues(t, 1, s.opened.Load())
}

// The wait for the header ends with HandshakeTimeout.
func TestProxyHeaderLate(t *testing.T) {
	for _, begun := range []string{"", "PROXY TCP4", proxyV2TCP4[:20], proxyV2Local} {
		m := startSimnet(t, proxied(loopback))
		peer := m.Connect(1, []byte(begun))
		m.Wait()
		for range 30 {
			m.Advance(250 * time.Millisecond) // HandshakeTimeout is 5 s
			m.Wait()
		}
		require.EqualValues(t, 1, m.Stats().Refused, "%q", begun)
		m.Send(peer, []byte("PROXY"))
		m.Send(peer, []byte(" X\r\n"))
		m.Wait()
		require.Zero(t, m.opened.Load())
	}
}

// A load balancer that checks the port connects and hangs up.
func TestProxyHeaderConnectAndClose(t *testing.T) {
	var refused *atomic.Int64
	s := start(t, func(cfg *engine.Config, s *server) {
		proxied(nil)(cfg, s)
		_, refused = countRefusals(s)
	})
	for _, begun := range []string{"", proxyV2Local, proxyV1Unknown} {
		c := s.dialTCP()
		c.raw(begun)
		require.NoError(t, c.Close())
	}
	c := s.dialTCP()
	c.raw(proxyV1Line + upgradeRequest)
	require.Equal(t, 101, c.response())
	s.eventually(func() bool { return s.Shards()[0].Connections()+s.Shards()[1].Connections() == 1 }, "not closed")
	assert.Zero(t, refused.Load())
}

// A header of the proxy's client names another trusted proxy, so the lines of that one count.
func TestProxyHeaderThenForwarded(t *testing.T) {
	trusted := codec.TrustedProxies{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}
	for name, test := range map[string]struct{ header, want string }{
		"proxy behind proxy":    {proxyV1Line, "203.0.113.9:0"},
		"client forges lines":   {proxyV1Line6, "[2001:db8::7]:56324"},
		"unknown forges lines":  {proxyV1Unknown, ""},
		"a check has no client": {proxyV2Local, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, proxied(trusted))
			c := s.dialTCP()
			c.raw(test.header + upgradeWith("X-Forwarded-For: 203.0.113.9"))
			require.Equal(t, 101, c.response())
			assert.Equal(t, cmp.Or(test.want, c.LocalAddr().String()), s.peer(0).conn.RemoteAddr().String())
		})
	}
}

// Over a Unix socket every list of proxies trusts the peer.
func TestProxyOverUnix(t *testing.T) {
	for name, test := range map[string]struct {
		configure func(*engine.Config, *server)
		begin     string
		want      string
	}{
		"header": {proxied(codec.TrustedProxies{}), proxyV2TCP4 + upgradeRequest, "192.0.2.1:56324"},
		"LOCAL":  {proxied(codec.TrustedProxies{}), proxyV2Local + upgradeWith("X-Forwarded-For: 6.6.6.6"), ""},
		"X-Forwarded-For": {
			func(cfg *engine.Config, _ *server) { cfg.TrustedProxies = loopback },
			upgradeWith("X-Forwarded-For: 203.0.113.9"), "203.0.113.9:0",
		},
		"nobody trusted": {nil, upgradeWith("X-Forwarded-For: 6.6.6.6"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, s *server) {
				cfg.ListenAddr = "unix://" + filepath.Join(t.TempDir(), "s")
				if test.configure != nil {
					test.configure(cfg, s)
				}
			})
			c := s.dialTCP()
			c.raw(test.begin)
			require.Equal(t, 101, c.response())
			assert.Equal(t, test.want, s.peer(0).conn.RemoteAddr().String())
		})
	}
}

// The connections of Serve begin with a header, too.
func TestProxyHeaderOfServe(t *testing.T) {
	s := start(t, proxied(loopback))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.shutdown()
		require.NoError(t, <-ended)
	})
	nc, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	c := newClient(t, nc)
	c.raw(proxyV2TCP4 + upgradeRequest)
	require.Equal(t, 101, c.response())
	assert.Equal(t, "192.0.2.1:56324", s.peer(0).conn.RemoteAddr().String())
}

// The address of a client over IPv4 costs no memory, whatever the proxy's is.
func TestProxiedAddressTakesNoMemory(t *testing.T) {
	for _, addr := range []string{"tcp://127.0.0.1:0", "tcp://[::1]:0"} {
		s := start(t, func(cfg *engine.Config, s *server) {
			proxied(loopback)(cfg, s)
			cfg.ListenAddr = addr
		})
		c := s.dialTCP()
		c.raw(proxyV2TCP4 + upgradeWith("X-Forwarded-For: 203.0.113.9"))
		require.Equal(t, 101, c.response())
		c.echo()
		conn := &s.peer(0).conn
		assert.Equal(t, "192.0.2.1:56324", conn.RemoteAddr().String())
		assert.False(t, conn.Lazy(), addr)
	}
}
