package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/leak"
	"github.com/qi-realtime/ws/internal/testcert"
)

// tlsServer is a server that speaks TLS on both ways.
type tlsServer struct {
	*server
	roots *x509.CertPool
}

// startTLS runs a manager whose both ways speak TLS with configurations alike.
func startTLS(t testing.TB, configure func(*tls.Config), opts ...ws.Option) *tlsServer {
	t.Helper()
	cert, roots := testcert.New("localhost")
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	if configure != nil {
		configure(cfg)
	}
	s := &tlsServer{server: start(t, append([]ws.Option{ws.WithTLSConfig(cfg)}, opts...)...), roots: roots}
	web := httptest.NewUnstartedServer(s.web.Config.Handler)
	s.web.Close()
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	web.TLS = cfg.Clone()
	web.TLS.NextProtos = []string{"h2", "http/1.1"}
	web.EnableHTTP2 = true
	web.StartTLS()
	s.web = web
	return s
}

// clientTLS is the configuration of a client that speaks one version.
func (s *tlsServer) clientTLS(version uint16) *tls.Config {
	return &tls.Config{ServerName: "localhost", RootCAs: s.roots, MinVersion: version, MaxVersion: version}
}

// over speaks TLS over c.
func (c *client) over(cfg *tls.Config) *client {
	c.t.Helper()
	tc := tls.Client(c.Conn, cfg)
	require.NoError(c.t, tc.Handshake())
	return &client{Conn: tc, t: c.t, r: bufio.NewReaderSize(tc, 16<<10)}
}

// dialTLS connects and upgrades.
func (s *tlsServer) dialTLS(w way, cfg *tls.Config) *client {
	s.t.Helper()
	c := s.dialTCP(w).over(cfg)
	c.raw(upgradeRequest("/ws", ""))
	resp, body := c.response()
	require.Equal(s.t, 101, resp.StatusCode, body)
	return c
}

// onBothTLS runs test for each way and version.
func onBothTLS(t *testing.T, test func(t *testing.T, w way, version uint16)) {
	t.Helper()
	onBothWays(t, func(t *testing.T, w way) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tls.VersionName(version), func(t *testing.T) { test(t, w, version) })
		}
	})
}

func TestTLS(t *testing.T) {
	onBothTLS(t, func(t *testing.T, w way, version uint16) {
		for _, mode := range []ws.HandlerMode{ws.Pooled, ws.Inline} {
			s := startTLS(t, nil, ws.WithHandlerMode(mode), ws.WithMessageSizeLimit(2<<20), ws.WithQueueBytes(4<<20))
			s.HandleRaw(echo)
			c := s.dialTLS(w, s.clientTLS(version))
			for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20, 5} {
				payload := strings.Repeat("x", size)
				c.raw(frame(2, payload))
				got := c.read()
				require.Equal(t, payload, string(got.Payload))
			}
			s.BroadcastAll([]byte(`"all"`))
			c.expect(`"all"`)
			c.raw(frame(8, "\x03\xe8"))
			c.expectClose(1000)
			_, err := io.Copy(io.Discard, c.r)
			require.NoError(t, err, "close_notify")
			eventually(t, func() bool { return s.GetClientCount() == 0 }, "still connected")
		}
	})
}

// What crypto/tls and net/http have read ahead is not lost.
func TestTLSEarlyBytes(t *testing.T) {
	onBothTLS(t, func(t *testing.T, w way, version uint16) {
		s := startTLS(t, nil)
		registerGreetings(t, s.Manager)
		stream := upgradeRequest("/ws", "") + frame(1, request("only", "1", "")) + frame(1, request("only", "2", ""))
		for i := 1; i <= len(stream); i += 41 {
			c := s.dialTCP(w)
			plug := &pluggedConn{Conn: c.Conn}
			tc := tls.Client(plug, s.clientTLS(version))
			require.NoError(t, tc.Handshake())
			plug.plugged = true // so that all records come in one segment
			_, err := io.WriteString(tc, stream[:i])
			require.NoError(t, err)
			_, err = io.WriteString(tc, stream[i:])
			require.NoError(t, err)
			_, err = plug.Conn.Write(plug.buf.Bytes())
			require.NoError(t, err)
			c = &client{Conn: tc, t: t, r: bufio.NewReader(tc)}
			resp, _ := c.response()
			require.Equal(t, 101, resp.StatusCode)
			c.expectReply("1", 200, "")
			c.expectReply("2", 200, "")
			_ = c.Close()
		}
	})
}

