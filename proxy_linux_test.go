package ws_test

import (
	"cmp"
	"crypto/tls"
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// The addresses of peers in these tests: a client that connects directly, and two proxies.
const (
	stranger    = "127.0.0.77"
	firstProxy  = "127.0.0.2"
	secondProxy = "127.0.0.3"
)

// trustProxies trusts the two proxies.
var trustProxies = ws.WithTrustedProxies(
	netip.MustParsePrefix(firstProxy+"/32"), netip.MustParsePrefix(secondProxy+"/32"))

// showAddr is an Authenticate that answers with the address that it reads.
func showAddr(r *http.Request) ([]ws.ClientOption, error) {
	return []ws.ClientOption{ws.WithResponseHeader(http.Header{"X-Addr": {r.RemoteAddr}})}, nil
}

// attacks are the ways to claim another address, and some that are honest. The address of want
// is the peer's own if it is empty.
var attacks = []struct{ name, peer, lines, want string }{
	{"no proxy, nothing claimed", stranger, "", ""},
	{"no proxy, X-Forwarded-For", stranger, "X-Forwarded-For: 6.6.6.6\r\n", ""},
	{"no proxy, claims to be behind one", stranger, "X-Forwarded-For: 6.6.6.6, 127.0.0.2\r\n", ""},
	{"no proxy, Forwarded", stranger, "Forwarded: for=6.6.6.6\r\n", ""},
	{"no proxy, X-Real-IP", stranger, "X-Real-IP: 6.6.6.6\r\n", ""},
	{"proxy, nothing reported", firstProxy, "", ""},
	{"proxy, X-Real-IP is no report", firstProxy, "X-Real-IP: 6.6.6.6\r\n", ""},
	{"proxy", firstProxy, "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0"},
	{"proxy, port", firstProxy, "X-Forwarded-For: 192.0.2.7:99\r\n", "192.0.2.7:99"},
	{"proxy, IPv6", firstProxy, "X-Forwarded-For: 2001:db8::7\r\n", "[2001:db8::7]:0"},
	{"client forges an entry", firstProxy, "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n", "192.0.2.7:0"},
	{"client forges a line", firstProxy, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0"},
	{"client forges a proxy", firstProxy, "X-Forwarded-For: 6.6.6.6, 127.0.0.3, 192.0.2.7\r\n", "192.0.2.7:0"},
	{"client forges behind two proxies", firstProxy, "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 127.0.0.3\r\n", "192.0.2.7:0"},
	{"client forges garbage", firstProxy, "X-Forwarded-For: \"6.6.6.6, ,, 192.0.2.7\r\n", "192.0.2.7:0"},
	{"client forges Forwarded", firstProxy, "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0"},
	{"proxy does not know the client", firstProxy, "X-Forwarded-For: 6.6.6.6, unknown\r\n", ""},
	{"second proxy does not know", firstProxy, "X-Forwarded-For: 6.6.6.6, unknown, 127.0.0.3\r\n", "127.0.0.3:0"},
	{"Forwarded", firstProxy, "Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:99\";proto=https\r\n", "[2001:db8::7]:99"},
	{"Forwarded, client opens quotes", firstProxy, "Forwarded: for=\"6.6.6.6, for=192.0.2.7\r\n", "192.0.2.7:0"},
	{"Forwarded, obfuscated", firstProxy, "Forwarded: for=6.6.6.6, for=_hidden\r\n", ""},
	{"a PROXY line as a header", stranger, "PROXY: TCP4 6.6.6.6 127.0.0.1 1 2\r\n", ""},
}

// The client's address is right in Authenticate, in the Client and in events, whatever a client
// claims.
func TestSpoofedAddresses(t *testing.T) {
	for _, tt := range attacks {
		t.Run(tt.name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, trustProxies, ws.WithAuthenticate(showAddr))
				events := s.Events(ws.EventClientConnected)
				c := dialFrom(s, s.AddrOf(w), tt.peer)
				c.WriteRaw(harness.UpgradeRequest("/ws", tt.lines))
				resp, body := c.ReadResponse()
				require.Equal(t, 101, resp.StatusCode, body)
				want := cmp.Or(tt.want, c.LocalAddr().String())
				assert.Equal(t, want, resp.Header.Get("X-Addr"), "Authenticate")
				e := harness.Receive(t, events, "not connected")
				assert.Equal(t, want, e.Client.RemoteAddr(), "Client")
			})
		})
	}
}

