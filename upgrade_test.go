package ws_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/leak"
)

// countUpgradeErrors returns how many of the next n calls of HandleUpgrade
// return want; the others return nil.
func countUpgradeErrors(s *harness.Server, n int, want error) (count int) {
	s.T.Helper()
	for range n {
		if err := harness.Receive(s.T, s.Upgrades, "HandleUpgrade did not return"); err != nil {
			require.ErrorIs(s.T, err, want)
			count++
		}
	}
	return count
}

func TestOrigins(t *testing.T) {
	same := []ws.Option{}
	list := []ws.Option{ws.WithCheckOriginWhitelist([]string{
		"https://a.example", "http://b.example:8080",
		"https://kiosk.example:443", "app://x.example",
	})}
	all := []ws.Option{ws.WithAllowAllOrigins()}
	own := []ws.Option{ws.WithCheckOrigin(func(r *http.Request) bool { return r.Header.Get("X-Pass") == "yes" })}
	tests := []struct {
		name    string
		options []ws.Option
		host    string
		header  string
		want    int
	}{
		{"same origin", same, "example.com", "Origin: http://example.com", 101},
		{"same origin, other scheme", same, "example.com", "Origin: https://example.com", 101},
		{"same origin, other case", same, "example.com", "Origin: HTTP://EXAMPLE.com", 101},
		{"same origin, other case of the Host", same, "EXAMPLE.com", "Origin: http://example.com", 101},
		{"no origin", same, "example.com", "X: y", 101},
		{"another origin", same, "example.com", "Origin: http://example.org", 403},
		{"a subdomain", same, "example.com", "Origin: http://www.example.com", 403},
		{"a longer name", same, "example.com", "Origin: http://example.com.evil.org", 403},
		{"another port", same, "example.com", "Origin: http://example.com:8080", 403},
		{"the same port", same, "example.com:8080", "Origin: http://example.com:8080", 101},
		{"default port of https in the Host", same, "example.com:443", "Origin: https://example.com", 101},
		{"default port of http in the Host", same, "example.com:80", "Origin: http://example.com", 101},
		{"default port in the origin", same, "example.com", "Origin: https://example.com:443", 101},
		{"default port of the other scheme", same, "example.com:443", "Origin: http://example.com", 403},
		{"default port of the other scheme in the origin", same, "example.com", "Origin: http://example.com:443", 403},
		{"empty port in the Host", same, "example.com:", "Origin: http://example.com", 101},
		{"IPv6 address", same, "[::1]:8080", "Origin: http://[::1]:8080", 101},
		{"IPv6 address, default port", same, "[2001:DB8::1]:443", "Origin: https://[2001:db8::1]", 101},
		{"IPv6 address, another port", same, "[::1]:8080", "Origin: http://[::1]", 403},
		{"trailing dot in the Host", same, "example.com.", "Origin: https://example.com", 101},
		{"trailing dot in the origin", same, "example.com:8080", "Origin: https://example.com.:8080", 101},
		{"two trailing dots", same, "example.com", "Origin: https://example.com..", 403},
		{"another scheme", same, "example.com", "Origin: ftp://example.com", 403},
		{"scheme of a WebSocket", same, "example.com", "Origin: ws://example.com", 403},
		{"no scheme", same, "example.com", "Origin: example.com", 403},
		{"empty scheme", same, "example.com", "Origin: ://example.com", 403},
		{"Kelvin sign", same, "kiosk.example", "Origin: https://\u212Aiosk.example", 403},
		{"long s", same, "kiosk.example", "Origin: https://kio\u017Fk.example", 403},
		{"origin null", same, "example.com", "Origin: null", 403},
		{"origin null of a host null", same, "null", "Origin: null", 403},
		{"user info", same, "example.com", "Origin: https://me@example.com", 403},
		{"user info like the host", same, "example.com", "Origin: https://example.com@evil.example", 403},
		{"path", same, "example.com", "Origin: https://example.com/", 403},
		{"no host", same, "example.com", "Origin: https://", 403},
		{"no URL", same, "example.com", "Origin: %zz", 403},
		{"whitelist", list, "example.com", "Origin: https://a.example", 101},
		{"whitelist, other case", list, "example.com", "Origin: https://A.example", 101},
		{"whitelist with port", list, "example.com", "Origin: http://b.example:8080", 101},
		{"whitelist, default port", list, "example.com", "Origin: https://kiosk.example", 101},
		{"whitelist, own scheme", list, "example.com", "Origin: app://x.example", 101},
		{"whitelist, Kelvin sign", list, "example.com", "Origin: https://\u212Aiosk.example", 403},
		{"whitelist, no origin", list, "example.com", "X: y", 403},
		{"whitelist, empty origin", list, "example.com", "Origin: ", 403},
		{"whitelist, null", list, "example.com", "Origin: null", 403},
		{"whitelist, other scheme", list, "example.com", "Origin: http://a.example", 403},
		{"whitelist, other port", list, "example.com", "Origin: https://a.example:8080", 403},
		{"whitelist, no port", list, "example.com", "Origin: http://b.example", 403},
		{"whitelist, subdomain", list, "example.com", "Origin: https://x.a.example", 403},
		{"whitelist, longer name", list, "example.com", "Origin: https://a.example.org", 403},
		{"whitelist, same origin", list, "example.com", "Origin: http://example.com", 403},
		{"DNS rebinding passes as the same origin", same, "evil.example:8080", "Origin: http://evil.example:8080", 101},
		{"DNS rebinding, whitelist", list, "evil.example:8080", "Origin: http://evil.example:8080", 403},
		{"all origins", all, "example.com", "Origin: http://evil.example", 101},
		{"all origins, none", all, "example.com", "X: y", 101},
		{"own check passes", own, "example.com", "X-Pass: yes\r\nOrigin: http://evil.example", 101},
		{"own check refuses", own, "example.com", "Origin: http://example.com", 403},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := harness.Start(t, tt.options...)
				c := s.DialTCP(w)
				c.WriteRaw(strings.Replace(harness.UpgradeRequest("/ws", tt.header+"\r\n"), "example.com", tt.host, 1))
				resp, _ := c.ReadResponse()
				assert.Equal(t, tt.want, resp.StatusCode)
			})
		}
	})
}

