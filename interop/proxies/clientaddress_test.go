package proxies_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// distant is the address of the clients in these tests. Proxy and server trust 127.0.0.1.
const distant = "127.0.0.77"

// forged are header lines with which a client claims another address.
var forged = http.Header{
	"X-Real-Ip": {"6.6.6.6"}, "X-Forwarded-For": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"},
}

// expectAddress expects that the server knows the address of a client that claims another one.
func expectAddress(t *testing.T, to target) request {
	t.Helper()
	to.from = distant
	c := to.dial(t, forged)
	who := c.whoami()
	assert.Equal(t, distant, who.IP)
	ip, _, err := net.SplitHostPort(who.Addr)
	require.NoError(t, err)
	assert.Equal(t, distant, ip, "Authenticate")
	return who
}

// The server knows the client's own address, whatever the client claims.
func TestClientAddress(t *testing.T) {
	behindEach(t, func(t *testing.T, p *product, start startFunc) {
		b := start(t)
		for scheme, to := range p.start(t, b.addr, setup{}).targets() {
			t.Run(scheme, func(t *testing.T) {
				who := expectAddress(t, to)
				assert.Regexp(t, `^6\.6\.6\.6, ?127\.0\.0\.77$`, who.Forwarded)
				assert.False(t, who.TLS)
			})
		}
	})
}

// Without WithTrustedProxies the address is the proxy's, and nobody can claim one.
func TestClientAddressOfNobody(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) {
		b := start(t, func(c *ws.Config) { c.TrustedProxies = nil })
		to := haproxy.start(t, b.addr, setup{}).plain
		assert.Equal(t, "127.0.0.1", to.dial(t, forged).whoami().IP)
	})
}

// A client that reaches the server without the proxy is not believed.
func TestClientAddressWithoutProxy(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) {
		expectAddress(t, target{host: start(t).addr})
	})
}

// Two proxies, one behind the other.
func TestClientAddressBehindTwoProxies(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) {
		b := start(t)
		for _, chain := range [][2]*product{{haproxy, nginx}, {nginx, haproxy}} {
			inner := chain[1].start(t, b.addr, setup{})
			outer := chain[0].start(t, inner.plain.host, setup{})
			who := expectAddress(t, outer.tls)
			assert.Regexp(t, `^6\.6\.6\.6, ?127\.0\.0\.77, ?127\.0\.0\.1$`, who.Forwarded, chain[0].name)
		}
	})
}

// A proxy that writes Forwarded removes X-Forwarded-For.
func TestForwarded(t *testing.T) {
	onBothPaths(t, func(t *testing.T, start startFunc) {
		b := start(t)
		x := haproxy.start(t, b.addr, setup{replace: map[string]string{
			"option forwardfor": forwardedLines(t),
		}})
		for scheme, to := range x.targets() {
			t.Run(scheme, func(t *testing.T) {
				assert.Empty(t, expectAddress(t, to).Forwarded)
			})
		}
	})
}

// forwardedLines returns the lines of docs/proxies.md with which HAProxy writes Forwarded.
func forwardedLines(t *testing.T) string {
	t.Helper()
	return (&product{name: "haproxy-forwarded"}).documented(t)
}

// startServed starts a backend whose connections Serve accepts.
func startServed(t *testing.T, opts ...ws.Option) *backend {
	t.Helper()
	b := newBackend(t, opts...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = b.Serve(l) }() // until stop
	b.addr = l.Addr().String()
	return b
}

// withTLS makes the server speak TLS with the certificate of the tests.
func withTLS(t *testing.T) ws.Option {
	t.Helper()
	pem := []byte(identity().pem)
	cert, err := tls.X509KeyPair(pem, pem)
	require.NoError(t, err)
	return ws.WithTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
}

