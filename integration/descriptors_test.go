//go:build linux

package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/testcert"
)

// scarceServer is a server process with few descriptors.
type scarceServer struct {
	t            *testing.T
	native, http string
	secure       bool // TLS on the native path
	log          *scarceLog
}

// scarceLog keeps the log of the process.
type scarceLog struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *scarceLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *scarceLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// scarceChild is the environment variable that makes a test the server: limit of
// descriptors, address, and whether it speaks TLS.
const scarceChild = "WS_TEST_SCARCE_DESCRIPTORS"

// startScarce starts this test once more, as a server with a limit of descriptors
// that listens on addr. In that process it does not return.
func startScarce(t *testing.T, limit int, addr string, secure bool) *scarceServer {
	t.Helper()
	s := &scarceServer{t: t, secure: secure, log: &scarceLog{}}
	_, out := startChild(t, "TestScarceServer", s.log, fmt.Sprintf("%s=%d %t %s", scarceChild, limit, secure, addr))
	_, err := fmt.Fscan(out, &s.native, &s.http)
	require.NoError(t, err, "%s", s.log)
	return s
}

// startChild runs a test in a process of its own, until the end of its input at the end of
// this test. It returns its input and its output.
func startChild(t *testing.T, test string, log io.Writer, env ...string) (in io.Writer, out *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = log
	to, err := cmd.StdinPipe()
	require.NoError(t, err)
	from, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = to.Close()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			assert.NoError(t, err, "%s", log)
		case <-time.After(harness.Patience):
			_ = cmd.Process.Kill()
			t.Errorf("the server does not end\n%s", log)
		}
	})
	return to, bufio.NewReader(from)
}

// TestScarceServer is the server process.
func TestScarceServer(t *testing.T) {
	setting := os.Getenv(scarceChild)
	if setting == "" {
		t.Skip("is started by other tests")
	}
	var limit uint64
	var secure bool
	var addr string
	_, err := fmt.Sscan(setting, &limit, &secure, &addr)
	require.NoError(t, err)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}))
	var l net.Listener
	if served, ok := strings.CutPrefix(addr, "serve://"); ok {
		addr = ""
		l, err = net.Listen("tcp", served)
		require.NoError(t, err)
	}
	opts := []ws.Option{
		ws.WithListenAddr(addr), ws.WithLoops(2), ws.WithAllowAllOrigins(), ws.WithHandlerMode(ws.Inline),
		ws.WithHeartbeatTimeout(time.Hour), ws.WithTLSHandshakes(1000),
		func(c *ws.Config) { c.CloseTimeout, c.HandshakeTimeout = time.Second, time.Hour },
		func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)) },
	}
	if secure {
		certificate, _ := testcert.New("localhost")
		opts = append(opts, ws.WithTLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate}}))
	}
	m, err := ws.NewManager(opts...)
	require.NoError(t, err)
	m.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	web, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = m.HandleUpgrade(w, r) }),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func() { _ = server.Serve(web) }() // ends with Close
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }()
	native := m.Addr()
	if l != nil {
		native = l.Addr()
		result := make(chan error, 1)
		go func() { result <- m.Serve(l) }()
		defer func() { require.NoError(t, <-result) }()
	}
	fmt.Fprintln(os.Stdout, native, web.Addr())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case err := <-ran:
		t.Fatalf("Run returned %v", err)
	case <-asked:
	}
	require.NoError(t, server.Close())
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	require.NoError(t, m.Shutdown(ctx))
	require.NoError(t, <-ran)
}

func (s *scarceServer) dial(addr string, secure bool) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	d := gobwas.Dialer{Timeout: 4 * harness.Patience, NetDial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil && secure {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		return nc, err
	}}
	nc, _, _, err := d.Dial(s.t.Context(), "ws://localhost/ws")
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { _ = nc.Close() })
	return nc, nc.SetDeadline(time.Now().Add(10 * harness.Patience))
}

