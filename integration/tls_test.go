package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
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
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/leak"
	"github.com/qi-realtime/ws/internal/testcert"
)

func TestTLS(t *testing.T) {
	harness.OnBothTLS(t, func(t *testing.T, w harness.Way, version uint16) {
		for _, mode := range []ws.HandlerMode{ws.Pooled, ws.Inline} {
			s := harness.StartTLS(t, nil, ws.WithHandlerMode(mode), ws.WithMessageSizeLimit(2<<20), ws.WithQueueBytes(4<<20))
			s.HandleRaw(harness.Echo)
			c := s.DialTLS(w, s.ClientConfig(version))
			for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20, 5} {
				payload := strings.Repeat("x", size)
				c.WriteRaw(harness.Frame(2, payload))
				got := c.Next()
				require.Equal(t, payload, string(got.Payload))
			}
			s.BroadcastAll([]byte(`"all"`))
			c.Expect(`"all"`)
			c.WriteRaw(harness.Frame(8, "\x03\xe8"))
			c.ExpectClose(1000)
			_, err := io.Copy(io.Discard, c.R)
			require.NoError(t, err, "close_notify")
			harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "still connected")
		}
	})
}

// Bytes that crypto/tls and net/http have read ahead are not lost.
func TestTLSEarlyBytes(t *testing.T) {
	harness.OnBothTLS(t, func(t *testing.T, w harness.Way, version uint16) {
		s := harness.StartTLS(t, nil)
		harness.RegisterGreetings(t, s.Manager)
		stream := harness.UpgradeRequest("/ws", "") + harness.Frame(1, harness.Request("only", "1", "")) +
			harness.Frame(1, harness.Request("only", "2", ""))
		for i := 1; i <= len(stream); i += 41 {
			c := s.DialTCP(w)
			plug := &pluggedConn{Conn: c.Conn}
			tc := tls.Client(plug, s.ClientConfig(version))
			require.NoError(t, tc.Handshake())
			plug.plugged = true // so that all records come in one segment
			_, err := io.WriteString(tc, stream[:i])
			require.NoError(t, err)
			_, err = io.WriteString(tc, stream[i:])
			require.NoError(t, err)
			_, err = plug.Conn.Write(plug.buf.Bytes())
			require.NoError(t, err)
			c = &harness.Client{Conn: tc, T: t, R: bufio.NewReader(tc)}
			resp, _ := c.ReadResponse()
			require.Equal(t, 101, resp.StatusCode)
			c.ExpectReply("1", 200, "")
			c.ExpectReply("2", 200, "")
			_ = c.Close()
		}
	})
}

// pluggedConn keeps written bytes while it is plugged.
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