// versions are changes to the documented configurations that send other headers of the PROXY
// protocol.
var versions = []struct {
	name    string
	product *product
	replace map[string]string
}{
	{"HAProxy 2", haproxyTCP, nil},
	{"HAProxy 1", haproxyTCP, map[string]string{"send-proxy-v2": "send-proxy"}},
	{"HAProxy 2 with a checksum and TLVs", haproxyTCP, map[string]string{
		"send-proxy-v2": "send-proxy-v2 proxy-v2-options crc32c,ssl,unique-id",
	}},
	{"nginx", nginxStream, nil},
}

// Proxies that pass bytes on report the client's address and port in a header of the PROXY
// protocol, plain or before TLS.
func TestProxyProtocol(t *testing.T) {
	for _, v := range versions {
		for way, start := range map[string]startFunc{"native": startNative, "Serve": startServed} {
			t.Run(v.name+" "+way, func(t *testing.T) {
				t.Parallel()
				plain := start(t, behindProxyProtocol()...)
				x := v.product.start(t, plain.addr, setup{replace: v.replace})
				to := x.plain
				to.from = distant
				c := to.dial(t, forged)
				assert.Equal(t, c.conn.LocalAddr().String(), c.whoami().Addr)
				plain.converse(t, func(t *testing.T) *client { return to.dial(t, nil) })

				secure := start(t, append(behindProxyProtocol(), withTLS(t))...)
				x = v.product.start(t, secure.addr, setup{replace: v.replace})
				assert.True(t, expectAddress(t, x.tls).TLS)
				secure.converse(t, func(t *testing.T) *client { return x.tls.dial(t, nil) })
			})
		}
	}
}

// A proxy that reads the requests may send the PROXY protocol, too.
func TestProxyProtocolBesideHeaderLines(t *testing.T) {
	b := startNative(t, behindProxyProtocol()...)
	x := haproxy.start(t, b.addr, setup{replace: map[string]string{
		"server a <backend>": "server a <backend> send-proxy-v2",
	}})
	for scheme, to := range x.targets() {
		t.Run(scheme, func(t *testing.T) { expectAddress(t, to) })
	}
}

// HAProxy's checks begin with a header, too: of its own connection, without a client.
func TestProxyProtocolHealthCheck(t *testing.T) {
	for _, kind := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			healthCheck(t, startNative(t, behindProxyProtocol()...), setup{replace: map[string]string{
				"server a <backend>": "server a <backend> " + kind,
			}})
		})
	}
	t.Run("of the port", func(t *testing.T) {
		t.Parallel()
		b := startNative(t, behindProxyProtocol()...)
		x := haproxyTCP.start(t, b.addr, setup{})
		eventually(t, func() bool {
			_, check := x.health(t)
			return check == "L4OK"
		}, "no check was successful")
		refused := b.Stats().Refused
		assert.Zero(t, refused.Total())
	})
}

// Who reaches the server without the proxy gets no further with a header, and the proxy none
// without.
func TestProxyProtocolOfStrangers(t *testing.T) {
	b := startNative(t, behindProxyProtocol()...)
	expectAddress(t, target{host: b.addr})

	send := func(from, begin string) string {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(t.Context(), "tcp", b.addr)
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte(begin + "GET /readyz HTTP/1.0\r\n\r\n"))
		require.NoError(t, err)
		answer := make([]byte, len("HTTP/1.1 200"))
		_, err = conn.Read(answer)
		require.NoError(t, err)
		return string(answer)
	}
	const header = "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"
	assert.Equal(t, "HTTP/1.1 400", send(distant, header))
	assert.Equal(t, "HTTP/1.1 400", send("127.0.0.1", ""))
	assert.Equal(t, "HTTP/1.1 200", send("127.0.0.1", header))
	eventually(t, func() bool { return b.Stats().Refused.Proxy == 1 }, "not counted")
}

// The functions in docs/proxies.md are the ones that are tested.
func TestOptionsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/proxies.md")
	require.NoError(t, err)
	source, err := os.ReadFile("address_test.go")
	require.NoError(t, err)
	from := strings.Index(string(source), "// behindProxy")
	require.Positive(t, from)
	assert.Contains(t, string(page), "```go\n"+string(source[from:])+"```")
}
