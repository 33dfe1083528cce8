package ws_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// handshakeTest is a request and its status. Where net/http forgives more than the native
// path, or refuses with another status, its status is named.
type handshakeTest struct {
	name, request string
	want          int
	wantNet       int // both if it is the same
}

const both = 0

// validWith returns a valid request with more lines.
func validWith(lines string) string { return harness.UpgradeRequest("/ws", lines) }

// validBut returns a valid request in which with stands instead of old.
func validBut(t *testing.T) func(old, with string) string {
	valid := validWith("")
	return func(old, with string) string {
		require.Contains(t, valid, old)
		return strings.Replace(valid, old, with, 1)
	}
}

func handshakesOfWebSocket(t *testing.T) []handshakeTest {
	valid, with, replace := validWith(""), validWith, validBut(t)
	const host, key = "Host: example.com\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	return []handshakeTest{
		{"valid", valid, 101, both},

		{"4.1 POST", replace("GET", "POST"), 405, both},
		{"4.1 HEAD", replace("GET", "HEAD"), 405, both},
		{"4.1 OPTIONS", replace("GET", "OPTIONS"), 405, both},
		{"4.1 CONNECT", "CONNECT example.com:80 HTTP/1.1\r\n" + host + "\r\n", 400, 405},
		{"4.1 get", replace("GET", "get"), 405, both},
		{"4.1 method that is no token", replace("GET", "G(T"), 400, both},
		{"4.1 HTTP/1.0", replace("HTTP/1.1", "HTTP/1.0"), 505, both},
		{"4.1 HTTP/1.2", replace("HTTP/1.1", "HTTP/1.2"), 505, both},
		{"4.1 http/1.1", replace("HTTP/1.1", "http/1.1"), 400, both},

		{"4.4 version 8", replace("Version: 13", "Version: 8"), 426, both},
		{"4.4 version 013", replace("Version: 13", "Version: 013"), 426, both},
		{"4.4 list of versions", replace("Version: 13", "Version: 8, 13"), 426, both},
		{"4.4 no version", replace("Sec-WebSocket-Version: 13\r\n", ""), 426, both},
		{"4.4 empty version", replace("Version: 13", "Version:"), 426, both},
		{"11.3.5 version twice", with("Sec-WebSocket-Version: 13\r\n"), 400, both},
		{"11.3.5 another version as well", with("sec-websocket-version: 8\r\n"), 400, both},

		{"11.3.1 no key", replace(key, ""), 400, both},
		{"11.3.1 key twice", with(key), 400, both},
		{"11.3.1 another key as well", with("Sec-Websocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"), 400, both},
		{"4.1 key of 15 bytes", replace("bXBsZSBub25jZQ==", "bXBsZSBub25j"), 400, both},
		{"4.1 key of 17 bytes", replace("bXBsZSBub25jZQ==", "bXBsZSBub25jZWE="), 400, both},
		{"4.1 key without padding", replace("bXBsZSBub25jZQ==", "bXBsZSBub25jZQ"), 400, both},
		{"4.1 key that is not canonical", replace("dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC=="), 101, both},
		{"4.1 key in the alphabet of URLs", replace("dGhl", "-_hl"), 400, both},
		{"4.1 key with a space", replace("dGhlIHNh", "dGhl IHN"), 400, both},

		{"4.2.1 no Connection", replace("Connection: Upgrade\r\n", ""), 400, both},
		{"4.2.1 Connection: close", replace("Connection: Upgrade", "Connection: close"), 400, both},
		{"4.2.1 Connection in another case", replace("Connection: Upgrade", "CONNECTION: uPGRADE"), 101, both},
		{"4.2.1 Connection in a list", replace("Connection: Upgrade", "Connection: keep-alive ,\tupgrade,"), 101, both},
		{
			"4.2.1 Connection in two lines", replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
			101, both,
		},
		{"4.2.1 Connection of two words", replace("Connection: Upgrade", "Connection: Upgrade now"), 400, both},
		{"4.2.1 no Upgrade", replace("Upgrade: websocket\r\n", ""), 426, both},
		{"4.2.1 Upgrade to another", replace("Upgrade: websocket", "Upgrade: h2c"), 426, both},
		{"4.2.1 Upgrade in another case", replace("Upgrade: websocket", "upgrade: WebSocket"), 101, both},
		{"4.2.1 Upgrade in a list", replace("Upgrade: websocket", "Upgrade: h2c,websocket"), 101, both},
		{"4.2.1 Upgrade in two lines", replace("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"), 101, both},
		{"4.2.1 Upgrade with a version", replace("Upgrade: websocket", "Upgrade: websocket/13"), 426, both},

		{"RFC 9112 3.2 no Host", replace(host, ""), 400, both},
		{"RFC 9112 3.2 empty Host", replace(host, "Host:\r\n"), 400, both},
		{"RFC 9112 3.2 Host twice", with(host), 400, both},
		{"RFC 9112 3.2 two Hosts", with("host: example.org\r\n"), 400, both},
		{"RFC 9112 3.2 Hosts in a list", replace(host, "Host: example.com, example.org\r\n"), 400, both},
		{"RFC 9112 3.2 user info in Host", replace(host, "Host: me@example.com\r\n"), 400, both},
		{"RFC 9112 3.2 path in Host", replace(host, "Host: example.com/a\r\n"), 400, both},
		{"RFC 9112 3.2 Host with a port", replace(host, "Host: [::1]:8080\r\n"), 101, both},

		{"RFC 9112 3.2.2 absolute-form, http", replace("/ws", "http://example.com/ws"), 101, both},
		{"RFC 9112 3.2.2 absolute-form, ws", replace("/ws", "ws://example.com/ws?a=b"), 101, both},
		{"RFC 9112 3.2.2 absolute-form, wss", replace("/ws", "WSS://example.com:443/ws"), 101, both},
		{"RFC 9112 3.2.2 absolute-form, another Host", replace("/ws", "http://example.org/ws"), 101, both},
		{
			"RFC 9112 3.2.2 absolute-form, no Host",
			"GET http://example.com/ws HTTP/1.1" + strings.TrimPrefix(replace(host, ""), "GET /ws HTTP/1.1"), 400, both,
		},
		{
			"RFC 9112 3.2.2 absolute-form, two Hosts", strings.Replace(with(host), "/ws", "http://example.com/ws", 1),
			400, both,
		},
		{"RFC 9112 3.2.2 absolute-form, ftp", replace("/ws", "ftp://example.com/ws"), 400, both},
		{"RFC 9112 3.2.2 absolute-form, user info", replace("/ws", "http://me:x@example.com/ws"), 400, both},
		{"RFC 9112 3.2.2 absolute-form, no host in it", replace("/ws", "http:///ws"), 400, 101},
		{"RFC 9112 3.2.3 authority-form", replace("/ws", "example.com:80"), 400, both},
		{"RFC 9112 3.2.4 asterisk-form", replace("/ws", "*"), 400, both},
		{"3 # in the query", replace("/ws", "/ws?a=b#c"), 101, both},
		{"3 # in the path", replace("/ws", "/ws#a"), 404, 101}, // as with net/http, it is another path
		{"RFC 9112 3.2 target not ASCII", replace("/ws", "/ws?\u00e9=\xff"), 101, both},
		{"RFC 9112 3.2 bad escape", replace("/ws", "/ws%zz"), 400, both},
		{"RFC 9112 3.2 escaped path", replace("/ws", "/%77s"), 101, both},
	}
}

