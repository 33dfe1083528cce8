package ws_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestWithPath(t *testing.T) {
	s := harness.Start(t, ws.WithPath("/chat", "/rooms/"),
		ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			return []ws.ClientOption{ws.WithResponseHeader(http.Header{"X-Path": {r.URL.Path}})}, nil
		}))
	tests := []struct {
		target string
		want   int
		path   string // that Authenticate reads
	}{
		{"/chat", 101, "/chat"},
		{"/chat?a=b", 101, "/chat"},
		{"/ch%61t", 101, "/chat"},
		{"/rooms/", 101, "/rooms/"},
		{"/rooms/7/logs?x=/", 101, "/rooms/7/logs"},
		{"/rooms/caf%C3%A9", 101, "/rooms/caf\u00e9"},
		{"/rooms/caf\u00e9", 101, "/rooms/caf\u00e9"},
		{"/rooms//..", 101, "/rooms//.."},
		{"ws://example.com/rooms/7", 101, "/rooms/7"},
		{"/rooms", 404, ""},
		{"/chat/", 404, ""},
		{"/ws", 404, ""},
		{"/", 404, ""},
		{"ws://example.com", 404, ""},
	}
	for _, tt := range tests {
		c := s.DialTCP(harness.Native)
		c.WriteRaw(harness.UpgradeRequest(tt.target, ""))
		resp, _ := c.ReadResponse()
		assert.Equal(t, tt.want, resp.StatusCode, tt.target)
		assert.Equal(t, tt.path, resp.Header.Get("X-Path"), tt.target)
	}
}

// The list is the manager's own.
func TestPathsAreCopied(t *testing.T) {
	paths := []string{"/a"}
	s := harness.Start(t, ws.WithPath(paths...))
	paths[0] = "/b"
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/a", ""))
	resp, _ := c.ReadResponse()
	assert.Equal(t, 101, resp.StatusCode)
}

