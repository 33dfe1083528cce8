package conformance_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// handshakeCase is a request and the status that answers it.
type handshakeCase struct {
	id      string
	request string
	status  int
	native  bool // not over net/http, which has other rules
}

// change returns the sample request with old replaced.
func change(old, by string) string {
	r := strings.Replace(upgradeRequest(""), old, by, 1)
	if r == upgradeRequest("") && old != by {
		panic("nothing to change: " + old)
	}
	return r
}

// handshakeCases collects cases: strict ones for the native path only, the others for
// net/http, too.
type handshakeCases []handshakeCase

func (c *handshakeCases) both(status int, id, request string) {
	*c = append(*c, handshakeCase{id: id, request: request, status: status})
}

func (c *handshakeCases) strict(status int, id, request string) {
	*c = append(*c, handshakeCase{id: id, request: request, status: status, native: true})
}

// The lines of the sample request that a case changes.
const (
	lineOfRequest = "GET /ws HTTP/1.1\r\n"
	lineOfHost    = "Host: example.com\r\n"
)

func handshakes() []handshakeCase {
	var cases handshakeCases
	cases.webSocket()
	cases.http()
	cases.limits()
	return cases
}

// webSocket adds the cases of RFC 6455.
func (c *handshakeCases) webSocket() {
	const (
		connection = "Connection: Upgrade\r\n"
		upgrade    = "Upgrade: websocket\r\n"
		version    = "Sec-WebSocket-Version: 13\r\n"
		key        = "Sec-WebSocket-Key: " + sampleKey + "\r\n"
	)
	c.both(101, "4.1/valid", upgradeRequest(""))
	c.both(101, "4.1/query", change("/ws ", "/ws?a=b&c=%20 "))
	c.both(101, "4.1/absolute-form", change("/ws ", "http://example.com/ws "))
	c.both(
		101, "4.1/names in lower case",
		strings.NewReplacer(
			"Connection:", "connection:", "Upgrade: w", "upgrade: w", "Sec-WebSocket-", "sec-websocket-", "Host:",
			"host:",
		).Replace(upgradeRequest("")),
	)
	c.both(
		101, "4.1/names in upper case",
		strings.NewReplacer("Connection:", "CONNECTION:", "Sec-WebSocket-", "SEC-WEBSOCKET-").Replace(upgradeRequest("")),
	)
	c.both(101, "4.1/Host with a port", change("example.com", "example.com:8080"))
	c.both(101, "4.1/Host is an IPv6 address", change("example.com", "[::1]:8080"))
	c.both(101, "4.1/no space behind the colons", strings.ReplaceAll(upgradeRequest(""), ": ", ":"))
	c.both(101, "4.1/tabs and spaces around values", strings.ReplaceAll(upgradeRequest(""), ": ", ":\t  "))
	c.both(101, "4.1/Content-Length 0", upgradeRequest("Content-Length: 0\r\n"))
	c.both(101, "4.1/unknown headers", upgradeRequest("X-Anything: x\r\nCookie: a=b; c=d\r\n"))
	c.both(101, "4.1/an extension nobody knows", upgradeRequest("Sec-WebSocket-Extensions: x-unknown; a=b\r\n"))
	c.both(101, "4.1/a subprotocol nobody knows", upgradeRequest("Sec-WebSocket-Protocol: chat, superchat\r\n"))
	for _, v := range []string{
		"upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade,keep-alive", "keep-alive ,\tuPgRaDe", ",, Upgrade ,",
	} {
		c.both(101, "4.2.1/Connection: "+v, change(connection, "Connection: "+v+"\r\n"))
	}
	c.both(101, "4.2.1/Connection in two lines", change(connection, "Connection: keep-alive\r\n"+connection))
	for _, v := range []string{"WebSocket", "WEBSOCKET", "h2c, websocket", "websocket, h2c"} {
		c.both(101, "4.2.1/Upgrade: "+v, change(upgrade, "Upgrade: "+v+"\r\n"))
	}
	for _, v := range []string{"keep-alive", "Upgraded", "upgrade now", "\"upgrade\"", ""} {
		c.both(400, "4.2.1/Connection: "+v+" is none", change(connection, "Connection: "+v+"\r\n"))
	}
	c.both(400, "4.2.1/no Connection", change(connection, ""))
	c.both(426, "4.2.1/no Upgrade", change(upgrade, ""))
	for _, v := range []string{"websocket2", "web socket", "h2c", ""} {
		c.both(426, "4.2.1/Upgrade: "+v+" is none", change(upgrade, "Upgrade: "+v+"\r\n"))
	}
	for _, m := range []string{"POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "get", "XYZ"} {
		c.both(405, "4.1/method "+m, change("GET", m))
	}
	for _, m := range []string{"GET", "HEAD"} {
		c.strict(200, "RFC 9110 9.3/"+m+" of the health check", m+" /healthz HTTP/1.1\r\n"+lineOfHost+"\r\n")
		c.both(404, "RFC 9110 9.3/"+m+" of another path", m+" /other HTTP/1.1\r\n"+lineOfHost+"\r\n")
	}
	c.both(405, "RFC 9110 9.3/plain HEAD", "HEAD /ws HTTP/1.1\r\n"+lineOfHost+"\r\n")
	for _, v := range []string{"0", "7", "8", "12", "14", "255", "013", "13.0", "+13", "x", "13, 8", ""} {
		c.both(426, "4.4/version "+v, change(version, "Sec-WebSocket-Version: "+v+"\r\n"))
	}
	c.both(426, "4.4/no version", change(version, ""))
	c.both(400, "11.3.5/two versions", change(version, version+version))
	for name, k := range map[string]string{
		"empty": "", "of 15 bytes": "dGhlIHNhbXBsZSBub25j", "of 17 bytes": "dGhlIHNhbXBsZSBub25jZWE=",
		"of 18 bytes":     "dGhlIHNhbXBsZSBub25jZWFh",
		"without padding": strings.TrimRight(sampleKey, "="), "no base64": "dGhlIHNhbXBs!SBub25jZQ==",
		"of URL base64":    "-_hlIHNhbXBsZSBub25jZQ==",
		"too much padding": sampleKey + "=", "with a space within": "dGhlIHNhbXBs ZSBub25jZQ==",
		"a list": sampleKey + ", " + sampleKey,
	} {
		c.both(400, "4.2.1/key "+name, change(sampleKey, k))
	}
	for _, v := range []string{"", ",", "a,, a", "a b", "caf\u00e9"} {
		c.both(101, "4.1/subprotocol offer "+v, upgradeRequest("Sec-WebSocket-Protocol: "+v+"\r\n"))
	}
	c.both(400, "4.2.1/no key", change(key, ""))
	c.both(400, "11.3.1/two keys", change(key, key+key))
	c.both(400, "4.2.1/no Host", change(lineOfHost, ""))
	c.both(400, "4.2.1/two Hosts", change(lineOfHost, lineOfHost+lineOfHost))
}