// pluggedConn keeps what is written while it is plugged.
type pluggedConn struct {
	net.Conn
	plugged bool
	buf     bytes.Buffer
}

func (c *pluggedConn) Write(p []byte) (int, error) {
	if c.plugged {
		return c.buf.Write(p)
	}
	return c.Conn.Write(p)
}

// What the client proved, and what was negotiated, reach Authenticate.
func TestTLSClientCertificate(t *testing.T) {
	onBothTLS(t, func(t *testing.T, w way, version uint16) {
		mine, clients := testcert.New("ann")
		s := startTLS(t, func(cfg *tls.Config) {
			cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, clients
		}, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			if r.TLS == nil || r.TLS.Version != version || r.TLS.NegotiatedProtocol != "http/1.1" {
				return nil, errors.New("no TLS state")
			}
			return []ws.ClientOption{ws.WithClientID(r.TLS.VerifiedChains[0][0].Subject.CommonName)}, nil
		}))
		cfg := s.clientTLS(version)
		cfg.NextProtos = []string{"http/1.1"}
		cfg.Certificates = []tls.Certificate{mine}
		s.dialTLS(w, cfg)
		_, ok := s.GetClient("ann")
		assert.True(t, ok)

		cfg = s.clientTLS(version) // without a certificate
		c := s.dialTCP(w)
		tc := tls.Client(c.Conn, cfg)
		_, err := tc.Write([]byte(upgradeRequest("/ws", "")))
		if err == nil {
			_, err = io.ReadAll(tc)
		}
		require.ErrorContains(t, err, "remote error", "the alert is read")
		assert.Equal(t, 1, s.GetClientCount())
	})
}

// A certificate can be replaced while the manager runs.
func TestTLSCertificateReload(t *testing.T) {
	first, firstRoots := testcert.New("localhost")
	second, secondRoots := testcert.New("localhost")
	var current atomic.Pointer[tls.Certificate]
	current.Store(&first)
	s := startTLS(t, func(cfg *tls.Config) {
		cfg.Certificates = nil
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }
	})
	s.HandleRaw(echo)
	s.roots = firstRoots
	old := s.dialTLS(native, s.clientTLS(tls.VersionTLS13))
	current.Store(&second)
	s.roots = secondRoots
	s.dialTLS(native, s.clientTLS(tls.VersionTLS13))
	old.raw(frame(1, "still there?"))
	old.expect("still there?")
}

// The native path speaks HTTP/1.1 only, and says so.
func TestTLSALPN(t *testing.T) {
	s := startTLS(t, nil)
	cfg := s.clientTLS(tls.VersionTLS13)
	cfg.NextProtos = []string{"h2", "http/1.1"}
	c := s.dialTLS(native, cfg)
	assert.Equal(t, "http/1.1", c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol)

	cfg.NextProtos = []string{"h2"}
	require.ErrorContains(t, tls.Client(s.dialTCP(native).Conn, cfg).Handshake(), "no application protocol")
}

// A request that came by HTTP/2 cannot be upgraded, and is told so.
func TestTLSOverHTTP2(t *testing.T) {
	s := startTLS(t, nil)
	client := s.web.Client()
	client.Transport.(*http.Transport).TLSClientConfig.RootCAs = s.roots
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.web.URL+"/ws", nil)
	require.NoError(t, err)
	resp, err := client.Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	_ = resp.Body.Close()
	require.Equal(t, 2, resp.ProtoMajor)
	assert.Equal(t, http.StatusHTTPVersionNotSupported, resp.StatusCode)
	assert.Equal(t, "a handshake needs HTTP/1.1\n", string(body))
	var h *ws.HandshakeError
	require.ErrorAs(t, receive(t, s.upgrades, "HandleUpgrade did not return"), &h)
	client.CloseIdleConnections()
}