func TestAuthenticate(t *testing.T) {
	refuse := errors.New("wrong password for root")
	tests := []struct {
		name string
		auth func(*http.Request) ([]ws.ClientOption, error)
		want int
		body string
	}{
		{"accepted", func(*http.Request) ([]ws.ClientOption, error) { return nil, nil }, 101, ""},
		{"any error", func(*http.Request) ([]ws.ClientOption, error) { return nil, refuse }, 401, "unauthorized"},
		{"HandshakeError", func(*http.Request) ([]ws.ClientOption, error) {
			return nil, &ws.HandshakeError{Status: 402, Reason: "pay first", Header: http.Header{"X-Price": {"7"}}}
		}, 402, "pay first"},
		{"wrapped HandshakeError", func(*http.Request) ([]ws.ClientOption, error) {
			return nil, errors.Join(refuse, &ws.HandshakeError{Status: 429, Reason: "slowly"})
		}, 429, "slowly"},
		{"HandshakeError that is no refusal", func(*http.Request) ([]ws.ClientOption, error) {
			return nil, &ws.HandshakeError{Status: 200, Reason: "ok?"}
		}, 500, ""},
		{"by header", func(r *http.Request) ([]ws.ClientOption, error) {
			if r.Header.Get("Authorization") != "Bearer t" || r.URL.Query().Get("q") != "1" || r.Host != "example.com" {
				return nil, refuse
			}
			if _, _, err := net.SplitHostPort(r.RemoteAddr); err != nil {
				return nil, err
			}
			return nil, nil
		}, 101, ""},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := harness.Start(t, ws.WithAuthenticate(tt.auth))
				c := s.DialTCP(w)
				c.WriteRaw(harness.UpgradeRequest("/ws?q=1", "Authorization: Bearer t\r\n"))
				resp, body := c.ReadResponse()
				assert.Equal(t, tt.want, resp.StatusCode)
				assert.Equal(t, tt.body == "pay first", resp.Header.Get("X-Price") == "7")
				assert.NotContains(t, body, "root")
				if tt.body != "" {
					assert.Equal(t, tt.body+"\n", body)
				}
				if tt.want != 101 {
					assert.Zero(t, s.GetClientCount())
				}
				if w == harness.NetHTTP {
					err := harness.Receive(t, s.Upgrades, "HandleUpgrade did not return")
					assert.Equal(t, tt.want != 101, err != nil)
					if tt.want == 401 {
						require.ErrorIs(t, err, refuse)
						var h *ws.HandshakeError
						require.ErrorAs(t, err, &h)
					}
				}
			})
		}
	})
}