// http adds the cases of RFC 9110 and RFC 9112.
func (c *handshakeCases) http() {
	c.both(101, "RFC 9112 3.2/bytes beyond ASCII in the query", change("/ws ", "/ws?q=\u00e9\xff "))
	c.both(101, "RFC 9112 3.2/# in the query", change("/ws ", "/ws?a#b "))
	c.both(404, "RFC 9112 3.2/# in the path", change("/ws ", "/ws#b "))
	c.strict(400, "4.2.1/empty Host", change(lineOfHost, "Host:\r\n"))
	c.strict(505, "4.2.1/HTTP/1.0", change("HTTP/1.1", "HTTP/1.0"))
	c.strict(505, "4.2.1/HTTP/2.0", change("HTTP/1.1", "HTTP/2.0"))
	c.both(400, "4.1/no HTTP version", change(" HTTP/1.1", ""))
	c.strict(400, "4.1/version in lower case", change("HTTP/1.1", "http/1.1"))
	c.strict(400, "4.1/two spaces before the target", change("GET ", "GET  "))
	c.strict(400, "4.1/two spaces before the version", change("/ws ", "/ws  "))
	c.strict(400, "4.1/a tab in the request line", change("GET ", "GET\t"))
	c.both(404, "4.1/another path", change("/ws ", "/other "))
	c.both(400, "4.2.1/a body", upgradeRequest("Content-Length: 5\r\n")+"hello")
	c.strict(400, "4.2.1/a chunked body", upgradeRequest("Transfer-Encoding: chunked\r\n"))
	c.strict(400, "4.2.1/two Content-Lengths", upgradeRequest("Content-Length: 0\r\nContent-Length: 5\r\n"))
	c.strict(400, "4.2.1/a signed Content-Length", upgradeRequest("Content-Length: +0\r\n"))
	c.strict(400, "RFC 9112 5.2/folded line", upgradeRequest("X-Folded: a\r\n b\r\n"))
	c.strict(400, "RFC 9112 5.2/folded line with a tab", upgradeRequest("X-Folded: a\r\n\tb\r\n"))
	c.strict(400, "RFC 9112 5.2/first line folded", change(lineOfRequest, lineOfRequest+" folded: x\r\n"))
	c.both(400, "RFC 9112 5.1/space before the colon", upgradeRequest("X-Space : a\r\n"))
	c.both(400, "RFC 9112 5.1/no colon", upgradeRequest("X-None\r\n"))
	c.both(400, "RFC 9112 5.1/no name", upgradeRequest(": a\r\n"))
	for _, b := range []byte{0, 1, 7, 8, 11, 12, 27, 127} {
		c.both(400, fmt.Sprintf("RFC 9110 5.5/byte %#x in a value", b),
			upgradeRequest("X-Control: a"+string(rune(b))+"b\r\n"))
	}
	for _, r := range "()<>@;\\\"/[]?={} " {
		c.both(400, fmt.Sprintf("RFC 9110 5.1/%q in a name", r), upgradeRequest("X-N"+string(r)+"me: a\r\n"))
	}
	c.strict(400, "RFC 9112 2.2/bare CR in a value", upgradeRequest("X-CR: a\rb\r\n"))
	c.strict(400, "RFC 9112 2.2/bare LF", upgradeRequest("X-LF: a\nX-Smuggled: b\r\n"))
	c.strict(400, "RFC 9112 2.2/LF alone everywhere", strings.ReplaceAll(upgradeRequest(""), "\r\n", "\n"))
	for _, target := range []string{
		"ws", "http://", "ftp://example.com/ws", "http://user@example.com/ws", "*", "example.com:80",
	} {
		c.strict(400, "RFC 9112 3.2/target "+target, change("/ws ", target+" "))
	}
}

