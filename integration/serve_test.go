package integration_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func withoutListenAddr(c *ws.Config) { c.ListenAddr = "" }

// wrappedListener is a listener whose connections are wrapped, and whose Accept fails
// first.
type wrappedListener struct {
	net.Listener
	wrap     func(net.Conn) net.Conn
	failures []error
}

func (l *wrappedListener) Accept() (net.Conn, error) {
	if len(l.failures) > 0 {
		err := l.failures[0]
		l.failures = l.failures[1:]
		return nil, err
	}
	nc, err := l.Listener.Accept()
	if err == nil && l.wrap != nil {
		nc = l.wrap(nc)
	}
	return nc, err
}

// plainConn has no way to its descriptor.
type plainConn struct{ net.Conn }

// proxied knows the client's address from somebody else.
type proxied struct {
	*net.TCPConn
	addr net.TCPAddr
}

func (c proxied) RemoteAddr() net.Addr { return &c.addr }

func (c proxied) Read([]byte) (int, error) { panic("not the loop's way to read") }

// fileConn has File alone.
type fileConn struct {
	net.Conn
	file func() (*os.File, error)
}

func (c fileConn) File() (*os.File, error) { return c.file() }

// inherited is a listener as systemd hands it over.
func inherited(t *testing.T) net.Listener {
	file, err := harness.Listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close()
	l, err := net.FileListener(file)
	require.NoError(t, err)
	return l
}

func TestServe(t *testing.T) {
	tests := map[string]struct {
		listener func(t *testing.T) net.Listener
		remote   string // of the client; empty is the client's own address
	}{
		"tcp":      {listener: func(t *testing.T) net.Listener { return harness.Listen(t, "tcp", "127.0.0.1:0") }},
		"tcp6":     {listener: func(t *testing.T) net.Listener { return harness.Listen(t, "tcp6", "[::1]:0") }},
		"systemd":  {listener: inherited},
		"wildcard": {listener: func(t *testing.T) net.Listener { return harness.Listen(t, "tcp", ":0") }},
		"wrapped": {
			listener: func(t *testing.T) net.Listener {
				return &wrappedListener{Listener: harness.Listen(t, "tcp", "127.0.0.1:0"), wrap: func(nc net.Conn) net.Conn {
					return proxied{nc.(*net.TCPConn), net.TCPAddr{IP: net.IPv6loopback, Port: 4711}}
				}}
			},
			remote: "[::1]:4711",
		},
		"file": {listener: func(t *testing.T) net.Listener {
			return &wrappedListener{Listener: harness.Listen(t, "tcp", "127.0.0.1:0"), wrap: func(nc net.Conn) net.Conn {
				return fileConn{nc, nc.(*net.TCPConn).File}
			}}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, withoutListenAddr, ws.WithAllowAllOrigins())
			harness.RegisterGreetings(t, s.Manager)
			l := tt.listener(t)
			result := s.ServeOn(l)
			for range 3 {
				c := s.DialOn("tcp", l.Addr().String())
				c.Upgrade()
				c.Send(harness.Request("only", "1", ""))
				c.ExpectReply("1", 200, "")
				want := tt.remote
				if want == "" {
					want = c.LocalAddr().String()
				}
				s.RangeClients(func(sc *ws.Client) bool {
					assert.Equal(t, want, sc.RemoteAddr())
					return true
				})
				c.Abort()
				harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "the client stays")
			}
			s.Stop()
			require.NoError(t, harness.Receive(t, result, "Serve goes on"))
			_, err := l.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

func TestServeOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	s := harness.Start(t, withoutListenAddr)
	result := s.ServeOn(harness.Listen(t, "unix", path))
	expectServed(s, path)
	s.Stop()
	require.NoError(t, harness.Receive(t, result, "Serve goes on"))
	require.NoFileExists(t, path, "a listener of package net removes its path")
}

func TestServeTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := harness.StartTLS(t, nil, ws.WithListenAddr(""))
			harness.RegisterGreetings(t, s.Manager)
			c := s.DialTCP(harness.Served).Over(s.ClientConfig(version))
			c.Upgrade()
			c.Send(harness.Request("only", "1", ""))
			c.ExpectReply("1", 200, "")
			_ = c.Close()
		})
	}
}