// An Authenticate that blocks holds up nobody else.
func TestAuthenticateBlocks(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		entered, release := make(chan struct{}, 10), make(chan struct{})
		s := harness.Start(t, ws.WithLoops(1), ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			if r.URL.Query().Has("slow") {
				entered <- struct{}{}
				<-release
			}
			return nil, nil
		}))
		harness.RegisterGreetings(t, s.Manager)
		free := sync.OnceFunc(func() { close(release) })
		t.Cleanup(free)
		var slow []*harness.Client
		for range 5 {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws?slow", "") + harness.Frame(1, harness.Request("only", "early", "")))
			harness.Receive(t, entered, "Authenticate was not called")
			slow = append(slow, c)
		}
		quick := s.Dial(w)
		quick.Send(harness.Request("only", "1", ""))
		quick.ExpectReply("1", 200, "")
		assert.Equal(t, 1, s.GetClientCount())
		_ = slow[0].Close() // gives up
		free()
		for _, c := range slow[1:] {
			resp, _ := c.ReadResponse()
			require.Equal(t, 101, resp.StatusCode)
			c.ExpectReply("early", 200, "")
		}
		harness.Eventually(t, func() bool { return s.GetClientCount() == 5 }, "%d clients", s.GetClientCount())
	})
}

// Authenticate runs under the handshake timeout.
func TestAuthenticateTimesOut(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithHandshakeTimeout(time.Second),
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				<-r.Context().Done()
				if r.URL.Query().Has("stubborn") {
					return nil, nil
				}
				return nil, r.Context().Err()
			}))
		for _, path := range []string{"/ws", "/ws?stubborn"} {
			t.Run(path, func(t *testing.T) {
				c := s.DialTCP(w)
				c.WriteRaw(harness.UpgradeRequest(path, ""))
				resp, _ := c.ReadResponse()
				assert.Contains(t, []int{401, 408, 503}, resp.StatusCode)
				assert.Zero(t, s.GetClientCount())
			})
		}
	})
}

