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
	"github.com/qi-realtime/ws/internal/leak"
)

// status sends an upgrade request with more header lines and returns the
// answer's status.
func (s *server) status(w way, header string) int {
	s.t.Helper()
	c := s.dialTCP(w)
	defer c.Close()
	c.raw(upgradeRequest("/ws", header))
	resp, _ := c.response()
	return resp.StatusCode
}

// countUpgradeErrors returns how many of the next n calls of HandleUpgrade
// return want; the others return nil.
func (s *server) countUpgradeErrors(n int, want error) (count int) {
	s.t.Helper()
	for range n {
		if err := receive(s.t, s.upgrades, "HandleUpgrade did not return"); err != nil {
			require.ErrorIs(s.t, err, want)
			count++
		}
	}
	return count
}

func TestOrigins(t *testing.T) {
	same := []ws.Option{}
	list := []ws.Option{ws.WithCheckOriginWhitelist([]string{"https://a.example", "http://b.example:8080", "https://kiosk.example:443", "app://x.example"})}
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
	onBothWays(t, func(t *testing.T, w way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := start(t, tt.options...)
				c := s.dialTCP(w)
				c.raw(strings.Replace(upgradeRequest("/ws", tt.header+"\r\n"), "example.com", tt.host, 1))
				resp, _ := c.response()
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
	onBothWays(t, func(t *testing.T, w way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := start(t, ws.WithAuthenticate(tt.auth))
				c := s.dialTCP(w)
				c.raw(upgradeRequest("/ws?q=1", "Authorization: Bearer t\r\n"))
				resp, body := c.response()
				assert.Equal(t, tt.want, resp.StatusCode)
				assert.Equal(t, tt.body == "pay first", resp.Header.Get("X-Price") == "7")
				assert.NotContains(t, body, "root")
				if tt.body != "" {
					assert.Equal(t, tt.body+"\n", body)
				}
				if tt.want != 101 {
					assert.Zero(t, s.GetClientCount())
				}
				if w == overNet {
					err := receive(t, s.upgrades, "HandleUpgrade did not return")
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
	onBothWays(t, func(t *testing.T, w way) {
		entered, release := make(chan struct{}, 10), make(chan struct{})
		s := start(t, ws.WithLoops(1), ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			if r.URL.Query().Has("slow") {
				entered <- struct{}{}
				<-release
			}
			return nil, nil
		}))
		registerGreetings(t, s.Manager)
		free := sync.OnceFunc(func() { close(release) })
		t.Cleanup(free)
		var slow []*client
		for range 5 {
			c := s.dialTCP(w)
			c.raw(upgradeRequest("/ws?slow", "") + frame(1, request("only", "early", "")))
			receive(t, entered, "Authenticate was not called")
			slow = append(slow, c)
		}
		quick := s.dial(w)
		quick.send(request("only", "1", ""))
		quick.expectReply("1", 200, "")
		assert.Equal(t, 1, s.GetClientCount())
		_ = slow[0].Close() // gives up
		free()
		for _, c := range slow[1:] {
			resp, _ := c.response()
			require.Equal(t, 101, resp.StatusCode)
			c.expectReply("early", 200, "")
		}
		eventually(t, func() bool { return s.GetClientCount() == 5 }, "%d clients", s.GetClientCount())
	})
}

// Authenticate runs under the handshake timeout.
func TestAuthenticateTimesOut(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, func(c *ws.Config) { c.HandshakeTimeout = 100 * time.Millisecond },
			ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
				<-r.Context().Done()
				if r.URL.Query().Has("stubborn") {
					return nil, nil
				}
				return nil, r.Context().Err()
			}))
		for _, path := range []string{"/ws", "/ws?stubborn"} {
			t.Run(path, func(t *testing.T) {
				c := s.dialTCP(w)
				c.raw(upgradeRequest(path, ""))
				resp, _ := c.response()
				assert.Contains(t, []int{401, 408, 503}, resp.StatusCode)
				assert.Zero(t, s.GetClientCount())
			})
		}
	})
}