// Several calls of Serve run at once, beside ListenAddr and HandleUpgrade.
func TestServeBesideOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	for name, addr := range map[string]string{"tcp": "tcp://127.0.0.1:0", "unix": "unix://" + path, "none": ""} {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, ws.WithListenAddr(addr))
			harness.RegisterGreetings(t, s.Manager)
			var results []<-chan error
			var clients []*harness.Client
			for range 3 {
				l := harness.Listen(t, "tcp", "127.0.0.1:0")
				results = append(results, s.ServeOn(l))
				clients = append(clients, s.DialOn("tcp", l.Addr().String()))
			}
			clients = append(clients, s.DialOn("tcp", s.AddrOf(harness.NetHTTP)))
			if addr != "" {
				clients = append(clients, s.DialOn(s.Addr().Network(), s.Addr().String()))
			}
			for _, c := range clients {
				c.Upgrade()
			}
			require.EqualValues(t, len(clients), s.GetClientCount())
			for _, c := range clients {
				c.Send(harness.Request("only", "1", ""))
				c.ExpectReply("1", 200, "")
				_ = c.Close()
			}
			s.Stop()
			for _, result := range results {
				require.NoError(t, harness.Receive(t, result, "Serve goes on"))
			}
		})
	}
}

// Who connects before Run waits for it.
func TestServeBeforeRun(t *testing.T) {
	m := harness.NewManager(t, withoutListenAddr)
	s := &harness.Server{Manager: m, T: t}
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	result := s.ServeOn(l)
	c := s.DialOn("tcp", l.Addr().String())
	c.WriteRaw(harness.UpgradeRequest("/ws", ""))
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }()
	resp, _ := c.ReadResponse()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	_ = c.Close()
	harness.Shutdown(t, m)
	require.NoError(t, harness.Receive(t, result, "Serve goes on"))
	require.NoError(t, harness.Receive(t, ran, "Run goes on"))
}

func TestServeEndsWithoutRun(t *testing.T) {
	m := harness.NewManager(t, withoutListenAddr)
	s := &harness.Server{Manager: m, T: t}
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	result := s.ServeOn(l)
	harness.Shutdown(t, m)
	require.ErrorIs(t, harness.Receive(t, result, "Serve waits for Run"), ws.ErrManagerStopped)
	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	l = harness.Listen(t, "tcp", "127.0.0.1:0")
	require.ErrorIs(t, m.Serve(l), ws.ErrManagerStopped, "after Shutdown")
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// A start that fails ends Serve, too.
func TestServeEndsWithAFailedRun(t *testing.T) {
	taken := harness.Listen(t, "tcp", "127.0.0.1:0")
	m := harness.NewManager(t, ws.WithListenAddr("tcp://"+taken.Addr().String()))
	s := &harness.Server{Manager: m, T: t}
	result := s.ServeOn(harness.Listen(t, "tcp", "127.0.0.1:0"))
	require.ErrorIs(t, m.Run(), unix.EADDRINUSE)
	require.ErrorIs(t, harness.Receive(t, result, "Serve waits for Run"), ws.ErrManagerStopped)
}

func TestServeRefusesListeners(t *testing.T) {
	secure := func(l net.Listener) net.Listener { return tls.NewListener(l, &tls.Config{}) }
	tests := map[string]struct {
		listener func(net.Listener) net.Listener
		connect  bool // it shows with the first connection
		want     string
	}{
		"tls": {secure, false, "WithTLSConfig"},
		"wrapped tls": {
			func(l net.Listener) net.Listener { return &wrappedListener{Listener: secure(l)} }, true,
			"WithTLSConfig",
		},
		"no descriptor": {func(l net.Listener) net.Listener {
			return &wrappedListener{Listener: l, wrap: func(nc net.Conn) net.Conn { return plainConn{nc} }}
		}, true, "connection is a integration_test.plainConn, which has neither SyscallConn nor File"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, withoutListenAddr)
			l := harness.Listen(t, "tcp", "127.0.0.1:0")
			result := s.ServeOn(tt.listener(l))
			if tt.connect {
				s.DialOn("tcp", l.Addr().String())
			}
			err := harness.Receive(t, result, "Serve goes on")
			require.ErrorContains(t, err, "ws: serve "+l.Addr().String()+": ")
			require.ErrorContains(t, err, tt.want)
			_, err = l.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
	t.Run("memory", func(t *testing.T) {
		m := harness.NewManager(t, withoutListenAddr, func(c *ws.Config) { c.Simnet = ws.NewSimnet() })
		require.Error(t, m.Serve(harness.Listen(t, "tcp", "127.0.0.1:0")))
	})
}

// The application may close its listener: the connections stay.
func TestServeOfAClosedListener(t *testing.T) {
	s := harness.Start(t, withoutListenAddr)
	harness.RegisterGreetings(t, s.Manager)
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	result := s.ServeOn(l)
	c := s.DialOn("tcp", l.Addr().String())
	c.Upgrade()
	require.NoError(t, l.Close())
	require.ErrorIs(t, harness.Receive(t, result, "Serve goes on"), net.ErrClosed)
	c.Send(harness.Request("only", "1", ""))
	c.ExpectReply("1", 200, "")
	_ = c.Close()
}

// Errors of Accept that pass do not end Serve.
func TestServeAfterAcceptErrors(t *testing.T) {
	logged := new(logRecorder)
	s := harness.Start(t, withoutListenAddr, ws.WithLoopStallThreshold(0), // whose warnings would count
		func(c *ws.Config) { c.Logger = slog.New(logged) })
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	result := s.ServeOn(&wrappedListener{Listener: l, failures: []error{
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.EMFILE)},
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.ENFILE)},
		&net.DNSError{IsTemporary: true},
	}})
	c := s.DialOn("tcp", l.Addr().String())
	c.Upgrade()
	_ = c.Close()
	s.Stop()
	require.NoError(t, harness.Receive(t, result, "Serve goes on"))
	assert.EqualValues(t, 1, s.Stats().Accept.Descriptors.Times)
	assert.EqualValues(t, 2, logged.warnings.Load(), "one for each kind")
}