func TestAuthenticatePanics(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for name, option := range map[string]ws.Option{
			"Authenticate": ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				if r.URL.Query().Has("panic") {
					panic("authenticate")
				}
				return nil, nil
			}),
			"CheckOrigin": ws.WithCheckOrigin(func(r *http.Request) bool {
				if r.URL.Query().Has("panic") {
					panic("origin")
				}
				return true
			}),
		} {
			t.Run(name, func(t *testing.T) {
				s := harness.Start(t, option, ws.WithMaxConnections(1))
				for range 3 {
					c := s.DialTCP(w)
					c.WriteRaw(harness.UpgradeRequest("/ws?panic", ""))
					resp, err := http.ReadResponse(c.R, nil)
					if w == harness.NetHTTP && err != nil {
						continue // net/http recovers the panic, and closes
					}
					require.NoError(t, err)
					assert.Equal(t, 500, resp.StatusCode)
					_ = resp.Body.Close()
				}
				s.Dial(w) // no place was lost
			})
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithMaxConnections(3))
		var conns []*harness.Client
		for range 3 {
			conns = append(conns, s.Dial(w))
		}
		for range 3 {
			assert.Equal(t, 503, s.Status(w, ""))
		}
		if w == harness.NetHTTP {
			require.Equal(t, 3, countUpgradeErrors(s, 6, ws.ErrTooManyConnections))
		}
		assert.Equal(t, 3, s.GetClientCount())
		conns[0].Abort()
		harness.Eventually(t, func() bool { return s.GetClientCount() == 2 }, "still connected")
		harness.Eventually(t, func() bool { return s.Status(w, "") == 101 }, "the place is not free")
	})
}

// Of many that come at once, as many get in as there is room, on both ways
// together.
func TestTooManyConnectionsUnderConcurrency(t *testing.T) {
	s := harness.Start(t, ws.WithMaxConnections(10))
	var wg sync.WaitGroup
	opened := make(chan *harness.Client, 40)
	for i := range 40 {
		wg.Go(func() {
			if c, err := s.TryDial([]harness.Way{harness.Native, harness.NetHTTP}[i%2]); err == nil {
				opened <- c
			}
		})
	}
	wg.Wait()
	assert.Len(t, opened, 10)
	assert.Equal(t, 10, s.GetClientCount())
}

func TestClientIDExists(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery), ws.WithMaxConnections(2))
		first, firstClient := s.DialClient(w, "id=ann")
		for range 3 {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws?id=ann", ""))
			resp, _ := c.ReadResponse()
			assert.Equal(t, 409, resp.StatusCode)
		}
		if w == harness.NetHTTP {
			require.Equal(t, 3, countUpgradeErrors(s, 4, ws.ErrClientIDExists))
		}
		got, ok := s.GetClient("ann")
		require.True(t, ok)
		assert.Same(t, firstClient, got)
		s.Dial(w, "id=bob") // a refusal takes no place
		first.Abort()
		harness.Eventually(t, func() bool { _, ok := s.GetClient("ann"); return !ok }, "still registered")
		_, again := s.DialClient(w, "id=ann")
		assert.Equal(t, "ann", again.ID)
	})
}

func TestNoUpgrade(t *testing.T) {
	ok := harness.UpgradeRequest("/ws", "")
	replace := func(old, with string) string { return strings.Replace(ok, old, with, 1) }
	tests := []struct {
		name, request string
		want          int
		nativeOnly    bool
	}{
		{"plain GET", "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426, false},
		{"another version", replace("Version: 13", "Version: 8"), 426, false},
		{"no version", replace("Sec-WebSocket-Version: 13\r\n", ""), 426, false},
		{"no key", replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400, false},
		{"short key", replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), 400, false},
		{"no Connection: Upgrade", replace("Connection: Upgrade\r\n", ""), 400, false},
		{"POST", replace("GET", "POST"), 405, false},
		{"HTTP/1.0", replace("HTTP/1.1", "HTTP/1.0"), 505, false},
		{"another path", replace("/ws", "/other"), 404, true},
		{"a longer path", replace("/ws", "/ws/"), 404, true},
		{"plain GET of another path", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, true},
		{"health", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, true},
		{"no HTTP", "hello\r\n\r\n", 400, false},
		{"endless line", "GET /" + strings.Repeat("x", 17<<10), 414, true},
		{"endless header", "GET /ws HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 17<<10), 431, true},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, false},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		bystander := s.Dial(w)
		for _, tt := range tests {
			if tt.nativeOnly && w != harness.Native {
				continue // the application's router has these
			}
			t.Run(tt.name, func(t *testing.T) {
				c := s.DialTCP(w)
				c.WriteRaw(tt.request)
				resp, _ := c.ReadResponse()
				assert.Equal(t, tt.want, resp.StatusCode)
				if tt.want == 426 {
					assert.Equal(t, "13", resp.Header.Get("Sec-WebSocket-Version"))
					assert.Equal(t, "websocket", resp.Header.Get("Upgrade"))
				}
			})
		}
		bystander.Send("?")
		bystander.ExpectReply("", 400, "")
		assert.Equal(t, 1, s.GetClientCount())
	})
}