func handshakesOfHTTP(t *testing.T) []handshakeTest {
	valid, with, replace := validWith(""), validWith, validBut(t)
	of := func(n int) string { return strings.Repeat("x", n) }
	return []handshakeTest{
		{"RFC 9112 5.2 line folding", replace("Upgrade: websocket", "Upgrade:\r\n websocket"), 400, 101},
		{"RFC 9112 5.2 line folding in the key", replace("IHNh", "\r\n\tIHNh"), 400, both},
		{"RFC 9112 2.2 space before the first header", replace("Host", " Host"), 400, both},
		{"RFC 9112 5.1 space before the colon", replace("Host:", "Host :"), 400, both},
		{"RFC 9112 5.1 tab before the colon", with("X\t: a\r\n"), 400, both},
		{"RFC 9112 5 no colon", with("X\r\n"), 400, both},
		{"RFC 9112 5 empty name", with(": a\r\n"), 400, both},
		{"RFC 9112 5 name not ASCII", with("\u00e9: a\r\n"), 400, both},
		{"RFC 9112 2.2 LF alone", with("X: a\nY: b\r\n"), 400, 101},
		{"RFC 9112 2.2 CR alone", with("X: a\rY: b\r\n"), 400, both},
		{"RFC 9110 5.5 NUL in a value", with("X: a\x00b\r\n"), 400, both},
		{"RFC 9110 5.5 DEL in a value", with("X: a\x7fb\r\n"), 400, both},
		{"RFC 9110 5.5 NUL in the target", replace("/ws", "/ws\x00"), 400, both},
		{"RFC 9110 5.5 obs-text in a value", with("X: caf\xe9\r\n"), 101, both},

		{"RFC 9112 6.3 body", with("Content-Length: 5\r\n") + "hello", 400, both},
		{"RFC 9112 6.3 no body", with("Content-Length: 0\r\n"), 101, both},
		{"RFC 9112 6.3 negative body", with("Content-Length: -1\r\n"), 400, both},
		{"RFC 9112 6.3 two lengths", with("Content-Length: 0\r\nContent-Length: 5\r\n"), 400, both},
		{"RFC 9112 6.3 length twice", with("Content-Length: 0\r\nContent-Length: 0\r\n"), 400, 101},
		{"RFC 9112 6.1 chunked", with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, both},
		{
			"RFC 9112 6.1 chunked and a length", with("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
			400, both,
		},
		{"RFC 9112 6.1 another coding", with("Transfer-Encoding: identity\r\n"), 400, 501},

		{"one header more than the limit", with(strings.Repeat("X: 1\r\n", 128+1-5)), 431, 101},
		{"as many headers as the limit", with(strings.Repeat("X: 1\r\n", 128-5)), 101, both},
		{"a head of 16 KiB", with("X: " + of(16<<10-len(valid)-len("X: \r\n")) + "\r\n"), 101, both},
		{"a head of more than 16 KiB", with("X: " + of(16<<10) + "\r\n"), 431, 101},
		{"a head of more than 16 KiB in two lines", with("X: " + of(9000) + "\r\nY: " + of(9000) + "\r\n"), 431, 101},
		{"a target of more than 16 KiB", replace("/ws", "/ws?"+of(16<<10)), 414, 101},

		{"4.1 subprotocol", with("Sec-WebSocket-Protocol: chat\r\n"), 101, both},
		{"4.1 empty subprotocol", with("Sec-WebSocket-Protocol: \r\n"), 101, both},
		{"4.1 subprotocol with a space", with("Sec-WebSocket-Protocol: a b\r\n"), 101, both},
		{"4.1 subprotocols of commas", with("Sec-WebSocket-Protocol: ,, ,\r\n"), 101, both},
		{"4.1 subprotocol twice", with("Sec-WebSocket-Protocol: a, a\r\n"), 101, both},
		{"4.1 subprotocol twice in two lines", with("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n"), 101, both},
		{"RFC 6454 7.3 two origins", with("Origin: http://example.com\r\nOrigin: http://evil.example\r\n"), 400, both},
	}
}

// TestHandshake sends whole requests on both ways.
func TestHandshake(t *testing.T) {
	tests := append(handshakesOfWebSocket(t), handshakesOfHTTP(t)...)
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				want := tt.want
				if w == harness.NetHTTP && tt.wantNet != both {
					want = tt.wantNet
				}
				c := s.DialTCP(w)
				c.T = t
				c.WriteRaw(tt.request)
				resp, err := http.ReadResponse(c.R, nil)
				require.NoError(t, err)
				defer resp.Body.Close()
				assert.Equal(t, want, resp.StatusCode)
				switch want {
				case 101:
					_, key, _ := strings.Cut(tt.request, "Sec-WebSocket-Key: ")
					key, _, _ = strings.Cut(key, "\r\n")
					assert.Equal(t, codec.AcceptKey(key), resp.Header.Get("Sec-WebSocket-Accept"))
				case 405:
					assert.Equal(t, "GET", resp.Header.Get("Allow"))
				case 426:
					assert.Equal(t, "13", resp.Header.Get("Sec-WebSocket-Version"))
					assert.Equal(t, "websocket", resp.Header.Get("Upgrade"))
				}
				c.Abort()
			})
		}
		harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "a client stayed")
	})
}