// The client's certificate and the negotiated protocol reach Authenticate.
func TestTLSClientCertificate(t *testing.T) {
	harness.OnBothTLS(t, func(t *testing.T, w harness.Way, version uint16) {
		mine, clients := testcert.New("ann")
		s := harness.StartTLS(t, func(cfg *tls.Config) {
			cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, clients
		}, ws.WithAuthenticate(func(r *http.Request) ([]ws.ClientOption, error) {
			if r.TLS == nil || r.TLS.Version != version || r.TLS.NegotiatedProtocol != "http/1.1" {
				return nil, errors.New("no TLS state")
			}
			return []ws.ClientOption{ws.WithClientID(r.TLS.VerifiedChains[0][0].Subject.CommonName)}, nil
		}))
		cfg := s.ClientConfig(version)
		cfg.NextProtos = []string{"http/1.1"}
		cfg.Certificates = []tls.Certificate{mine}
		s.DialTLS(w, cfg)
		_, ok := s.GetClient("ann")
		assert.True(t, ok)

		cfg = s.ClientConfig(version) // without a certificate
		c := s.DialTCP(w)
		tc := tls.Client(c.Conn, cfg)
		_, err := tc.Write([]byte(harness.UpgradeRequest("/ws", "")))
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
	s := harness.StartTLS(t, func(cfg *tls.Config) {
		cfg.Certificates = nil
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }
	})
	s.HandleRaw(harness.Echo)
	s.Roots = firstRoots
	old := s.DialTLS(harness.Native, s.ClientConfig(tls.VersionTLS13))
	current.Store(&second)
	s.Roots = secondRoots
	s.DialTLS(harness.Native, s.ClientConfig(tls.VersionTLS13))
	old.WriteRaw(harness.Frame(1, "still there?"))
	old.Expect("still there?")
}

// The native path speaks HTTP/1.1 only, and says so.
func TestTLSALPN(t *testing.T) {
	s := harness.StartTLS(t, nil)
	cfg := s.ClientConfig(tls.VersionTLS13)
	cfg.NextProtos = []string{"h2", "http/1.1"}
	c := s.DialTLS(harness.Native, cfg)
	assert.Equal(t, "http/1.1", c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol)

	cfg.NextProtos = []string{"h2"}
	require.ErrorContains(t, tls.Client(s.DialTCP(harness.Native).Conn, cfg).Handshake(), "no application protocol")
}

// A request that came by HTTP/2 cannot be upgraded, and is told so.
func TestTLSOverHTTP2(t *testing.T) {
	s := harness.StartTLS(t, nil)
	client := s.Web.Client()
	client.Transport.(*http.Transport).TLSClientConfig.RootCAs = s.Roots
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.Web.URL+"/ws", nil)
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
	require.ErrorAs(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"), &h)
	client.CloseIdleConnections()
}

// A connection that is no socket cannot be moved.
func TestHandleUpgradeOfAnotherConnection(t *testing.T) {
	cert, roots := testcert.New("localhost")
	s := harness.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	web := &http.Server{Handler: s.Web.Config.Handler, ReadHeaderTimeout: harness.Patience}
	ended := make(chan error, 1)
	go func() {
		ended <- web.Serve(tls.NewListener(wrappingListener{l}, &tls.Config{Certificates: []tls.Certificate{cert}}))
	}()
	nc, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "localhost", RootCAs: roots})
	require.NoError(t, err)
	c := &harness.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
	c.WriteRaw(harness.UpgradeRequest("/ws", ""))
	resp, _ := c.ReadResponse()
	assert.Equal(t, 501, resp.StatusCode)
	require.ErrorContains(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"),
		"integration_test.wrappedConn")
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
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.StartTLS(t, nil)
		cfg := s.ClientConfig(tls.VersionTLS13)
		s.DialTLS(w, cfg)
		before := len(leak.Goroutines())
		for range 500 {
			s.DialTLS(w, cfg)
		}
		harness.Eventually(t, func() bool { return len(leak.Goroutines()) <= before+8 }, "%d goroutines before, %d now",
			before, len(leak.Goroutines()))
		assert.Equal(t, 501, s.GetClientCount())
	})
}

// Shutdown sends 1001 and close_notify.
func TestTLSShutdown(t *testing.T) {
	harness.OnBothTLS(t, func(t *testing.T, w harness.Way, version uint16) {
		s := harness.StartTLS(t, nil)
		c := s.DialTLS(w, s.ClientConfig(version))
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		go func() { done <- s.Shutdown(ctx) }()
		c.ExpectClose(1001)
		c.WriteRaw(harness.Frame(8, "\x03\xe9"))
		_, err := io.Copy(io.Discard, c.R)
		require.NoError(t, err, "close_notify")
		require.NoError(t, harness.Receive(t, done, "Shutdown did not return"))
	})
}