// Without Authenticate a loop decides itself.
func TestAddressWithoutAuthenticate(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, trustProxies)
		events := s.Events(ws.EventClientConnected)
		c := dialFrom(s, s.AddrOf(w), firstProxy)
		c.WriteRaw(harness.UpgradeRequest("/ws", "X-Forwarded-For: 192.0.2.7\r\n"))
		resp, body := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode, body)
		assert.Equal(t, "192.0.2.7:0", harness.Receive(t, events, "not connected").Client.RemoteAddr())
	})
}

// Nobody is trusted without the option.
func TestNobodyIsTrustedByDefault(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(showAddr))
		c := dialFrom(s, s.AddrOf(w), firstProxy)
		c.WriteRaw(harness.UpgradeRequest("/ws", "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"))
		resp, _ := c.ReadResponse()
		assert.Equal(t, c.LocalAddr().String(), resp.Header.Get("X-Addr"))
	})
}

// A connection keeps its client's address when it moves to the loop of its placement.
func TestClientAddressMoves(t *testing.T) {
	s := harness.Start(t, trustProxies, ws.WithLoops(2),
		ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			return []ws.ClientOption{ws.WithPlacement("one key")}, nil
		}))
	for range 20 { // the kernel chooses the loop that accepts
		c := dialFrom(s, s.AddrOf(harness.Native), firstProxy)
		c.WriteRaw(harness.UpgradeRequest("/ws", "X-Forwarded-For: 192.0.2.7\r\n"))
		resp, body := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode, body)
	}
	s.RangeClients(func(c *ws.Client) bool { return assert.Equal(t, "192.0.2.7:0", c.RemoteAddr()) })
}

// An http.Server on a Unix socket has no address of its peer.
func TestHandleUpgradeOnAUnixSocket(t *testing.T) {
	for name, test := range map[string]struct {
		opt  ws.Option
		want string
	}{
		"trusted": {ws.WithTrustedProxies(), "192.0.2.7:0"},
		"not":     {func(*ws.Config) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, test.opt)
			events := s.Events(ws.EventClientConnected)
			l := harness.Listen(t, "unix", t.TempDir()+"/s")
			web := &http.Server{Handler: s.Web.Config.Handler, ReadHeaderTimeout: harness.Patience}
			go func() { _ = web.Serve(l) }()
			t.Cleanup(func() { _ = web.Close() })
			c := s.DialOn("unix", l.Addr().String())
			c.WriteRaw(harness.UpgradeRequest("/ws", "X-Forwarded-For: 192.0.2.7\r\n"))
			resp, body := c.ReadResponse()
			require.Equal(t, 101, resp.StatusCode, body)
			assert.Equal(t, test.want, harness.Receive(t, events, "not connected").Client.RemoteAddr())
		})
	}
}