// logRecorder counts warnings.
type logRecorder struct{ warnings atomic.Int64 }

func (*logRecorder) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l *logRecorder) Handle(context.Context, slog.Record) error { l.warnings.Add(1); return nil }

func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logRecorder) WithGroup(string) slog.Handler { return l }

// Shutdown ends a Serve that waits for a turn, and answers its client.
func TestShutdownWhileServeWaits(t *testing.T) {
	s := harness.Start(t, withoutListenAddr, ws.WithAdmission(ws.Admission{PerSecond: 1e-6, Burst: 1}))
	l := harness.Listen(t, "tcp", "127.0.0.1:0")
	result := s.ServeOn(l)
	first := s.DialOn("tcp", l.Addr().String())
	first.Upgrade()
	_ = first.Close()
	late := s.DialOn("tcp", l.Addr().String())
	late.WriteRaw(harness.UpgradeRequest("/ws", ""))
	harness.Eventually(t, func() bool { return s.Stats().Accept.Pace.Resting }, "nobody waits")
	s.Stop()
	require.NoError(t, harness.Receive(t, result, "Serve goes on"))
	resp, _ := late.ReadResponse()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	late.ExpectEOF()
}

// stubborn is a listener that Close does not end.
type stubborn struct{ ended chan struct{} }

func (l stubborn) Accept() (net.Conn, error) { <-l.ended; return nil, errors.New("at last") }

func (stubborn) Close() error { return nil }

func (stubborn) Addr() net.Addr { return &net.TCPAddr{} }

func TestShutdownDoesNotWaitForAListener(t *testing.T) {
	s := harness.Start(t, withoutListenAddr)
	l := stubborn{make(chan struct{})}
	result := s.ServeOn(l)
	s.Stop()
	close(l.ended)
	err := harness.Receive(t, result, "Serve goes on")
	if err != nil { // Shutdown came before it
		require.ErrorIs(t, err, ws.ErrManagerStopped)
	}
}

// A listener that another process shares is of use to that afterwards, and so is
// its backlog.
func TestServeLeavesASharedSocketAlone(t *testing.T) {
	shared := harness.Listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener)
	file, err := shared.File()
	require.NoError(t, err)
	l, err := net.FileListener(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	s := harness.Start(t, withoutListenAddr)
	result := s.ServeOn(l)
	c := s.DialOn("tcp", l.Addr().String())
	c.Upgrade()
	_ = c.Close()
	s.Stop()
	require.NoError(t, harness.Receive(t, result, "Serve goes on"))
	next := s.DialOn("tcp", shared.Addr().String())
	nc, err := shared.Accept()
	require.NoError(t, err)
	_, err = nc.Write([]byte("next"))
	require.NoError(t, err)
	b := make([]byte, 4)
	_, err = next.Read(b)
	require.NoError(t, err)
	require.Equal(t, "next", string(b))
	_ = nc.Close()
}

func TestServeTooManyConnections(t *testing.T) {
	s := harness.Start(t, withoutListenAddr, ws.WithMaxConnections(1))
	c := s.DialTCP(harness.Served)
	c.Upgrade()
	more := s.DialTCP(harness.Served)
	more.WriteRaw(harness.UpgradeRequest("/ws", ""))
	resp, _ := more.ReadResponse()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	_ = c.Close()
}