// limits adds the cases of the limits of a request.
func (c *handshakeCases) limits() {
	headers := func(n int) string { // beside the five of the sample
		return upgradeRequest(strings.Repeat("X-Many: x\r\n", n-5))
	}
	c.strict(101, "limits/128 headers", headers(128))
	c.strict(431, "limits/129 headers", headers(129))
	c.both(101, "limits/8.7 KB of cookies", upgradeRequest("Cookie: "+strings.Repeat("c=0123456; ", 8700/11)+"\r\n"))
	bytes := func(n int) string {
		return upgradeRequest("X-Long: " + strings.Repeat("x", n-len(upgradeRequest("X-Long: \r\n"))) + "\r\n")
	}
	c.strict(101, "limits/16383 bytes", bytes(16383))
	c.strict(101, "limits/16384 bytes", bytes(16384))
	c.strict(431, "limits/16385 bytes", bytes(16385))
	c.strict(431, "limits/a header that never ends", change(lineOfRequest,
		lineOfRequest+"X-Endless: "+strings.Repeat("x", 17000)))
	c.strict(414, "limits/a target that never ends", "GET /"+strings.Repeat("x", 17000))
}

// TestHandshake sends each request whole and byte by byte.
func TestHandshake(t *testing.T) {
	s := start(t)
	s.web.Config.Handler = onlyOnPath(s.web.Config.Handler)
	for _, w := range bothWays {
		for _, hc := range handshakes() {
			for _, chop := range []int{0, 1} {
				if hc.native && w != native || chop == 1 && len(hc.request) > 4000 {
					continue
				}
				if w == overNet && chop == 1 && hc.status != http.StatusSwitchingProtocols {
					continue // net/http may reset the connection behind its own refusal
				}
				t.Run(string(w)+"/"+hc.id+"/"+chopped(chop), func(t *testing.T) {
					t.Parallel()
					hc.run(s.dial(t, w), chop)
				})
			}
		}
	}
}