func TestNegotiate(t *testing.T) {
	const deflate = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	tests := []struct {
		name                    string
		protocols               []string
		compress                bool
		header                  http.Header
		subprotocol, extensions string
	}{
		{name: "nothing offered", protocols: []string{"chat"}, compress: true, header: http.Header{}},
		{
			name: "the server prefers", protocols: []string{"v2", "v1"},
			header: http.Header{"Sec-Websocket-Protocol": {"v1, v2"}}, subprotocol: "v2",
		},
		{name: "none in common", protocols: []string{"v2"}, header: http.Header{"Sec-Websocket-Protocol": {"v1"}}},
		{
			name: "compression", compress: true,
			header: http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}}, extensions: deflate,
		},
		{name: "compression is off", header: http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := ws.DefaultConfig()
			cfg.Subprotocols, cfg.EnableCompression = tt.protocols, tt.compress
			subprotocol, extensions, err := ws.Negotiate(&cfg, tt.header)
			require.NoError(t, err)
			assert.Equal(t, tt.subprotocol, subprotocol)
			assert.Equal(t, tt.extensions, extensions)
		})
	}
}

func TestNegotiateRefusesInvalidHeaders(t *testing.T) {
	cfg := ws.DefaultConfig()
	_, _, err := ws.Negotiate(&cfg, http.Header{}, ws.WithResponseHeader(http.Header{"Upgrade": {"h2c"}}))
	var refused *ws.HandshakeError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, http.StatusInternalServerError, refused.Status)
}