// clients connects n clients, half of them through net/http.
func (s *scarceServer) clients(n int) (conns []net.Conn) {
	s.t.Helper()
	for i := range n {
		addr, secure := s.native, s.secure
		if i%2 == 1 {
			addr, secure = s.http, false
		}
		nc, err := s.dial(addr, secure)
		require.NoError(s.t, err)
		conns = append(conns, nc)
	}
	return conns
}

// echo asserts that all clients are served.
func (s *scarceServer) echo(conns []net.Conn) {
	s.t.Helper()
	for i, nc := range conns {
		require.NoError(s.t, wsutil.WriteClientText(nc, []byte("still there?")), "client %d\n%s", i, s.log)
		got, err := wsutil.ReadServerText(nc)
		require.NoError(s.t, err, "client %d\n%s", i, s.log)
		require.Equal(s.t, "still there?", string(got))
	}
}

// onScarceServers runs test with each kind of listener.
func onScarceServers(t *testing.T, limit int, test func(t *testing.T, s *scarceServer)) {
	for _, secure := range []bool{false, true} {
		for network, addr := range map[string]string{
			"tcp": "tcp://127.0.0.1:0", "unix": "unix://" + filepath.Join(t.TempDir(), "ws.sock"),
			"Serve": "serve://127.0.0.1:0",
		} {
			t.Run(fmt.Sprintf("%s, TLS %t", network, secure), func(t *testing.T) {
				test(t, startScarce(t, limit, addr, secure))
			})
		}
	}
}

// TestIdleConnectionsToNetHTTPDoNotEndTheLoops has others use up the descriptors
// of the process, while clients come to the event loops' own listener.
func TestIdleConnectionsToNetHTTPDoNotEndTheLoops(t *testing.T) {
	onScarceServers(t, 300, func(t *testing.T, s *scarceServer) {
		healthy := s.clients(20)
		var late sync.WaitGroup
		lateConns := make(chan net.Conn, 4096)
		come := func() {
			late.Go(func() {
				nc, err := s.dial(s.native, s.secure)
				if assert.NoError(t, err, "%s", s.log) {
					lateConns <- nc
				}
			})
		}
		var idle []net.Conn
		for i := range 300 {
			nc, err := net.Dial("tcp", s.http)
			require.NoError(t, err)
			idle = append(idle, nc)
			if i%20 == 19 {
				come()
			}
		}
		episodes := func() int { return strings.Count(s.log.String(), "descriptors run out") }
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for i := range 3000 { // a minute
			if episodes() > 0 {
				break
			}
			if i < 50 || i%50 == 0 { // no more clients than there are descriptors when the idle ones have gone
				come() // net/http may take a while for the idle ones
			}
			<-pace.C
		}
		s.echo(healthy)
		for _, nc := range idle {
			_ = nc.Close()
		}
		late.Wait()
		close(lateConns)
		for nc := range lateConns {
			s.echo([]net.Conn{nc})
			_ = nc.Close()
		}
		s.echo(healthy)
		require.Equal(t, 1, episodes(), "%s", s.log)
	})
}

// TestMoreClientsThanDescriptors has more clients than descriptors: those that
// come late wait, and are let in when others leave.
func TestMoreClientsThanDescriptors(t *testing.T) {
	onScarceServers(t, 400, func(t *testing.T, s *scarceServer) {
		const n = 600
		healthy := s.clients(20)
		in := make(chan net.Conn, n)
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				nc, err := s.dial(s.native, s.secure)
				if assert.NoError(t, err) {
					in <- nc
				}
			})
		}
		for got := range n {
			nc := harness.Receive(t, in, "after %d of %d\n%s", got, n, s.log)
			s.echo([]net.Conn{nc})
			if got == 200 {
				s.echo(healthy)
			}
			if got >= 200 {
				_ = nc.Close()
			}
		}
		all.Wait()
		s.echo(healthy)
	})
}