// HandleUpgrade's refusals are HandshakeErrors, as its comment says.
func TestHandleUpgradeErrors(t *testing.T) {
	s := harness.Start(t)
	tests := []struct {
		name, header string
		status       int
	}{
		{"plain GET", "", 426},
		{"origin", "Origin: http://evil.example", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.DialTCP(harness.NetHTTP)
			if tt.header == "" {
				c.WriteRaw("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
			} else {
				c.WriteRaw(harness.UpgradeRequest("/ws", tt.header+"\r\n"))
			}
			resp, _ := c.ReadResponse()
			assert.Equal(t, tt.status, resp.StatusCode)
			var h *ws.HandshakeError
			err := harness.Receive(t, s.Upgrades, "HandleUpgrade did not return")
			require.ErrorAs(t, err, &h, "it is a %T", err)
			assert.Equal(t, tt.status, h.Status)
		})
	}
	t.Run("a response writer that cannot be hijacked", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodGet, "/ws", nil)
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		err := s.HandleUpgrade(w, r)
		require.ErrorIs(t, err, http.ErrNotSupported)
		require.ErrorContains(t, err, "*httptest.ResponseRecorder is no http.Hijacker")
		assert.Equal(t, 500, w.Code)
		assert.Zero(t, s.GetClientCount())
		_, err = s.TryDial(harness.Native)
		require.NoError(t, err)
	})
}

// The request and the bytes behind it may arrive in any pieces.
func TestEarlyBytes(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		stream := harness.UpgradeRequest("/ws", "") + harness.Frame(1, harness.Request("only", "1", "")) +
			harness.Frame(1, harness.Request("only", "2", ""))
		for i := 1; i <= len(stream); i += 13 {
			c := s.DialTCP(w)
			c.WriteRaw(stream[:i])
			c.WriteRaw(stream[i:])
			resp, _ := c.ReadResponse()
			require.Equal(t, 101, resp.StatusCode)
			assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept"))
			c.ExpectReply("1", 200, "")
			c.ExpectReply("2", 200, "")
			_ = c.Close()
		}
	})
}

// A client that does not finish its request is refused in time.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, ws.WithHandshakeTimeout(time.Second))
	for _, begin := range []string{"", "GET /ws HTTP/1.1\r\nHost"} {
		c := s.DialTCP(harness.Native)
		c.WriteRaw(begin)
		resp, _ := c.ReadResponse()
		assert.Equal(t, 408, resp.StatusCode)
	}
}

// Connections may come before Run: they wait for it.
func TestHandleUpgradeBeforeRun(t *testing.T) {
	m, err := ws.NewManager(append(harness.Options(), func(c *ws.Config) { c.ListenAddr = "" })...)
	require.NoError(t, err)
	called := make(chan struct{}, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called <- struct{}{}
		assert.NoError(t, m.HandleUpgrade(w, r))
	}))
	t.Cleanup(web.Close)
	s := &harness.Server{Manager: m, T: t, Web: web, Ran: make(chan error, 1)}
	assert.Nil(t, m.Addr())
	c := s.DialTCP(harness.NetHTTP)
	c.WriteRaw(harness.UpgradeRequest("/ws", ""))
	harness.Receive(t, called, "no request")
	assert.Zero(t, m.GetClientCount())
	go func() { s.Ran <- m.Run() }()
	t.Cleanup(s.Stop)
	resp, _ := c.ReadResponse()
	assert.Equal(t, 101, resp.StatusCode)
	assert.Equal(t, 1, m.GetClientCount())
	_ = c.Close()
}