// healthChecks are requests that load balancers send, and the statuses of a server that
// is well.
var healthChecks = []struct {
	name, request string
	want          int
}{
	{"live", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	{"ready", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	{"live with a query", "GET /healthz?full=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	{"HEAD", "HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	{"OPTIONS", "OPTIONS /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	{"no Host", "GET /readyz HTTP/1.1\r\n\r\n", 200},
	{"empty Host", "GET /readyz HTTP/1.1\r\nHost:\r\n\r\n", 200},
	{"HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n", 200},
	{"HTTP/1.0 with Host", "GET /readyz HTTP/1.0\r\nHost: x\r\n\r\n", 200},
	{"HEAD of HTTP/1.0", "HEAD /healthz HTTP/1.0\r\n\r\n", 200},
	{"HAProxy's option httpchk", "OPTIONS / HTTP/1.0\r\n\r\n", 200},
	{"HAProxy's option httpchk with HTTP/1.1", "OPTIONS / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 200},
	{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	{
		"nginx's proxy_pass",
		"GET /healthz HTTP/1.0\r\nHost: backend\r\nConnection: close\r\nUser-Agent: curl/8\r\n\r\n",
		200,
	},
	{"nginx's proxy_pass of a handshake", "GET /ws HTTP/1.0\r\nHost: backend\r\nConnection: close\r\n\r\n", 505},
	{"GET /", "GET / HTTP/1.0\r\n\r\n", 404},
	{"OPTIONS of another path", "OPTIONS /other HTTP/1.0\r\n\r\n", 404},
	{"below a health path", "GET /healthz/ HTTP/1.1\r\nHost: x\r\n\r\n", 404},
}

func TestHealthChecks(t *testing.T) {
	check := func(t *testing.T, dial func() *harness.Client) {
		for _, tt := range healthChecks {
			t.Run(tt.name, func(t *testing.T) {
				c := dial()
				c.WriteRaw(tt.request)
				method, _, _ := strings.Cut(tt.request, " ")
				resp, err := http.ReadResponse(c.R, &http.Request{Method: method})
				require.NoError(t, err)
				defer resp.Body.Close()
				assert.Equal(t, tt.want, resp.StatusCode)
				c.ExpectEOF()
			})
		}
	}
	for name, opts := range map[string][]ws.Option{
		"": nil, "with Authenticate on all paths": {ws.WithPath("/ws", "/x/"), ws.WithAuthenticate(harness.ByQuery)},
	} {
		t.Run("plain "+name, func(t *testing.T) {
			s := harness.Start(t, opts...)
			check(t, func() *harness.Client { return s.DialTCP(harness.Native) })
		})
		t.Run("TLS "+name, func(t *testing.T) {
			s := harness.StartTLS(t, nil, opts...)
			check(t, func() *harness.Client { return s.DialTCP(harness.Native).Over(s.ClientConfig(tls.VersionTLS13)) })
		})
	}
}

// health sends a check to the native path and returns the status and the body.
func serverHealth(s *harness.Server, path string) (status int, body string) {
	s.T.Helper()
	c := s.DialTCP(harness.Native)
	defer c.Close()
	return clientHealth(c, path)
}

func clientHealth(c *harness.Client, path string) (status int, body string) {
	c.T.Helper()
	c.WriteRaw("GET " + path + " HTTP/1.0\r\n\r\n")
	resp, body := c.ReadResponse()
	return resp.StatusCode, body
}

func TestWithHealthPaths(t *testing.T) {
	tests := []struct {
		name        string
		live, ready string
		want        map[string]int
	}{
		{"others", "/live", "/ready", map[string]int{"/live": 200, "/ready": 200, "/healthz": 404, "/readyz": 404}},
		{"no ready", "/live", "", map[string]int{"/live": 200, "/readyz": 404, "/": 404}},
		{"none", "", "", map[string]int{"/healthz": 404, "/readyz": 404, "/": 404}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := harness.Start(t, ws.WithHealthPaths(tt.live, tt.ready))
			for path, want := range tt.want {
				status, _ := serverHealth(s, path)
				assert.Equal(t, want, status, path)
			}
			c := s.DialTCP(harness.Native)
			c.WriteRaw("OPTIONS / HTTP/1.0\r\n\r\n")
			resp, _ := c.ReadResponse()
			assert.Equal(t, tt.ready != "", resp.StatusCode == 200, "OPTIONS /")
		})
	}
	t.Run("before a prefix", func(t *testing.T) {
		s := harness.Start(t, ws.WithPath("/"))
		status, _ := serverHealth(s, "/healthz")
		assert.Equal(t, 200, status)
	})
}

// A server that is full is alive and not ready.
func TestNotReadyWhileFull(t *testing.T) {
	s := harness.Start(t, ws.WithMaxConnections(1))
	c := s.Dial(harness.Native)
	status, body := serverHealth(s, "/readyz")
	assert.Equal(t, 503, status)
	assert.Equal(t, "too many connections\n", body)
	status, _ = serverHealth(s, "/healthz")
	assert.Equal(t, 200, status)
	c.Abort()
	harness.Eventually(t, func() bool { status, _ := serverHealth(s, "/readyz"); return status == 200 }, "it stays full")
}

// A connection that was accepted before Shutdown reads 503 from the ready path, whether
// that answers or Shutdown has refused the connection already.
func TestNotReadyWhileStopping(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	ready := s.DialTCP(harness.Native)
	harness.Eventually(t, func() bool { return s.Stats().Total.Connections == 1 }, "not accepted")
	holder := s.Dial(harness.Native) // does not answer the close, so that Shutdown waits
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }() // ends with the test at the latest
	require.Equal(t, gobwas.OpClose, holder.ReadFrame().Header.OpCode)
	status, _ := clientHealth(ready, "/readyz")
	assert.Equal(t, 503, status)
	holder.Finish(1001)
	require.NoError(t, harness.Receive(t, done, "Shutdown did not return"))
}

// The host of an absolute-form target replaces the host of the field (RFC 9112 section 3.2.2), also
// for the check of the origin.
func TestAbsoluteFormReplacesHost(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			return []ws.ClientOption{ws.WithResponseHeader(http.Header{"X-Host": {r.Host}})}, nil
		}))
		for origin, want := range map[string]int{"http://example.org:81": 101, "http://example.com": 403} {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("http://example.org:81/ws", "Origin: "+origin+"\r\n"))
			resp, _ := c.ReadResponse()
			assert.Equal(t, want, resp.StatusCode)
			if want == 101 {
				assert.Equal(t, "example.org:81", resp.Header.Get("X-Host"))
			}
		}
	})
}