func TestAllowsOrigin(t *testing.T) {
	tests := []struct {
		name, origin, host string
		configure          func(*ws.Config)
		want               bool
	}{
		{"same host", "https://a.test", "a.test", func(*ws.Config) {}, true},
		{"another host", "https://b.test", "a.test", func(*ws.Config) {}, false},
		{"no browser", "", "a.test", func(*ws.Config) {}, true},
		{"listed", "https://b.test", "a.test", func(c *ws.Config) { c.OriginWhitelist = []string{"https://b.test"} }, true},
		{"listed, no browser", "", "a.test", func(c *ws.Config) { c.OriginWhitelist = []string{"https://b.test"} }, false},
		{"all", "null", "a.test", func(c *ws.Config) { c.AllowAllOrigins = true }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := ws.DefaultConfig()
			tt.configure(&cfg)
			assert.Equal(t, tt.want, ws.AllowsOrigin(&cfg, tt.origin, tt.host))
		})
	}
}

func TestSubprotocol(t *testing.T) {
	tests := []struct {
		name      string
		supported []string
		offers    string // header lines
		want      string
	}{
		{"none offered", []string{"chat"}, "", ""},
		{"none supported", nil, "Sec-WebSocket-Protocol: chat\r\n", ""},
		{"the one", []string{"chat"}, "Sec-WebSocket-Protocol: chat\r\n", "chat"},
		{"the server's order", []string{"v2", "v1"}, "Sec-WebSocket-Protocol: v1, v2\r\n", "v2"},
		{"the server's second", []string{"v3", "v1"}, "Sec-WebSocket-Protocol: v0, v1\r\n", "v1"},
		{"in two lines", []string{"v2"}, "Sec-WebSocket-Protocol: v1\r\nsec-websocket-protocol: v2\r\n", "v2"},
		{"no match", []string{"v2"}, "Sec-WebSocket-Protocol: v1\r\n", ""},
		{"another case", []string{"chat"}, "Sec-WebSocket-Protocol: Chat\r\n", ""},
		{"offers that are no tokens", []string{"v1"}, "Sec-WebSocket-Protocol: v 1, \"v1\", , v1\r\n", "v1"},
		{"repeated offers", []string{"v2", "v1"}, "Sec-WebSocket-Protocol: v1, v1\r\nSec-WebSocket-Protocol: v1\r\n", "v1"},
		{"an empty offer", []string{"v1"}, "Sec-WebSocket-Protocol:\r\n", ""},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, limited := range []bool{false, true} {
			for _, tt := range tests {
				name := tt.name
				opts := []ws.Option{ws.WithSubprotocols(tt.supported...), ws.WithAuthenticate(harness.ByQuery)}
				if limited {
					name += ", with a rate limit"
					opts = append(opts, ws.WithRateLimit(ws.RateLimit{Messages: 1000}))
				}
				t.Run(name, func(t *testing.T) {
					s := harness.Start(t, opts...)
					c := s.DialTCP(w)
					c.WriteRaw(harness.UpgradeRequest("/ws?id=ann", tt.offers))
					resp, _ := c.ReadResponse()
					require.Equal(t, 101, resp.StatusCode)
					var want []string
					if tt.want != "" {
						want = []string{tt.want}
					}
					assert.Equal(t, want, resp.Header.Values("Sec-WebSocket-Protocol"))
					ann, ok := s.GetClient("ann")
					require.True(t, ok)
					assert.Equal(t, tt.want, ann.Subprotocol())
				})
			}
		}
	})
}