// Only trusted proxies begin with a header of the PROXY protocol; a stranger's is not believed.
func TestWithProxyProtocol(t *testing.T) {
	const header = "PROXY TCP4 192.0.2.7 127.0.0.1 99 80\r\n"
	s := harness.Start(t, trustProxies, ws.WithProxyProtocol(), ws.WithAuthenticate(showAddr))
	request := func(peer, begin, lines string) (status int, addr string, c *harness.Client) {
		c = dialFrom(s, s.AddrOf(harness.Native), peer)
		c.WriteRaw(begin + harness.UpgradeRequest("/ws", lines))
		resp, _ := c.ReadResponse()
		return resp.StatusCode, resp.Header.Get("X-Addr"), c
	}
	status, addr, _ := request(firstProxy, header, "X-Forwarded-For: 6.6.6.6\r\n")
	assert.Equal(t, 101, status)
	assert.Equal(t, "192.0.2.7:99", addr, "the client itself has written X-Forwarded-For")

	status, addr, _ = request(firstProxy, "PROXY TCP4 127.0.0.3 127.0.0.1 99 80\r\n", "X-Forwarded-For: 192.0.2.7\r\n")
	assert.Equal(t, 101, status)
	assert.Equal(t, "192.0.2.7:0", addr, "the second proxy has written it")

	status, addr, c := request(firstProxy, "PROXY UNKNOWN\r\n", "X-Forwarded-For: 6.6.6.6\r\n")
	assert.Equal(t, 101, status)
	assert.Equal(t, c.LocalAddr().String(), addr)

	status, addr, c = request(stranger, "", "X-Forwarded-For: 6.6.6.6\r\n")
	assert.Equal(t, 101, status)
	assert.Equal(t, c.LocalAddr().String(), addr)

	refused := s.Stats().Refused
	status, _, _ = request(stranger, header, "")
	assert.Equal(t, 400, status)
	harness.Eventually(t, func() bool { return s.Stats().Refused.Malformed == refused.Malformed+1 }, "not counted")

	status, _, _ = request(firstProxy, "", "")
	assert.Equal(t, 400, status)
	harness.Eventually(t, func() bool { return s.Stats().Refused.Proxy == refused.Proxy+1 }, "not counted")
}