// A connection that is no socket cannot be moved.
func TestHandleUpgradeOfAnotherConnection(t *testing.T) {
	cert, roots := testcert.New("localhost")
	s := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	web := &http.Server{Handler: s.web.Config.Handler, ReadHeaderTimeout: patience}
	ended := make(chan error, 1)
	go func() {
		ended <- web.Serve(tls.NewListener(wrappingListener{l}, &tls.Config{Certificates: []tls.Certificate{cert}}))
	}()
	nc, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "localhost", RootCAs: roots})
	require.NoError(t, err)
	c := &client{Conn: nc, t: t, r: bufio.NewReader(nc)}
	c.raw(upgradeRequest("/ws", ""))
	resp, _ := c.response()
	assert.Equal(t, 501, resp.StatusCode)
	require.ErrorContains(t, receive(t, s.upgrades, "HandleUpgrade did not return"), "ws_test.wrappedConn")
	_ = nc.Close()
	_ = web.Close()
	<-ended
}

type (
	wrappingListener struct{ net.Listener }
	wrappedConn      struct{ net.Conn }
)

func (l wrappingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return wrappedConn{c}, err
}

// Idle TLS connections keep no goroutine.
func TestTLSNoGoroutineForEachConnection(t *testing.T) {
	onBothWays(t, func(t *testing.T, w way) {
		s := startTLS(t, nil)
		cfg := s.clientTLS(tls.VersionTLS13)
		s.dialTLS(w, cfg)
		before := len(leak.Goroutines())
		for range 500 {
			s.dialTLS(w, cfg)
		}
		eventually(t, func() bool { return len(leak.Goroutines()) <= before+8 }, "%d goroutines before, %d now",
			before, len(leak.Goroutines()))
		assert.Equal(t, 501, s.GetClientCount())
	})
}

// Shutdown sends 1001 and close_notify.
func TestTLSShutdown(t *testing.T) {
	onBothTLS(t, func(t *testing.T, w way, version uint16) {
		s := startTLS(t, nil)
		c := s.dialTLS(w, s.clientTLS(version))
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		go func() { done <- s.Shutdown(ctx) }()
		c.expectClose(1001)
		c.raw(frame(8, "\x03\xe9"))
		_, err := io.Copy(io.Discard, c.r)
		require.NoError(t, err, "close_notify")
		require.NoError(t, receive(t, done, "Shutdown did not return"))
	})
}

// openssl can do what crypto/tls's clients cannot: K asks for a key update and
// for one in return, R renegotiates.
func TestTLSOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "openssl is to be installed where all is checked")
		t.Skip("openssl is not installed") // nothing else asks for key updates or renegotiates
	}
	onBothWays(t, func(t *testing.T, w way) {
		s := startTLS(t, nil)
		s.HandleRaw(echo)
		// command enters a command, which openssl knows only at the start of what it
		// reads, and waits until it is carried out.
		command := func(c *client, letter, answer string) {
			t.Helper()
			c.raw(letter + "\n")
			lines := bufio.NewScanner(c.Conn.(*pipeConn).log)
			for lines.Scan() && !strings.Contains(lines.Text(), answer) {
				continue
			}
			require.Contains(t, lines.Text(), answer)
		}
		dial := func(t *testing.T, args ...string) *client {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			cmd := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-quiet", "-no_ign_eof", "-connect", s.addr(w)}, args...)...)
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			log, err := cmd.StderrPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			t.Cleanup(func() {
				cancel()
				_ = cmd.Wait()
			})
			c := &client{Conn: &pipeConn{r: out, w: in, log: log}, t: t, r: bufio.NewReader(out)}
			c.raw(upgradeRequest("/ws", ""))
			resp, _ := c.response()
			require.Equal(t, 101, resp.StatusCode)
			c.raw(frame(1, "before"))
			c.expect("before")
			return c
		}
		t.Run("key update", func(t *testing.T) {
			c := dial(t, "-tls1_3")
			for range 40 {
				command(c, "K", "KEYUPDATE")
				command(c, "k", "KEYUPDATE")
				c.raw(frame(1, "after"))
				c.expect("after")
			}
		})
		t.Run("renegotiation", func(t *testing.T) {
			c := dial(t, "-tls1_2")
			bystander := s.dialTLS(w, s.clientTLS(tls.VersionTLS12))
			before := s.GetClientCount()
			command(c, "R", "RENEGOTIATING")
			_, err := io.Copy(io.Discard, c.r)
			require.NoError(t, err)
			eventually(t, func() bool { return s.GetClientCount() < before }, "it was not refused")
			bystander.raw(frame(1, "still there?"))
			bystander.expect("still there?")
		})
	})
}