// The list is the manager's own.
func TestSubprotocolsAreCopied(t *testing.T) {
	list := []string{"v1"}
	s := harness.Start(t, ws.WithSubprotocols(list...), ws.WithAuthenticate(harness.ByQuery))
	list[0] = "\r\n"
	c := s.DialTCP(harness.Native)
	c.WriteRaw(harness.UpgradeRequest("/ws?id=ann", "Sec-WebSocket-Protocol: v1\r\n"))
	resp, _ := c.ReadResponse()
	assert.Equal(t, "v1", resp.Header.Get("Sec-WebSocket-Protocol"))
}

// responseHeaders is an Authenticate that returns the headers as options.
func responseHeaders(headers ...http.Header) ws.Option {
	return ws.WithAuthenticate(func(*http.Request) ([]ws.ClientOption, error) {
		var opts []ws.ClientOption
		for _, h := range headers {
			opts = append(opts, ws.WithResponseHeader(h))
		}
		return opts, nil
	})
}

func TestWithResponseHeader(t *testing.T) {
	first := http.Header{"Set-Cookie": {"a=1; Path=/", "b=2"}, "X-Node": {"7"}, "X-Empty": {""}}
	second := http.Header{"Set-Cookie": {"c=3"}}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, responseHeaders(first, nil, second), ws.WithSubprotocols("chat"))
		c := s.DialTCP(w)
		c.WriteRaw(harness.UpgradeRequest("/ws", "Sec-WebSocket-Protocol: chat\r\n"))
		resp, _ := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode)
		assert.Equal(t, http.Header{
			"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
			"Sec-Websocket-Protocol": {"chat"},
			"Set-Cookie":             {"a=1; Path=/", "b=2", "c=3"}, "X-Node": {"7"}, "X-Empty": {""},
		}, resp.Header)
	})
	assert.Equal(t, []string{"a=1; Path=/", "b=2"}, first["Set-Cookie"], "the caller's own")
	t.Run("cookies of a middleware alone", func(t *testing.T) {
		s := harness.Start(t)
		s.Web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
			assert.NoError(t, s.HandleUpgrade(w, r))
		})
		c := s.DialTCP(harness.NetHTTP)
		c.WriteRaw(harness.UpgradeRequest("/", ""))
		resp, _ := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode)
		assert.Equal(t, []string{"session=1"}, resp.Header["Set-Cookie"])
	})
	t.Run("from HandleUpgrade, before those of Authenticate", func(t *testing.T) {
		s := harness.Start(t, responseHeaders(second))
		s.Web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Not-Sent", "1")
			w.Header().Add("Set-Cookie", "session=1; HttpOnly")
			w.Header().Add("Set-Cookie", "x=1\r\nEvil: 1")
			assert.NoError(t, s.HandleUpgrade(w, r, ws.WithResponseHeader(first)))
		})
		c := s.DialTCP(harness.NetHTTP)
		c.WriteRaw(harness.UpgradeRequest("/", ""))
		resp, _ := c.ReadResponse()
		require.Equal(t, 101, resp.StatusCode)
		assert.Equal(t, []string{"session=1; HttpOnly", "x=1  Evil: 1", "a=1; Path=/", "b=2", "c=3"},
			resp.Header["Set-Cookie"])
		assert.NotContains(t, resp.Header, "Evil")
		assert.NotContains(t, resp.Header, "X-Not-Sent")
	})
}

