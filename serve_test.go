package ws_test

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
	"github.com/qi-realtime/ws/engine"
)

func withoutListenAddr(c *ws.Config) { c.ListenAddr = "" }

func listen(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve calls Serve, and returns what that returns.
func (s *server) serve(l net.Listener) <-chan error {
	result := make(chan error, 1)
	go func() { result <- s.Serve(l) }()
	return result
}

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
	file, err := listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener).File()
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
		"tcp":      {listener: func(t *testing.T) net.Listener { return listen(t, "tcp", "127.0.0.1:0") }},
		"tcp6":     {listener: func(t *testing.T) net.Listener { return listen(t, "tcp6", "[::1]:0") }},
		"systemd":  {listener: inherited},
		"wildcard": {listener: func(t *testing.T) net.Listener { return listen(t, "tcp", ":0") }},
		"wrapped": {
			listener: func(t *testing.T) net.Listener {
				return &wrappedListener{Listener: listen(t, "tcp", "127.0.0.1:0"), wrap: func(nc net.Conn) net.Conn {
					return proxied{nc.(*net.TCPConn), net.TCPAddr{IP: net.IPv6loopback, Port: 4711}}
				}}
			},
			remote: "[::1]:4711",
		},
		"file": {listener: func(t *testing.T) net.Listener {
			return &wrappedListener{Listener: listen(t, "tcp", "127.0.0.1:0"), wrap: func(nc net.Conn) net.Conn {
				return fileConn{nc, nc.(*net.TCPConn).File}
			}}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, withoutListenAddr, ws.WithAllowAllOrigins())
			registerGreetings(t, s.Manager)
			l := tt.listener(t)
			result := s.serve(l)
			for range 3 {
				c := s.dialOn("tcp", l.Addr().String())
				c.upgrade()
				c.send(request("only", "1", ""))
				c.expectReply("1", 200, "")
				want := tt.remote
				if want == "" {
					want = c.LocalAddr().String()
				}
				s.RangeClients(func(sc *ws.Client) bool {
					assert.Equal(t, want, sc.RemoteAddr())
					return true
				})
				c.abort()
				eventually(t, func() bool { return s.GetClientCount() == 0 }, "the client stays")
			}
			s.shutdown()
			require.NoError(t, receive(t, result, "Serve goes on"))
			_, err := l.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

func TestServeOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	s := start(t, withoutListenAddr)
	result := s.serve(listen(t, "unix", path))
	s.expectServed(path)
	s.shutdown()
	require.NoError(t, receive(t, result, "Serve goes on"))
	require.NoFileExists(t, path, "a listener of package net removes its path")
}

func TestServeTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := startTLS(t, nil, ws.WithListenAddr(""))
			registerGreetings(t, s.Manager)
			c := s.dialTCP(served).over(s.clientTLS(version))
			c.upgrade()
			c.send(request("only", "1", ""))
			c.expectReply("1", 200, "")
			_ = c.Close()
		})
	}
}

// Several calls of Serve run at once, beside ListenAddr and HandleUpgrade.
func TestServeBesideOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ws.sock")
	for name, addr := range map[string]string{"tcp": "tcp://127.0.0.1:0", "unix": "unix://" + path, "none": ""} {
		t.Run(name, func(t *testing.T) {
			s := start(t, ws.WithListenAddr(addr))
			registerGreetings(t, s.Manager)
			var results []<-chan error
			var clients []*client
			for range 3 {
				l := listen(t, "tcp", "127.0.0.1:0")
				results = append(results, s.serve(l))
				clients = append(clients, s.dialOn("tcp", l.Addr().String()))
			}
			clients = append(clients, s.dialOn("tcp", s.addr(overNet)))
			if addr != "" {
				clients = append(clients, s.dialOn(s.Addr().Network(), s.Addr().String()))
			}
			for _, c := range clients {
				c.upgrade()
			}
			require.EqualValues(t, len(clients), s.GetClientCount())
			for _, c := range clients {
				c.send(request("only", "1", ""))
				c.expectReply("1", 200, "")
				_ = c.Close()
			}
			s.shutdown()
			for _, result := range results {
				require.NoError(t, receive(t, result, "Serve goes on"))
			}
		})
	}
}