// Without prefixes everybody begins with a header.
func TestWithProxyProtocolOfAll(t *testing.T) {
	s := harness.Start(t, ws.WithProxyProtocol(), ws.WithAuthenticate(showAddr))
	c := dialFrom(s, s.AddrOf(harness.Served), stranger)
	c.WriteRaw("PROXY TCP6 2001:db8::7 2001:db8::8 99 80\r\n" +
		harness.UpgradeRequest("/ws", "X-Forwarded-For: 6.6.6.6\r\n"))
	resp, body := c.ReadResponse()
	require.Equal(t, 101, resp.StatusCode, body)
	assert.Equal(t, "[2001:db8::7]:99", resp.Header.Get("X-Addr"))

	c = dialFrom(s, s.AddrOf(harness.Native), stranger)
	c.WriteRaw("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + "GET /readyz HTTP/1.0\r\n\r\n")
	resp, body = c.ReadResponse()
	assert.Equal(t, 200, resp.StatusCode, body)

	assert.Equal(t, 400, s.Status(harness.Native, ""))
	assert.Equal(t, 101, s.Status(harness.NetHTTP, ""), "HandleUpgrade does not read the header")
}

// proxyTo returns the beginning of a connection by which a proxy reports a client.
var proxyTo = map[string]func(client string) (begin, lines string){
	"X-Forwarded-For": func(client string) (begin, lines string) {
		return "", "X-Forwarded-For: " + client + "\r\n"
	},
	"PROXY protocol": func(client string) (begin, lines string) {
		return "PROXY TCP4 " + client + " 127.0.0.1 1 2\r\n", ""
	},
}

// The limits of an address are those of the client behind the proxy, not the proxy's.
func TestLimitsOfProxiedAddresses(t *testing.T) {
	for kind, report := range proxyTo {
		t.Run(kind, func(t *testing.T) {
			for _, w := range []harness.Way{harness.Native, harness.Served, harness.NetHTTP} {
				if kind == "PROXY protocol" && w == harness.NetHTTP {
					continue // net/http does not read it
				}
				t.Run(string(w), func(t *testing.T) {
					opts := []ws.Option{trustProxies, ws.WithAdmission(ws.Admission{PerIPConnections: 2})}
					if kind == "PROXY protocol" {
						opts = append(opts, ws.WithProxyProtocol())
					}
					testProxiedLimits(t, harness.Start(t, opts...), w, report)
				})
			}
		})
	}
}

// A client beyond its limits may be refused politely, which needs its request.
func TestPoliteRefusalsBehindProxies(t *testing.T) {
	for kind, report := range proxyTo {
		t.Run(kind, func(t *testing.T) {
			opts := []ws.Option{trustProxies, ws.WithAdmission(ws.Admission{PerIP: 1e-6, PerIPBurst: 1, Polite: 1e-6})}
			if kind == "PROXY protocol" {
				opts = append(opts, ws.WithProxyProtocol())
			}
			s := harness.StartTLS(t, nil, opts...)
			connect := func() *harness.Client {
				c := dialFrom(s.Server, s.AddrOf(harness.Native), firstProxy)
				begin, lines := report("192.0.2.7")
				c.WriteRaw(begin)
				c = c.Over(s.ClientConfig(tls.VersionTLS13))
				c.WriteRaw(harness.UpgradeRequest("/ws", lines))
				return c
			}
			for range 2 {
				c := connect()
				resp, body := c.ReadResponse()
				require.Equal(t, 101, resp.StatusCode, body)
				if s.Stats().Accept.Polite == 1 {
					assert.Contains(t, c.ExpectClose(1013), "retry_ms")
				}
			}
			require.EqualValues(t, 1, s.Stats().Accept.Polite)
			if kind == "PROXY protocol" {
				c := dialFrom(s.Server, s.AddrOf(harness.Native), firstProxy)
				begin, _ := report("192.0.2.7")
				c.WriteRaw(begin)
				c.ExpectEOF() // without a TLS handshake
			} else {
				resp, _ := connect().ReadResponse()
				assert.Equal(t, 429, resp.StatusCode)
			}
			harness.Eventually(t, func() bool { return s.Stats().Refused.AddressRate == 2 }, "not counted")
		})
	}
}

func testProxiedLimits(
	t *testing.T, s *harness.Server, w harness.Way, report func(string) (begin, lines string),
) {
	t.Helper()
	connect := func(client string) (*harness.Client, int) {
		c := dialFrom(s, s.AddrOf(w), firstProxy)
		begin, lines := report(client)
		c.WriteRaw(begin + harness.UpgradeRequest("/ws", lines))
		resp, _ := c.ReadResponse()
		return c, resp.StatusCode
	}
	first, status := connect("192.0.2.7")
	require.Equal(t, 101, status)
	for _, client := range []string{"192.0.2.7", "192.0.2.8", "192.0.2.8"} {
		_, status = connect(client)
		require.Equal(t, 101, status, client)
	}
	for _, client := range []string{"192.0.2.7", "192.0.2.8"} {
		_, status = connect(client)
		assert.Equal(t, 429, status, client)
	}
	harness.Eventually(t, func() bool { return s.Stats().Refused.AddressFull == 2 }, "not counted")

	first.Abort()
	harness.Eventually(t, func() bool { return s.GetClientCount() == 3 }, "still counted")
	_, status = connect("192.0.2.7")
	assert.Equal(t, 101, status, "one of its connections has ended")
}

// A proxy that names no client, as for its checks, has no limit; a stranger has his own.
func TestLimitsOfProxies(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, trustProxies, ws.WithAdmission(ws.Admission{PerIPConnections: 1}))
		for range 3 {
			c := dialFrom(s, s.AddrOf(w), firstProxy)
			c.WriteRaw(harness.UpgradeRequest("/ws", ""))
			resp, body := c.ReadResponse()
			require.Equal(t, 101, resp.StatusCode, body)
		}
		for _, want := range []int{101, 429} {
			c := dialFrom(s, s.AddrOf(w), stranger)
			c.WriteRaw(harness.UpgradeRequest("/ws", "X-Forwarded-For: 192.0.2.7\r\n"))
			resp, _ := c.ReadResponse()
			assert.Equal(t, want, resp.StatusCode)
		}
	})
}