// A mistake of the application refuses the client, and is told.
func TestWithResponseHeaderRefuses(t *testing.T) {
	tests := []struct {
		name   string
		header http.Header
	}{
		{"Upgrade", http.Header{"upgrade": {"h2c"}}},
		{"Connection", http.Header{"Connection": {"close"}}},
		{"key", http.Header{"Sec-WebSocket-Accept": {"x"}}},
		{"subprotocol", http.Header{"Sec-Websocket-Protocol": {"x"}}},
		{"extensions", http.Header{"Sec-WebSocket-Extensions": {"permessage-deflate"}}},
		{"body", http.Header{"Content-Length": {"0"}}},
		{"name", http.Header{"X Y": {"1"}}},
		{"response splitting in a name", http.Header{"X: 1\r\nEvil": {"1"}}},
		{"response splitting in a value", http.Header{"X": {"1\r\nEvil: 1"}}},
		{"NUL in a value", http.Header{"X": {"\x00"}}},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				var log harness.Buffer
				s := harness.Start(t, responseHeaders(tt.header), ws.WithMaxConnections(1), func(c *ws.Config) {
					c.Logger = slog.New(slog.NewTextHandler(&log, nil))
				})
				for range 2 { // a refusal takes no place
					c := s.DialTCP(w)
					c.WriteRaw(harness.UpgradeRequest("/ws", ""))
					resp, body := c.ReadResponse()
					assert.Equal(t, 500, resp.StatusCode)
					assert.Equal(t, "internal error\n", body)
					assert.Empty(t, resp.Header.Get("Evil"))
				}
				assert.Zero(t, s.GetClientCount())
				if w == harness.Native {
					assert.Contains(t, log.String(), "WithResponseHeader")
					return
				}
				err := harness.Receive(t, s.Upgrades, "HandleUpgrade did not return")
				require.ErrorContains(t, errors.Unwrap(err), "WithResponseHeader")
			})
		}
	})
}