// pipeConn is the two pipes of a process as a connection.
type pipeConn struct {
	net.Conn
	r, log io.Reader
	w      io.Writer
}

func (c *pipeConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.w.Write(p) }

// NewManager copies the TLS configuration.
func TestTLSConfigIsCopied(t *testing.T) {
	cert, roots := testcert.New("localhost")
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	s := &tlsServer{server: start(t, ws.WithTLSConfig(cfg)), roots: roots}
	cfg.Certificates = nil
	cfg.MaxVersion = tls.VersionTLS12
	s.dialTLS(native, s.clientTLS(tls.VersionTLS13))
	assert.Empty(t, cfg.NextProtos)
}

// A plain manager takes TLS and plain connections of net/http beside each other.
func TestTLSMixed(t *testing.T) {
	cert, roots := testcert.New("localhost")
	s := &tlsServer{server: start(t), roots: roots}
	s.HandleRaw(echo)
	web := httptest.NewUnstartedServer(s.web.Config.Handler)
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	web.StartTLS()
	t.Cleanup(web.Close)
	nc, err := tls.Dial("tcp", web.Listener.Addr().String(), s.clientTLS(tls.VersionTLS13))
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(2*patience)))
	secure := &client{Conn: nc, t: t, r: bufio.NewReader(nc)}
	secure.raw(upgradeRequest("/ws", ""))
	resp, _ := secure.response()
	require.Equal(t, 101, resp.StatusCode)
	plain := s.dial(native)
	for _, c := range []*client{secure, plain} {
		c.raw(frame(1, "hello"))
		c.expect("hello")
	}
}

// WithHeadLimits holds on the native path, with and without TLS. Behind net/http only
// its own limit does.
func TestWithHeadLimits(t *testing.T) {
	cookies := func(n int) string { return "Cookie: " + strings.Repeat("c", n) + "\r\n" }
	lines := func(n int) string { return strings.Repeat("X: 1\r\n", n-5) }
	tests := []struct {
		name   string
		limits []ws.Option
		header string
		want   int // on the native path
	}{
		{"8.7 KB of cookies", nil, cookies(8700), 101},
		{"20 KB of cookies", nil, cookies(20_000), 431},
		{"200 lines", nil, lines(200), 431},
		{"20 KB of cookies within larger limits", []ws.Option{ws.WithHeadLimits(32<<10, 300)}, cookies(20_000), 101},
		{"40 KB of cookies beyond them", []ws.Option{ws.WithHeadLimits(32<<10, 300)}, cookies(40_000), 431},
		{"200 lines within larger limits", []ws.Option{ws.WithHeadLimits(32<<10, 300)}, lines(200), 101},
		{"2 KB of cookies beyond smaller limits", []ws.Option{ws.WithHeadLimits(2<<10, 16)}, cookies(2 << 10), 431},
		{"17 lines beyond smaller limits", []ws.Option{ws.WithHeadLimits(2<<10, 16)}, lines(17), 431},
	}
	onBothWays(t, func(t *testing.T, w way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				want := tt.want
				if w == overNet {
					want = 101
				}
				assert.Equal(t, want, start(t, tt.limits...).status(w, tt.header))
				s := startTLS(t, nil, tt.limits...)
				c := s.dialTCP(w).over(s.clientTLS(tls.VersionTLS13))
				c.raw(upgradeRequest("/ws", tt.header))
				resp, _ := c.response()
				assert.Equal(t, want, resp.StatusCode, "with TLS")
			})
		}
	})
}