// Who connects before Run waits for it.
func TestServeBeforeRun(t *testing.T) {
	m := newManager(t, withoutListenAddr)
	s := &server{Manager: m, t: t}
	l := listen(t, "tcp", "127.0.0.1:0")
	result := s.serve(l)
	c := s.dialOn("tcp", l.Addr().String())
	c.raw(upgradeRequest("/ws", ""))
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }()
	resp, _ := c.response()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	_ = c.Close()
	shutdown(t, m)
	require.NoError(t, receive(t, result, "Serve goes on"))
	require.NoError(t, receive(t, ran, "Run goes on"))
}

func TestServeEndsWithoutRun(t *testing.T) {
	m := newManager(t, withoutListenAddr)
	s := &server{Manager: m, t: t}
	l := listen(t, "tcp", "127.0.0.1:0")
	result := s.serve(l)
	shutdown(t, m)
	require.ErrorIs(t, receive(t, result, "Serve waits for Run"), ws.ErrManagerStopped)
	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	l = listen(t, "tcp", "127.0.0.1:0")
	require.ErrorIs(t, m.Serve(l), ws.ErrManagerStopped, "after Shutdown")
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// A start that fails ends Serve, too.
func TestServeEndsWithAFailedRun(t *testing.T) {
	taken := listen(t, "tcp", "127.0.0.1:0")
	m := newManager(t, ws.WithListenAddr("tcp://"+taken.Addr().String()))
	s := &server{Manager: m, t: t}
	result := s.serve(listen(t, "tcp", "127.0.0.1:0"))
	require.ErrorIs(t, m.Run(), unix.EADDRINUSE)
	require.ErrorIs(t, receive(t, result, "Serve waits for Run"), ws.ErrManagerStopped)
}

func TestServeRefusesListeners(t *testing.T) {
	secure := func(l net.Listener) net.Listener { return tls.NewListener(l, &tls.Config{}) }
	tests := map[string]struct {
		listener func(net.Listener) net.Listener
		connect  bool // it shows with the first connection
		want     string
	}{
		"tls":         {secure, false, "WithTLSConfig"},
		"wrapped tls": {func(l net.Listener) net.Listener { return &wrappedListener{Listener: secure(l)} }, true, "WithTLSConfig"},
		"no descriptor": {func(l net.Listener) net.Listener {
			return &wrappedListener{Listener: l, wrap: func(nc net.Conn) net.Conn { return plainConn{nc} }}
		}, true, "connection is a ws_test.plainConn, which has neither SyscallConn nor File"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, withoutListenAddr)
			l := listen(t, "tcp", "127.0.0.1:0")
			result := s.serve(tt.listener(l))
			if tt.connect {
				s.dialOn("tcp", l.Addr().String())
			}
			err := receive(t, result, "Serve goes on")
			require.ErrorContains(t, err, "ws: serve "+l.Addr().String()+": ")
			require.ErrorContains(t, err, tt.want)
			_, err = l.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
	t.Run("memory", func(t *testing.T) {
		m := newManager(t, withoutListenAddr, func(c *ws.Config) { c.Memory = engine.NewMemory() })
		require.Error(t, m.Serve(listen(t, "tcp", "127.0.0.1:0")))
	})
}

// The application may close its listener: the connections stay.
func TestServeOfAClosedListener(t *testing.T) {
	s := start(t, withoutListenAddr)
	registerGreetings(t, s.Manager)
	l := listen(t, "tcp", "127.0.0.1:0")
	result := s.serve(l)
	c := s.dialOn("tcp", l.Addr().String())
	c.upgrade()
	require.NoError(t, l.Close())
	require.ErrorIs(t, receive(t, result, "Serve goes on"), net.ErrClosed)
	c.send(request("only", "1", ""))
	c.expectReply("1", 200, "")
	_ = c.Close()
}

// Errors of Accept that pass do not end Serve.
func TestServeAfterAcceptErrors(t *testing.T) {
	logged := new(logRecorder)
	s := start(t, withoutListenAddr, func(c *ws.Config) { c.Logger = slog.New(logged) })
	l := listen(t, "tcp", "127.0.0.1:0")
	result := s.serve(&wrappedListener{Listener: l, failures: []error{
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.EMFILE)},
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.ENFILE)},
		&net.DNSError{IsTemporary: true},
	}})
	c := s.dialOn("tcp", l.Addr().String())
	c.upgrade()
	_ = c.Close()
	s.shutdown()
	require.NoError(t, receive(t, result, "Serve goes on"))
	assert.EqualValues(t, 1, s.Stats().Accept.Descriptors.Times)
	assert.EqualValues(t, 2, logged.warnings.Load(), "one for each kind")
}