// withDebugLog makes a manager log to log, debug records included.
func withDebugLog(log *harness.Buffer) ws.Option {
	return func(c *ws.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// refuseByQuery is an Authenticate that refuses a request as its query asks.
func refuseByQuery(r *http.Request) ([]ws.ClientOption, error) {
	switch q := r.URL.Query(); {
	case q.Has("deny"):
		return nil, errors.New("wrong password")
	case q.Has("pay"):
		return nil, &ws.HandshakeError{Status: 402, Reason: "pay first"}
	case q.Has("panic"):
		panic("authenticate")
	case q.Has("wait"):
		<-r.Context().Done()
		return nil, r.Context().Err()
	case q.Has("header"):
		return []ws.ClientOption{ws.WithResponseHeader(http.Header{"Connection": {"x"}})}, nil
	default:
		return harness.ByQuery(r)
	}
}

// Each refusal is counted under its reason on both ways. On the native path, where
// nobody reads HandleUpgrade's error, it is logged at debug.
func TestRefusalsAreCounted(t *testing.T) {
	auth := ws.WithAuthenticate(refuseByQuery)
	const ok = "Origin: http://example.com\r\n"
	tests := []struct {
		name, request string
		status        int
		want          ws.RefusalCounts
		logged        string
	}{
		{"malformed", "hello\r\n\r\n", 400, ws.RefusalCounts{Malformed: 1}, `reason="malformed`},
		{
			"version", strings.Replace(harness.UpgradeRequest("/ws", ok), "13", "8", 1), 426,
			ws.RefusalCounts{Malformed: 1},
			"status=426",
		},
		{
			"key", strings.Replace(harness.UpgradeRequest("/ws", ok), "ZQ==", "", 1), 400,
			ws.RefusalCounts{Malformed: 1},
			"Sec-WebSocket-Key",
		},
		{"path", harness.UpgradeRequest("/other", ok), 404, ws.RefusalCounts{Path: 1}, "status=404"},
		{
			"origin", harness.UpgradeRequest("/ws", "Origin: http://evil.example\r\n"), 403,
			ws.RefusalCounts{Origin: 1},
			`origin=http://evil.example`,
		},
		{"Authenticate", harness.UpgradeRequest("/ws?deny", ok), 401, ws.RefusalCounts{Auth: 1}, `error="wrong password"`},
		{
			"Authenticate with a status", harness.UpgradeRequest("/ws?pay", ok), 402,
			ws.RefusalCounts{Auth: 1},
			`reason="pay first"`,
		},
		{"a panic", harness.UpgradeRequest("/ws?panic", ok), 500, ws.RefusalCounts{Failed: 1}, "authenticate"},
		{
			"a malformed response header", harness.UpgradeRequest("/ws?header", ok), 500,
			ws.RefusalCounts{Failed: 1},
			"level=ERROR",
		},
		{"client ID", harness.UpgradeRequest("/ws?id=ann", ok), 409, ws.RefusalCounts{ClientID: 1}, "status=409"},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			if w == harness.NetHTTP && (tt.name == "malformed" || tt.name == "path") {
				continue // net/http and the router refuse them
			}
			t.Run(tt.name, func(t *testing.T) {
				var log harness.Buffer
				s := harness.Start(t, auth, withDebugLog(&log))
				s.Dial(w, "id=ann")
				c := s.DialTCP(w)
				c.WriteRaw(tt.request)
				resp, _ := c.ReadResponse()
				require.Equal(t, tt.status, resp.StatusCode)
				harness.Eventually(t, func() bool { return s.Stats().Refused == tt.want }, "%+v", s.Stats().Refused)
				refused := s.Stats().Refused
				assert.EqualValues(t, 1, refused.Total())
				if w == harness.Native {
					assert.Contains(t, log.String(), `msg="ws: handshake refused"`)
					assert.Contains(t, log.String(), tt.logged)
					assert.Contains(t, log.String(), "remote="+c.LocalAddr().String())
				} else {
					assert.NotContains(t, log.String(), `msg="ws: handshake refused"`)
				}
			})
		}
		t.Run("full", func(t *testing.T) {
			s := harness.Start(t, ws.WithMaxConnections(1))
			s.Dial(w)
			require.Equal(t, 503, s.Status(w, ""))
			assert.Equal(t, ws.RefusalCounts{Full: 1}, s.Stats().Refused)
		})
		t.Run("timeout of Authenticate", func(t *testing.T) {
			s := harness.Start(t, auth, func(c *ws.Config) { c.HandshakeTimeout = 100 * time.Millisecond })
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws?wait", ok))
			_, _ = c.ReadResponse()
			harness.Eventually(t, func() bool { return s.Stats().Stuck == 0 && s.Stats().Refused.Timeout == 1 },
				"%+v", s.Stats().Refused)
			refused := s.Stats().Refused
			assert.EqualValues(t, 1, refused.Total(), "%+v", refused)
		})
	})
	t.Run("timeout of a silent connection", func(t *testing.T) {
		s := harness.Start(t, func(c *ws.Config) { c.HandshakeTimeout = 50 * time.Millisecond })
		resp, _ := s.DialTCP(harness.Native).ReadResponse()
		assert.Equal(t, 408, resp.StatusCode)
		assert.Equal(t, ws.RefusalCounts{Timeout: 1}, s.Stats().Refused)
	})
	t.Run("stopped", func(t *testing.T) {
		s := harness.Start(t)
		harness.Shutdown(t, s.Manager)
		require.Equal(t, 503, s.Status(harness.NetHTTP, ""))
		require.ErrorIs(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"), ws.ErrManagerStopped)
		assert.Equal(t, ws.RefusalCounts{Stopped: 1}, s.Stats().Refused)
	})
}

// Text of a client's cannot forge a line of the log.
func TestRefusalIsLoggedInOneLine(t *testing.T) {
	var log harness.Buffer
	s := harness.StartTLS(t, nil, withDebugLog(&log))
	c := s.DialTCP(harness.Native).Over(s.ClientConfig(tls.VersionTLS13))
	c.WriteRaw(harness.UpgradeRequest("/ws", "Origin: http://evil.example status=101 msg=\"fine\"\u2028\r\n"))
	resp, _ := c.ReadResponse()
	require.Equal(t, 403, resp.StatusCode)
	var lines []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "evil") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 1)
	assert.Contains(t, lines[0], `level=DEBUG msg="ws: handshake refused" status=403`)
	assert.Contains(t, lines[0], `host=example.com origin="http://evil.example status=101 msg=\"fine\"\u2028"`)
}