// onlyOnPath serves one path, like an application's router.
func onlyOnPath(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// run sends the request and checks the answer.
func (hc *handshakeCase) run(c *client, chop int) {
	c.t.Helper()
	written := make(chan error, 1)
	go func() { written <- c.write([]byte(hc.request), chop) }() // ends with the connection at the latest
	if hc.status == http.StatusSwitchingProtocols {
		resp := c.accepted()
		assert.True(c.t, strings.EqualFold("websocket", resp.Header.Get("Upgrade")))
		assert.True(c.t, strings.EqualFold("upgrade", resp.Header.Get("Connection")))
		assert.Empty(c.t, resp.Header.Values("Sec-WebSocket-Extensions"), "nobody offered one that we know")
		assert.Empty(c.t, resp.Header.Values("Sec-WebSocket-Protocol"))
		assert.Empty(c.t, resp.Header.Values("Content-Length"))
		require.NoError(c.t, <-written)
		c.expectAlive()
		return
	}
	method, _, _ := strings.Cut(hc.request, " ")
	resp, body := c.response(method)
	assert.Equal(c.t, hc.status, resp.StatusCode, body)
	if method == http.MethodHead { // RFC 9110 section 9.3.2
		assert.Positive(c.t, resp.ContentLength, "the length of the body of a GET")
		c.expectNoBody()
	} else {
		assert.NotEmpty(c.t, body, "the reason")
	}
	switch hc.status {
	case http.StatusUpgradeRequired: // RFC 6455 section 4.4, RFC 9110 section 7.8
		assert.Equal(c.t, "13", resp.Header.Get("Sec-WebSocket-Version"))
		assert.Equal(c.t, "websocket", resp.Header.Get("Upgrade"))
	case http.StatusMethodNotAllowed: // RFC 9110 section 15.5.6
		assert.Equal(c.t, "GET", resp.Header.Get("Allow"))
	}
	_ = c.Close()
	<-written
}

// TestPipelined sends the first frames behind the request, in the same writes.
func TestPipelined(t *testing.T) {
	s := start(t)
	for _, w := range bothWays {
		for _, chop := range []int{0, 1, 100} {
			for _, n := range []int{0, 5, 126, 60_000} {
				t.Run(fmt.Sprintf("%s/4.1/first frames behind the request/%d bytes/%s", w, n, chopped(chop)), func(t *testing.T) {
					t.Parallel()
					c := s.dial(t, w)
					b := append([]byte(upgradeRequest("")), wire(text(pattern(n)), first(opBinary, "a"), last("b"))...)
					require.NoError(t, c.write(b, chop))
					c.accepted()
					c.expect(text(pattern(n)), binaryOf("ab"))
					c.expectAlive()
				})
			}
			t.Run(fmt.Sprintf("%s/4.1/a violation behind the request/%s", w, chopped(chop)), func(t *testing.T) {
				t.Parallel()
				c := s.dial(t, w)
				require.NoError(t, c.write([]byte(upgradeRequest("")+"\x83\x80"), chop))
				c.accepted()
				c.expectFailure(1002)
			})
			t.Run(fmt.Sprintf("%s/4.1/a close behind the request/%s", w, chopped(chop)), func(t *testing.T) {
				t.Parallel()
				c := s.dial(t, w)
				require.NoError(t, c.write(append([]byte(upgradeRequest("")), wire(closing(1000, "bye"))...), chop))
				c.accepted()
				c.expect(closing(1000, "bye"))
				c.expectEnd()
			})
		}
	}
}

// TestViolationsAreCounted runs every case that breaks the protocol on one server. Each violation
// counts once, as an event too, and no message of it reaches the handler.
func TestViolationsAreCounted(t *testing.T) {
	for _, w := range bothWays {
		t.Run(string(w), func(t *testing.T) {
			s := start(t)
			violations, messages := 0, 0
			for _, sec := range sections() {
				for _, tc := range sec.cases {
					if tc.code == 0 || sec.opts != nil || tc.chop != 0 || strings.HasPrefix(tc.id, "5.4/order") {
						continue
					}
					c, _ := s.connect(t, w, "")
					tc.run(c)
					violations++
					for _, f := range tc.want {
						if f.op == opText || f.op == opBinary {
							messages++
						}
					}
				}
			}
			require.Greater(t, violations, 300)
			require.EqualValues(t, violations, s.invalid.Load(), "IncrementInvalidMessages")
			eventually(t, func() bool { return s.errors.Load()+s.Stats().DroppedEvents == int64(violations) }, "EventError")
			require.EqualValues(t, messages, s.handled.Load(), "messages that reached the handler")
			require.EqualValues(t, messages, s.Stats().Total.MessagesIn)
			eventually(t, func() bool { return s.GetClientCount() == 0 && s.Stats().Total.Connections == 0 }, "all are gone")
		})
	}
}

// TestPingsOfOneRead sends more pings at once than one read takes.
func TestPingsOfOneRead(t *testing.T) {
	s := start(t)
	c, _ := s.connect(t, native, "")
	flood := slices.Repeat([]frame{ping(pattern(125)), pong("")}, 400)
	c.send(append(flood, ping("latest"))...)
	for {
		f, err := c.readFrame()
		require.NoError(t, err)
		if f == pong("latest") { // RFC 6455 section 5.5.3: the pong for the latest ping is enough
			break
		}
		require.Equal(t, pong(pattern(125)), f)
	}
	c.expectAlive()
}