func TestHandleUpgradeAfterShutdown(t *testing.T) {
	s := harness.Start(t)
	require.NoError(t, s.Shutdown(context.Background()))
	assert.Equal(t, 503, s.Status(harness.NetHTTP, ""))
	require.ErrorIs(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"), ws.ErrManagerStopped)
	_, err := net.DialTimeout("tcp", s.Addr().String(), harness.Patience)
	require.Error(t, err, "nobody listens any more")
}

// A manager that is never run does not hold a request for ever.
func TestHandleUpgradeWithoutRun(t *testing.T) {
	m := harness.NewManager(t, func(c *ws.Config) { c.HandshakeTimeout = 20 * time.Millisecond })
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	w := httptest.NewRecorder()
	require.ErrorIs(t, m.HandleUpgrade(w, r), ws.ErrManagerStopped)
	assert.Equal(t, 503, w.Code)
}

// HandleUpgrade leaves no goroutine behind.
func TestNoGoroutineForEachConnection(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		_ = s.Dial(w)
		before := len(leak.Goroutines())
		for range 100 {
			s.Dial(w)
		}
		harness.Eventually(t, func() bool { return len(leak.Goroutines()) <= before+5 }, "%d goroutines before, %d now",
			before, len(leak.Goroutines()))
	})
}

// An extension that the server does not offer is declined.
func TestCompressionIsDeclined(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithEnableCompression(false))
		c := s.DialTCP(w)
		c.WriteRaw(harness.UpgradeRequest("/ws", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"))
		resp, _ := c.ReadResponse()
		assert.Equal(t, 101, resp.StatusCode)
		assert.Empty(t, resp.Header.Values("Sec-WebSocket-Extensions"))
	})
}

// TestAdmission asserts that a storm is taken in at the pace that is set, and
// that nobody is refused.
func TestAdmission(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAdmission(ws.Admission{PerSecond: 200, Burst: 10}))
		const n = 60
		began := time.Now()
		var storm sync.WaitGroup
		for range n {
			storm.Go(func() {
				_, err := s.TryDial(w)
				assert.NoError(t, err)
			})
		}
		storm.Wait()
		require.GreaterOrEqual(t, time.Since(began), (n-10)*time.Second/200)
		harness.Eventually(t, func() bool { return s.Stats().Clients == n }, "clients")
		st := s.Stats().Accept
		assert.EqualValues(t, 1, st.Pace.Times)
		assert.Positive(t, st.Pace.Time)
		assert.Zero(t, st.Descriptors)
		harness.Eventually(t, func() bool { st := s.Stats().Accept; return !st.Pace.Resting && st.Upgrades == 0 },
			"somebody waits")
	})
}

// TestAdmissionWithinHandshakeTimeout asserts that HandleUpgrade refuses when it
// has waited for HandshakeTimeout, and only then.
func TestAdmissionWithinHandshakeTimeout(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, ws.WithAdmission(ws.Admission{PerSecond: 0.001}), func(c *ws.Config) {
		c.HandshakeTimeout = 2 * time.Second
	})
	s.Dial(harness.NetHTTP)
	require.NoError(t, harness.Receive(t, s.Upgrades, "HandleUpgrade"))
	began := time.Now()
	_, err := s.TryDial(harness.NetHTTP)
	require.ErrorContains(t, err, "503")
	require.GreaterOrEqual(t, time.Since(began), 2*time.Second)
	var refusal *ws.HandshakeError
	require.ErrorAs(t, harness.Receive(t, s.Upgrades, "HandleUpgrade"), &refusal)
	require.Equal(t, http.StatusServiceUnavailable, refusal.Status)
}