// A target like ws://host asks for the root.
func TestAbsoluteFormWithoutPath(t *testing.T) {
	s := harness.Start(t, ws.WithPath("/"))
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("ws://example.com", ""))
	resp, _ := c.ReadResponse()
	assert.Equal(t, 101, resp.StatusCode)
}

// A client that sends its request byte by byte, without end, is refused in
// time; one that ends it in time is not.
func TestHandshakeTimeoutOfASlowSender(t *testing.T) {
	const timeout = 300 * time.Millisecond
	s := harness.Start(t, func(c *ws.Config) { c.HandshakeTimeout = timeout })
	tests := []struct{ name, endless string }{
		{"request line", "GET /" + strings.Repeat("a", 8000)},
		{"header", "GET /ws HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 8000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := time.Now()
			c := s.DialTCP(harness.Native)
			answered := make(chan struct{})
			var resp *http.Response
			var err error
			go func() { // ends with the answer, which the connection's deadline bounds
				defer close(answered)
				resp, err = http.ReadResponse(c.R, nil)
			}()
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			sent := 0
			for waiting := true; waiting; {
				select {
				case <-answered:
					waiting = false
				case <-pace.C:
					if sent < len(tt.endless) {
						_, _ = c.Write([]byte{tt.endless[sent]})
						sent++
					}
				}
			}
			require.NoError(t, err)
			defer resp.Body.Close()
			assert.Equal(t, 408, resp.StatusCode)
			assert.GreaterOrEqual(t, time.Since(from), timeout/2)
			assert.Less(t, sent, len(tt.endless), "it was still sending")
		})
	}
	t.Run("one that ends it in time", func(t *testing.T) {
		patient := harness.Start(t)
		c := patient.DialTCP(harness.Native)
		request := harness.UpgradeRequest("/ws", "")
		for i := range len(request) {
			c.WriteRaw(request[i : i+1])
		}
		resp, _ := c.ReadResponse()
		assert.Equal(t, 101, resp.StatusCode)
	})
}

// Frames that come in one write with the request are handled after the answer,
// also if there are many and Authenticate takes its time.
func TestPipelinedFrames(t *testing.T) {
	const messages = 500
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		for name, auth := range map[string]ws.Option{
			"at once":      func(*ws.Config) {},
			"Authenticate": ws.WithAuthenticate(harness.ByQuery),
		} {
			t.Run(name, func(t *testing.T) {
				s := harness.Start(t, mode, auth, func(c *ws.Config) {
					c.MessageQueueSize, c.MailboxSize = 2*messages, 2*messages
				})
				s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) { assert.NoError(t, c.SendBytes(payload)) })
				var b strings.Builder
				b.WriteString(harness.UpgradeRequest("/ws", ""))
				var want []string
				for i := range messages {
					want = append(want, strings.Repeat(string(rune('a'+i%26)), 1+i%100))
					b.WriteString(harness.Frame(1, want[i]))
				}
				c := s.DialTCP(w)
				c.WriteRaw(b.String())
				resp, _ := c.ReadResponse()
				require.Equal(t, 101, resp.StatusCode)
				c.Expect(want...)
			})
		}
	})
}
