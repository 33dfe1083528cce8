// Package interop_test holds the server against its real neighbors: HAProxy and nginx before it,
// and the routers and middlewares of net/http around HandleUpgrade.
package proxies_test

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

const (
	// patience is the longest time that a test waits for one condition.
	patience = time.Minute

	mib  = 1 << 20
	room = "room" // of all clients that join
)

// TestMain lets tests that wait for a proxy's timeout wait together, whatever the number of
// processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// text is the data of most requests.
type text struct{ Text string }

// request is the data of the answer to "whoami": the server's view of the upgrade request.
type request struct {
	IP        string // of RemoteAddr
	Addr      string // RemoteAddr in Authenticate
	Forwarded string // all lines of X-Forwarded-For
	Reloaded  string // X-Reloaded, which only a proxy that was reloaded adds
	TLS       bool
}

// backend is a running server on one path. Safe for concurrent use.
type backend struct {
	*ws.Manager
	addr  string              // host:port
	web   *httptest.Server    // nil on the native path
	ended chan *ws.CloseError // the ends of its connections
}

// onBothPaths runs test once for each path, in parallel.
func onBothPaths(t *testing.T, test func(t *testing.T, start startFunc)) {
	t.Helper()
	for name, start := range map[string]startFunc{"native": startNative, "net/http": startHTTP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

// startFunc starts a backend that runs until the end of the test.
type startFunc func(t *testing.T, opts ...ws.Option) *backend

// startNative starts a backend whose event loops accept.
func startNative(t *testing.T, opts ...ws.Option) *backend {
	t.Helper()
	b := newBackend(t, append(opts, ws.WithListenAddr("tcp://127.0.0.1:0"))...)
	b.addr = b.Addr().String()
	return b
}

// startHTTP starts a backend behind net/http.
func startHTTP(t *testing.T, opts ...ws.Option) *backend {
	t.Helper()
	b := newBackend(t, opts...)
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { _ = b.HandleUpgrade(w, r) })
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	b.serve(t, mux)
	return b
}

// serve serves h until the backend stops.
func (b *backend) serve(t *testing.T, h http.Handler) {
	t.Helper()
	b.web = httptest.NewUnstartedServer(h)
	b.web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	b.web.Start()
	b.addr = b.web.Listener.Addr().String()
}

// newBackend runs a manager until the end of the test.
func newBackend(t *testing.T, opts ...ws.Option) *backend {
	t.Helper()
	m, err := ws.NewManager(append([]ws.Option{
		ws.WithLoops(2),
		ws.WithMessageSizeLimit(2 * mib),
		ws.WithQueueBytes(8 * mib),
		ws.WithAuthenticate(authenticate),
	}, append(behindProxy(), opts...)...)...)
	require.NoError(t, err)
	b := &backend{Manager: m, ended: make(chan *ws.CloseError, 4096)}
	b.register(t)
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }() // until stop
	t.Cleanup(func() {
		b.stop(t)
		require.NoError(t, receive(t, ran))
	})
	return b
}

// stop stops accepting and shuts the manager down.
func (b *backend) stop(t *testing.T) {
	t.Helper()
	if b.web != nil {
		b.web.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, b.Shutdown(ctx))
}

// authenticate keeps the request for "whoami".
func authenticate(r *http.Request) ([]ws.ClientOption, error) {
	return []ws.ClientOption{ws.WithMetadata("request", request{
		Addr:      r.RemoteAddr,
		Forwarded: strings.Join(r.Header.Values("X-Forwarded-For"), ", "),
		Reloaded:  strings.Clone(r.Header.Get("X-Reloaded")),
		TLS:       r.TLS != nil,
	})}, nil
}

// register registers the handlers.
func (b *backend) register(t *testing.T) {
	t.Helper()
	b.Subscribe(ws.EventClientDisconnected, func(e ws.Event) { b.ended <- e.Data.(*ws.CloseError) })
	require.NoError(t, ws.Handle(b.Manager, "echo", func(_ *ws.Client, req *text) (*text, error) {
		return req, nil
	}))
	require.NoError(t, ws.Handle0(b.Manager, "join", func(c *ws.Client, _ *text) error {
		return c.JoinRoom(room)
	}))
	require.NoError(t, ws.Handle0(b.Manager, "publish", func(c *ws.Client, req *text) error {
		return b.BroadcastToRoom(room, []byte(req.Text), c)
	}))
	require.NoError(t, ws.Handle0(b.Manager, "close", func(c *ws.Client, req *text) error {
		c.CloseWithCode(4002, req.Text)
		return nil
	}))
	require.NoError(t, ws.HandleOnly(b.Manager, "whoami", func(c *ws.Client) (*request, error) {
		kept, _ := c.GetMetadata("request")
		r := kept.(request)
		ip, _, err := net.SplitHostPort(c.RemoteAddr())
		r.IP = ip
		return &r, err
	}))
}

// expectEnd waits for the next end of a connection.
func (b *backend) expectEnd(t *testing.T, code int, reason string, remote bool) {
	t.Helper()
	end := receive(t, b.ended)
	assert.Equal(t, code, end.Code)
	assert.Equal(t, reason, end.Reason)
	assert.Equal(t, remote, end.Remote)
}

// receive returns the next value of ch.
func receive[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		require.Fail(t, "nothing came")
	}
	return v
}

// eventually waits until condition holds.
func eventually(t *testing.T, condition func() bool, msg string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); <-time.After(10 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), msg)
	}
}

// converse holds a whole conversation with b: dial connects to it, by whatever way.
func (b *backend) converse(t *testing.T, dial func(t *testing.T) *client) {
	t.Helper()
	one, other := dial(t), dial(t)
	b.talk(t, one, other)

	one.close(4001, "done")
	b.expectEnd(t, 4001, "done", true)

	other.send("close", text{"enough"})
	other.expectClose(4002, "enough")
	b.expectEnd(t, 4002, "enough", false)

	last := dial(t)
	last.echo("hello")
	go func() { _ = b.Shutdown(context.Background()) }() // the test's end waits for it
	last.expectClose(1001, "server is shutting down")
	b.expectEnd(t, 1001, "server is shutting down", false)
}

// talk exchanges messages of all sizes up to 1 MiB, both ways and through a room.
func (b *backend) talk(t *testing.T, one, other *client) {
	t.Helper()
	for _, c := range []*client{one, other} {
		c.request("join", text{}, nil)
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, mib} {
			c.echo(strings.Repeat("x", size))
		}
		for range 100 { // pipelined
			c.send("echo", text{"again"})
		}
		for range 100 {
			assert.Contains(t, c.read(), "again")
		}
	}
	for _, size := range []int{1, 1000, mib} {
		message := strings.Repeat("y", size)
		one.request("publish", text{message}, nil)
		assert.True(t, message == other.read(), "the broadcast of %d bytes is another one", size)
	}
	require.NoError(t, b.BroadcastPrepared(room, ws.Prepare(ws.OpBinary, make([]byte, mib)), nil))
	assert.Len(t, one.read(), mib)
	assert.Len(t, other.read(), mib)
}