func TestAuthenticatePanics(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
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
				s := start(t, option, ws.WithMaxConnections(1))
				for range 3 {
					c := s.dialTCP(w)
					c.raw(upgradeRequest("/ws?panic", ""))
					resp, err := http.ReadResponse(c.r, nil)
					if w == overNet && err != nil {
						continue // net/http recovers the panic, and closes
					}
					require.NoError(t, err)
					assert.Equal(t, 500, resp.StatusCode)
					_ = resp.Body.Close()
				}
				s.dial(w) // no place was lost
			})
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithMaxConnections(3))
		var conns []*client
		for range 3 {
			conns = append(conns, s.dial(w))
		}
		for range 3 {
			assert.Equal(t, 503, s.status(w, ""))
		}
		if w == overNet {
			require.Equal(t, 3, s.countUpgradeErrors(6, ws.ErrTooManyConnections))
		}
		assert.Equal(t, 3, s.GetClientCount())
		conns[0].abort()
		eventually(t, func() bool { return s.GetClientCount() == 2 }, "still connected")
		eventually(t, func() bool { return s.status(w, "") == 101 }, "the place is not free")
	})
}

// Of many that come at once, as many get in as there is room, on both ways
// together.
func TestTooManyConnectionsUnderConcurrency(t *testing.T) {
	s := start(t, ws.WithMaxConnections(10))
	var wg sync.WaitGroup
	opened := make(chan *client, 40)
	for i := range 40 {
		wg.Go(func() {
			if c, err := s.tryDial([]way{native, overNet}[i%2]); err == nil {
				opened <- c
			}
		})
	}
	wg.Wait()
	assert.Len(t, opened, 10)
	assert.Equal(t, 10, s.GetClientCount())
}

func TestClientIDExists(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithAuthenticate(byQuery), ws.WithMaxConnections(2))
		first, firstClient := s.dialClient(w, "id=ann")
		for range 3 {
			c := s.dialTCP(w)
			c.raw(upgradeRequest("/ws?id=ann", ""))
			resp, _ := c.response()
			assert.Equal(t, 409, resp.StatusCode)
		}
		if w == overNet {
			require.Equal(t, 3, s.countUpgradeErrors(4, ws.ErrClientIDExists))
		}
		got, ok := s.GetClient("ann")
		require.True(t, ok)
		assert.Same(t, firstClient, got)
		s.dial(w, "id=bob") // a refusal takes no place
		first.abort()
		eventually(t, func() bool { _, ok := s.GetClient("ann"); return !ok }, "still registered")
		_, again := s.dialClient(w, "id=ann")
		assert.Equal(t, "ann", again.ID)
	})
}

func TestNoUpgrade(t *testing.T) {
	ok := upgradeRequest("/ws", "")
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
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		bystander := s.dial(w)
		for _, tt := range tests {
			if tt.nativeOnly && w != native {
				continue // the application's router has these
			}
			t.Run(tt.name, func(t *testing.T) {
				c := s.dialTCP(w)
				c.raw(tt.request)
				resp, _ := c.response()
				assert.Equal(t, tt.want, resp.StatusCode)
				if tt.want == 426 {
					assert.Equal(t, "13", resp.Header.Get("Sec-WebSocket-Version"))
					assert.Equal(t, "websocket", resp.Header.Get("Upgrade"))
				}
			})
		}
		bystander.send("?")
		bystander.expectReply("", 400, "")
		assert.Equal(t, 1, s.GetClientCount())
	})
}