// openssl has two commands that clients of crypto/tls lack: K asks for a key update and for one in
// return, R renegotiates.
func TestTLSOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "openssl is to be installed where all is checked")
		t.Skip("openssl is not installed") // nothing else asks for key updates or renegotiates
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.StartTLS(t, nil)
		s.HandleRaw(harness.Echo)
		// command enters a command, which openssl knows only at the start of a read, and waits
		// until it is carried out.
		command := func(c *harness.Client, letter, answer string) {
			t.Helper()
			c.WriteRaw(letter + "\n")
			lines := bufio.NewScanner(c.Conn.(*pipeConn).log)
			for lines.Scan() && !strings.Contains(lines.Text(), answer) {
				continue
			}
			require.Contains(t, lines.Text(), answer)
		}
		dial := func(t *testing.T, args ...string) *harness.Client {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience)
			cmd := exec.CommandContext(ctx, openssl,
				append([]string{"s_client", "-quiet", "-no_ign_eof", "-connect", s.AddrOf(w)}, args...)...)
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
			c := &harness.Client{Conn: &pipeConn{r: out, w: in, log: log}, T: t, R: bufio.NewReader(out)}
			c.WriteRaw(harness.UpgradeRequest("/ws", ""))
			resp, _ := c.ReadResponse()
			require.Equal(t, 101, resp.StatusCode)
			c.WriteRaw(harness.Frame(1, "before"))
			c.Expect("before")
			return c
		}
		t.Run("key update", func(t *testing.T) {
			c := dial(t, "-tls1_3")
			for range 40 {
				command(c, "K", "KEYUPDATE")
				command(c, "k", "KEYUPDATE")
				c.WriteRaw(harness.Frame(1, "after"))
				c.Expect("after")
			}
		})
		t.Run("renegotiation", func(t *testing.T) {
			c := dial(t, "-tls1_2")
			bystander := s.DialTLS(w, s.ClientConfig(tls.VersionTLS12))
			before := s.GetClientCount()
			command(c, "R", "RENEGOTIATING")
			_, err := io.Copy(io.Discard, c.R)
			require.NoError(t, err)
			harness.Eventually(t, func() bool { return s.GetClientCount() < before }, "it was not refused")
			bystander.WriteRaw(harness.Frame(1, "still there?"))
			bystander.Expect("still there?")
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
	s := &harness.TLSServer{Server: harness.Start(t, ws.WithTLSConfig(cfg)), Roots: roots}
	cfg.Certificates = nil
	cfg.MaxVersion = tls.VersionTLS12
	s.DialTLS(harness.Native, s.ClientConfig(tls.VersionTLS13))
	assert.Empty(t, cfg.NextProtos)
}

// A plain manager takes TLS and plain connections of net/http beside each other.
func TestTLSMixed(t *testing.T) {
	cert, roots := testcert.New("localhost")
	s := &harness.TLSServer{Server: harness.Start(t), Roots: roots}
	s.HandleRaw(harness.Echo)
	web := httptest.NewUnstartedServer(s.Web.Config.Handler)
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	web.StartTLS()
	t.Cleanup(web.Close)
	nc, err := tls.Dial("tcp", web.Listener.Addr().String(), s.ClientConfig(tls.VersionTLS13))
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(2*harness.Patience)))
	secure := &harness.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
	secure.WriteRaw(harness.UpgradeRequest("/ws", ""))
	resp, _ := secure.ReadResponse()
	require.Equal(t, 101, resp.StatusCode)
	plain := s.Dial(harness.Native)
	for _, c := range []*harness.Client{secure, plain} {
		c.WriteRaw(harness.Frame(1, "hello"))
		c.Expect("hello")
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
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				want := tt.want
				if w == harness.NetHTTP {
					want = 101
				}
				assert.Equal(t, want, harness.Start(t, tt.limits...).Status(w, tt.header))
				s := harness.StartTLS(t, nil, tt.limits...)
				c := s.DialTCP(w).Over(s.ClientConfig(tls.VersionTLS13))
				c.WriteRaw(harness.UpgradeRequest("/ws", tt.header))
				resp, _ := c.ReadResponse()
				assert.Equal(t, want, resp.StatusCode, "with TLS")
			})
		}
	})
}
