package harness

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// Server is a running manager that can be reached on both ways.
type Server struct {
	*ws.Manager
	T        testing.TB
	Web      *httptest.Server
	Upgrades chan error // the results of HandleUpgrade
	Ran      chan error // the result of Run
	served   net.Listener
	stop     sync.Once
}

// Options returns the options of every test's manager; later ones change them.
func Options() []ws.Option {
	return []ws.Option{func(c *ws.Config) {
		c.ListenAddr = "tcp://127.0.0.1:0"
		c.Loops = 2
		c.HeartbeatInterval = 1000 * time.Hour // so that no ping comes between what a test expects
		c.HeartbeatTimeout = 2000 * time.Hour
		c.LoopStallThreshold = 0       // so that a pause of a busy machine is not logged
		c.HighWaterAge = 0             // so that only the messages of a test make a client slow
		c.CloseTimeout = Patience      // for clients that read much before the close frame
		c.WriteTimeout = 10 * Patience // for clients that stall while a busy machine does other things
		c.Logger = slog.New(slog.DiscardHandler)
	}}
}

// NewManager returns a manager that is shut down when the test ends.
func NewManager(t testing.TB, opts ...ws.Option) *ws.Manager {
	t.Helper()
	m, err := ws.NewManager(append(Options(), opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { Shutdown(t, m) })
	return m
}

// Shutdown shuts m down; the test fails if that takes longer than Patience.
func Shutdown(t testing.TB, m *ws.Manager) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	require.NoError(t, m.Shutdown(ctx))
}

// Start runs a manager until the test ends.
func Start(t testing.TB, opts ...ws.Option) *Server {
	t.Helper()
	m, err := ws.NewManager(append(Options(), opts...)...)
	require.NoError(t, err)
	return Run(t, m)
}

// Run runs m until the test ends.
func Run(t testing.TB, m *ws.Manager) *Server {
	t.Helper()
	s := &Server{Manager: m, T: t, Upgrades: make(chan error, 4096), Ran: make(chan error, 1)}
	s.Web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := m.HandleUpgrade(w, r)
		select {
		case s.Upgrades <- err:
		default:
		}
	}))
	s.Web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	go func() { s.Ran <- m.Run() }()
	t.Cleanup(s.Stop)
	s.Addr() // waits for the start
	return s
}

// Stop stops the manager and checks that Run returns nil.
func (s *Server) Stop() {
	s.stop.Do(func() {
		_ = s.Web.Config.Close() // Close waits for unfinished requests otherwise
		s.Web.Close()
		Shutdown(s.T, s.Manager)
		require.NoError(s.T, Receive(s.T, s.Ran, "Run did not return"))
	})
}

// AddrOf returns the TCP address of one way.
func (s *Server) AddrOf(w Way) string {
	switch {
	case w == Native:
		return s.Addr().String()
	case w == Served && s.served == nil:
		s.served = Listen(s.T, "tcp", "127.0.0.1:0")
		s.ServeOn(s.served)
		fallthrough
	case w == Served:
		return s.served.Addr().String()
	}
	return s.Web.Listener.Addr().String()
}

// ByQuery is an Authenticate that takes the client's ID and user from the
// query (?id=a&user=7&key=value), so that both ways can have them. Everything
// else becomes metadata.
func ByQuery(r *http.Request) ([]ws.ClientOption, error) {
	var opts []ws.ClientOption
	for key, values := range r.URL.Query() {
		switch value := strings.Clone(values[0]); key {
		case "id":
			opts = append(opts, ws.WithClientID(value))
		case "username":
			opts = append(opts, ws.WithUser(value))
		case "user":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, err
			}
			opts = append(opts, ws.WithUserID(n))
		default:
			opts = append(opts, ws.WithMetadata(strings.Clone(key), value))
		}
	}
	return opts, nil
}

// DialTCP connects without a handshake.
func (s *Server) DialTCP(w Way) *Client {
	s.T.Helper()
	return s.DialOn("tcp", s.AddrOf(w))
}