// logRecorder counts warnings.
type logRecorder struct{ warnings atomic.Int64 }

func (*logRecorder) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l *logRecorder) Handle(context.Context, slog.Record) error { l.warnings.Add(1); return nil }

func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logRecorder) WithGroup(string) slog.Handler { return l }

// Shutdown ends a Serve that waits for a turn, and tells its client.
func TestShutdownWhileServeWaits(t *testing.T) {
	s := start(t, withoutListenAddr, ws.WithAdmission(ws.Admission{PerSecond: 1e-6, Burst: 1}))
	l := listen(t, "tcp", "127.0.0.1:0")
	result := s.serve(l)
	first := s.dialOn("tcp", l.Addr().String())
	first.upgrade()
	_ = first.Close()
	late := s.dialOn("tcp", l.Addr().String())
	late.raw(upgradeRequest("/ws", ""))
	eventually(t, func() bool { return s.Stats().Accept.Pace.Resting }, "nobody waits")
	s.shutdown()
	require.NoError(t, receive(t, result, "Serve goes on"))
	resp, _ := late.response()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	late.expectEOF()
}

// stubborn is a listener that Close does not end.
type stubborn struct{ ended chan struct{} }

func (l stubborn) Accept() (net.Conn, error) { <-l.ended; return nil, errors.New("at last") }

func (stubborn) Close() error { return nil }

func (stubborn) Addr() net.Addr { return &net.TCPAddr{} }

func TestShutdownDoesNotWaitForAListener(t *testing.T) {
	s := start(t, withoutListenAddr)
	l := stubborn{make(chan struct{})}
	result := s.serve(l)
	s.shutdown()
	close(l.ended)
	err := receive(t, result, "Serve goes on")
	if err != nil { // Shutdown came before it
		require.ErrorIs(t, err, ws.ErrManagerStopped)
	}
}

// A listener that another process shares is of use to that afterwards, and so is
// its backlog.
func TestServeLeavesASharedSocketAlone(t *testing.T) {
	shared := listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener)
	file, err := shared.File()
	require.NoError(t, err)
	l, err := net.FileListener(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	s := start(t, withoutListenAddr)
	result := s.serve(l)
	c := s.dialOn("tcp", l.Addr().String())
	c.upgrade()
	_ = c.Close()
	s.shutdown()
	require.NoError(t, receive(t, result, "Serve goes on"))
	next := s.dialOn("tcp", shared.Addr().String())
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
	s := start(t, withoutListenAddr, ws.WithMaxConnections(1))
	c := s.dialTCP(served)
	c.upgrade()
	more := s.dialTCP(served)
	more.raw(upgradeRequest("/ws", ""))
	resp, _ := more.response()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	_ = c.Close()
}