// HandleUpgrade's refusals are HandshakeErrors, as its comment says.
func TestHandleUpgradeErrors(t *testing.T) {
	s := start(t)
	tests := []struct {
		name, header string
		status       int
	}{
		{"plain GET", "", 426},
		{"origin", "Origin: http://evil.example", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.dialTCP(overNet)
			if tt.header == "" {
				c.raw("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
			} else {
				c.raw(upgradeRequest("/ws", tt.header+"\r\n"))
			}
			resp, _ := c.response()
			assert.Equal(t, tt.status, resp.StatusCode)
			var h *ws.HandshakeError
			err := receive(t, s.upgrades, "HandleUpgrade did not return")
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
		_, err = s.tryDial(native)
		require.NoError(t, err)
	})
}

// The request and what follows it may arrive in any pieces.
func TestEarlyBytes(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		stream := upgradeRequest("/ws", "") + frame(1, request("only", "1", "")) + frame(1, request("only", "2", ""))
		for i := 1; i <= len(stream); i += 13 {
			c := s.dialTCP(w)
			c.raw(stream[:i])
			c.raw(stream[i:])
			resp, _ := c.response()
			require.Equal(t, 101, resp.StatusCode)
			assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept"))
			c.expectReply("1", 200, "")
			c.expectReply("2", 200, "")
			_ = c.Close()
		}
	})
}

// A client that does not finish its request is refused in time.
func TestHandshakeTimeout(t *testing.T) {
	s := start(t, func(c *ws.Config) { c.HandshakeTimeout = 50 * time.Millisecond })
	for _, begin := range []string{"", "GET /ws HTTP/1.1\r\nHost"} {
		c := s.dialTCP(native)
		c.raw(begin)
		resp, _ := c.response()
		assert.Equal(t, 408, resp.StatusCode)
	}
}

// Connections may come before Run: they wait for it.
func TestHandleUpgradeBeforeRun(t *testing.T) {
	m, err := ws.NewManager(append(testOptions(), func(c *ws.Config) { c.ListenAddr = "" })...)
	require.NoError(t, err)
	called := make(chan struct{}, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called <- struct{}{}
		assert.NoError(t, m.HandleUpgrade(w, r))
	}))
	t.Cleanup(web.Close)
	s := &server{Manager: m, t: t, web: web, ran: make(chan error, 1)}
	assert.Nil(t, m.Addr())
	c := s.dialTCP(overNet)
	c.raw(upgradeRequest("/ws", ""))
	receive(t, called, "no request")
	assert.Zero(t, m.GetClientCount())
	go func() { s.ran <- m.Run() }()
	t.Cleanup(s.shutdown)
	resp, _ := c.response()
	assert.Equal(t, 101, resp.StatusCode)
	assert.Equal(t, 1, m.GetClientCount())
	_ = c.Close()
}

func TestHandleUpgradeAfterShutdown(t *testing.T) {
	s := start(t)
	require.NoError(t, s.Shutdown(context.Background()))
	assert.Equal(t, 503, s.status(overNet, ""))
	require.ErrorIs(t, receive(t, s.upgrades, "HandleUpgrade did not return"), ws.ErrManagerStopped)
	_, err := net.DialTimeout("tcp", s.Addr().String(), patience)
	require.Error(t, err, "nobody listens any more")
}

// A manager that is never run does not hold a request for ever.
func TestHandleUpgradeWithoutRun(t *testing.T) {
	m := newManager(t, func(c *ws.Config) { c.HandshakeTimeout = 20 * time.Millisecond })
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	w := httptest.NewRecorder()
	require.ErrorIs(t, m.HandleUpgrade(w, r), ws.ErrManagerStopped)
	assert.Equal(t, 503, w.Code)
}

// HandleUpgrade leaves no goroutine behind.
func TestNoGoroutineForEachConnection(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t)
		_ = s.dial(w)
		before := len(leak.Goroutines())
		for range 100 {
			s.dial(w)
		}
		eventually(t, func() bool { return len(leak.Goroutines()) <= before+5 }, "%d goroutines before, %d now",
			before, len(leak.Goroutines()))
	})
}

// An extension that the server does not offer is declined.
func TestCompressionIsDeclined(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := start(t, ws.WithEnableCompression(false))
		c := s.dialTCP(w)
		c.raw(upgradeRequest("/ws", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"))
		resp, _ := c.response()
		assert.Equal(t, 101, resp.StatusCode)
		assert.Empty(t, resp.Header.Values("Sec-WebSocket-Extensions"))
	})
}