// DialOn connects to an address without a handshake.
func (s *Server) DialOn(network, addr string) *Client {
	s.T.Helper()
	nc, err := net.DialTimeout(network, addr, Patience)
	require.NoError(s.T, err)
	// A fixed size: the kernel lets the buffer of a client that reads much at a time grow to 32 MiB.
	require.NoError(s.T, nc.(interface{ SetReadBuffer(bytes int) error }).SetReadBuffer(64<<10))
	require.NoError(s.T, nc.SetDeadline(time.Now().Add(10*Patience)))
	s.T.Cleanup(func() { _ = nc.Close() })
	return &Client{Conn: nc, T: s.T, R: bufio.NewReaderSize(nc, 16<<10)}
}

// Dial connects and upgrades with gobwas/ws; query is like "id=a&user=7".
func (s *Server) Dial(w Way, query ...string) *Client {
	s.T.Helper()
	c, err := s.TryDial(w, query...)
	require.NoError(s.T, err)
	return c
}

// TryDial is Dial for a client that may be refused.
func (s *Server) TryDial(w Way, query ...string) (*Client, error) {
	s.T.Helper()
	c := s.DialTCP(w)
	d := gobwas.Dialer{NetDial: func(context.Context, string, string) (net.Conn, error) { return c.Conn, nil }}
	_, br, _, err := d.Dial(context.Background(), "ws://"+s.AddrOf(w)+"/ws?"+strings.Join(query, "&"))
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(10 * Patience)); err != nil { // Dial has cleared it
		return nil, err
	}
	if br != nil { // frames that came with the response
		c.R = bufio.NewReader(io.MultiReader(br, c.Conn))
	}
	return c, nil
}

// DialClient connects and also returns the server's side of the connection.
func (s *Server) DialClient(w Way, query ...string) (*Client, *ws.Client) {
	s.T.Helper()
	before := make(map[string]bool)
	s.RangeClients(func(c *ws.Client) bool { before[c.ID] = true; return true })
	c := s.Dial(w, query...)
	var found *ws.Client
	s.RangeClients(func(c *ws.Client) bool {
		if !before[c.ID] {
			found = c
		}
		return found == nil
	})
	require.NotNil(s.T, found, "the handshake's answer came before the client was registered")
	return c, found
}

// WithDeepQueue lets BigMessage and much more wait in a client's queue.
func WithDeepQueue(c *ws.Config) { c.QueueBytes = 1 << 30 }

// Stall sends BigMessage to a client that does not read, and returns when its
// socket is full: later messages wait in its queue.
func (s *Server) Stall(sc *ws.Client) {
	s.T.Helper()
	blocked := s.Stats().Total.BlockedTotal
	require.NoError(s.T, sc.SendBytes([]byte(BigMessage)))
	Eventually(s.T, func() bool { return s.Stats().Total.BlockedTotal > blocked }, "the socket did not fill")
}

// Events collects the events of some types.
func (s *Server) Events(types ...ws.EventType) <-chan ws.Event {
	ch := make(chan ws.Event, 4096)
	for _, typ := range types {
		s.Subscribe(typ, func(e ws.Event) { ch <- e })
	}
	return ch
}

// Listen returns a listener that is closed when the test ends.
func Listen(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// ServeOn calls Serve and passes its result on.
func (s *Server) ServeOn(l net.Listener) <-chan error {
	result := make(chan error, 1)
	go func() { result <- s.Serve(l) }()
	return result
}

// Status sends an upgrade request with more header lines and returns the
// answer's status.
func (s *Server) Status(w Way, header string) int {
	s.T.Helper()
	c := s.DialTCP(w)
	defer c.Close()
	c.WriteRaw(UpgradeRequest("/ws", header))
	resp, _ := c.ReadResponse()
	return resp.StatusCode
}

// Abandon turns the cleanup off: the test itself stops the server.
func (s *Server) Abandon() { s.stop.Do(func() {}) }
