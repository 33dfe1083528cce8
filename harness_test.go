package ws_test

import (
	"bufio"
	"context"
	"encoding/json"
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

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// patience is how long a test waits for a condition before it fails.
const patience = time.Minute

// way is one of the two ways in which a connection reaches an event loop.
type way string

const (
	native  way = "native"   // the loop accepted it
	overNet way = "net/http" // HandleUpgrade handed it over
	served  way = "Serve"    // the native path, but Serve accepted it; not among onBothWays
)

// onBothWays runs test once for each way.
func onBothWays(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	for _, w := range []way{native, overNet} {
		t.Run(string(w), func(t *testing.T) { test(t, w) })
	}
}

// server is a running manager that can be reached on both ways.
type server struct {
	*ws.Manager
	t        testing.TB
	web      *httptest.Server
	upgrades chan error // what HandleUpgrade returned
	ran      chan error // what Run returned
	served   net.Listener
	stop     sync.Once
}

// testOptions are the options of every test's manager; later ones change them.
func testOptions() []ws.Option {
	return []ws.Option{func(c *ws.Config) {
		c.ListenAddr = "tcp://127.0.0.1:0"
		c.Loops = 2
		c.HeartbeatInterval = 1000 * time.Hour // so that no ping comes between what a test expects
		c.HeartbeatTimeout = 2000 * time.Hour
		c.HighWaterAge = 0        // so that only what a test sends makes a client slow
		c.CloseTimeout = patience // for clients that read much before the close frame
		c.Logger = slog.New(slog.DiscardHandler)
	}}
}

// newManager returns a manager that is shut down when the test ends.
func newManager(t testing.TB, opts ...ws.Option) *ws.Manager {
	t.Helper()
	m, err := ws.NewManager(append(testOptions(), opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { shutdown(t, m) })
	return m
}

func shutdown(t testing.TB, m *ws.Manager) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, m.Shutdown(ctx))
}

// start runs a manager until the test ends.
func start(t testing.TB, opts ...ws.Option) *server {
	t.Helper()
	m, err := ws.NewManager(append(testOptions(), opts...)...)
	require.NoError(t, err)
	return serve(t, m)
}

// serve runs m until the test ends.
func serve(t testing.TB, m *ws.Manager) *server {
	t.Helper()
	s := &server{Manager: m, t: t, upgrades: make(chan error, 4096), ran: make(chan error, 1)}
	s.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := m.HandleUpgrade(w, r)
		select {
		case s.upgrades <- err:
		default:
		}
	}))
	s.web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	go func() { s.ran <- m.Run() }()
	t.Cleanup(s.shutdown)
	s.Addr() // waits for the start
	return s
}

// shutdown stops the manager and checks that Run returns nil.
func (s *server) shutdown() {
	s.stop.Do(func() {
		s.web.Close()
		shutdown(s.t, s.Manager)
		require.NoError(s.t, receive(s.t, s.ran, "Run did not return"))
	})
}

// addr returns the TCP address of one way.
func (s *server) addr(w way) string {
	switch {
	case w == native:
		return s.Addr().String()
	case w == served && s.served == nil:
		s.served = listen(s.t, "tcp", "127.0.0.1:0")
		s.serve(s.served)
		fallthrough
	case w == served:
		return s.served.Addr().String()
	}
	return s.web.Listener.Addr().String()
}

// byQuery is an Authenticate that takes the client's ID and user from the
// query (?id=a&user=7&key=value), so that both ways can have them. Everything
// else becomes metadata.
func byQuery(r *http.Request) ([]ws.ClientOption, error) {
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

// waitFor waits until the condition holds, and reports whether it does.
func waitFor(condition func() bool) bool {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-poll.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// eventually waits until the condition holds.
func eventually(t testing.TB, condition func() bool, format string, args ...any) {
	t.Helper()
	if !waitFor(condition) {
		require.Failf(t, "the condition never held", format, args...)
	}
}

// receive takes one value from ch.
func receive[T any](t testing.TB, ch <-chan T, format string, args ...any) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		require.Failf(t, "nothing received", format, args...)
		panic("not reached")
	}
}

// client is a WebSocket client that can also send what no client should. It
// belongs to the test's goroutine.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// dialTCP connects without a handshake.
func (s *server) dialTCP(w way) *client {
	s.t.Helper()
	return s.dialOn("tcp", s.addr(w))
}

// dialOn connects to an address without a handshake.
func (s *server) dialOn(network, addr string) *client {
	s.t.Helper()
	nc, err := net.DialTimeout(network, addr, patience)
	require.NoError(s.t, err)
	// A fixed size: the kernel lets the buffer of a client that reads much at a time grow to 32 MiB.
	require.NoError(s.t, nc.(interface{ SetReadBuffer(bytes int) error }).SetReadBuffer(64<<10))
	require.NoError(s.t, nc.SetDeadline(time.Now().Add(2*patience)))
	s.t.Cleanup(func() { _ = nc.Close() })
	return &client{Conn: nc, t: s.t, r: bufio.NewReaderSize(nc, 16<<10)}
}

// dial connects and upgrades with gobwas/ws; query is like "id=a&user=7".
func (s *server) dial(w way, query ...string) *client {
	s.t.Helper()
	c, err := s.tryDial(w, query...)
	require.NoError(s.t, err)
	return c
}

func (s *server) tryDial(w way, query ...string) (*client, error) {
	s.t.Helper()
	c := s.dialTCP(w)
	d := gws.Dialer{NetDial: func(context.Context, string, string) (net.Conn, error) { return c.Conn, nil }}
	_, br, _, err := d.Dial(context.Background(), "ws://"+s.addr(w)+"/ws?"+strings.Join(query, "&"))
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil { // Dial has cleared it
		return nil, err
	}
	if br != nil { // frames that came with the response
		c.r = bufio.NewReader(io.MultiReader(br, c.Conn))
	}
	return c, nil
}

// dialClient connects and also returns the server's side of the connection.
func (s *server) dialClient(w way, query ...string) (*client, *ws.Client) {
	s.t.Helper()
	before := make(map[string]bool)
	s.RangeClients(func(c *ws.Client) bool { before[c.ID] = true; return true })
	c := s.dial(w, query...)
	var found *ws.Client
	s.RangeClients(func(c *ws.Client) bool {
		if !before[c.ID] {
			found = c
		}
		return found == nil
	})
	require.NotNil(s.t, found, "the handshake's answer came before the client was registered")
	return c, found
}

// upgradeRequest is a handshake with more header lines, each ended by CRLF.
func upgradeRequest(path, header string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + header + "\r\n"
}

// raw sends bytes as they are.
func (c *client) raw(b string) {
	c.t.Helper()
	_, err := io.WriteString(c, b)
	require.NoError(c.t, err)
}

// response reads an HTTP response; the body of a refusal is read whole.
func (c *client) response() (resp *http.Response, body string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp, string(b)
}

// upgrade upgrades the connection.
func (c *client) upgrade() {
	c.t.Helper()
	c.raw(upgradeRequest("/ws", ""))
	resp, body := c.response()
	require.Equal(c.t, http.StatusSwitchingProtocols, resp.StatusCode, body)
}

// frame encodes a masked frame.
func frame(op gws.OpCode, payload string) string { return fragment(op, true, payload) }

// send sends text messages in one write.
func (c *client) send(messages ...string) {
	c.t.Helper()
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(frame(gws.OpText, m))
	}
	c.raw(b.String())
}

// request encodes a request; data is JSON, or empty for none.
func request(event, id, data string) string {
	if data == "" {
		data = "null"
	}
	return `{"type":"request","event":"` + event + `","request_id":"` + id + `","data":` + data + `,"timestamp":1707552000}`
}

// readFrame reads one frame.
func (c *client) readFrame() gws.Frame {
	c.t.Helper()
	f, err := readFrame(c.r)
	require.NoError(c.t, err)
	return f
}

func readFrame(r io.Reader) (f gws.Frame, err error) {
	if f.Header, err = gws.ReadHeader(r); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// read reads one data or close frame.
func (c *client) read() gws.Frame {
	c.t.Helper()
	for {
		f := c.readFrame()
		if f.Header.OpCode != gws.OpPing && f.Header.OpCode != gws.OpPong {
			return f
		}
	}
}

// expect reads text messages and compares them.
func (c *client) expect(messages ...string) {
	c.t.Helper()
	for _, m := range messages {
		f := c.read()
		require.Equal(c.t, gws.OpText, f.Header.OpCode, "payload %.100q, want %.100q", f.Payload, m)
		if len(m) > 1000 {
			require.True(c.t, m == string(f.Payload), "want %.20q (%d bytes), got %.20q (%d bytes)",
				m, len(m), f.Payload, len(f.Payload))
			continue
		}
		require.Equal(c.t, m, string(f.Payload))
	}
}

// envelope is any message of the server's.
type envelope struct {
	Type      string          `json:"type"`
	Event     string          `json:"event"`
	RequestID string          `json:"request_id"`
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data"`
	TraceID   string          `json:"trace_id"`
	Timestamp int64           `json:"timestamp"`
}

// readEnvelope reads one text message.
func (c *client) readEnvelope() envelope {
	c.t.Helper()
	f := c.read()
	require.Equal(c.t, gws.OpText, f.Header.OpCode, "payload %q", f.Payload)
	var e envelope
	require.NoError(c.t, json.Unmarshal(f.Payload, &e), "%s", f.Payload)
	return e
}

// expectReply reads a response, checks its ID, code and message, and returns
// its data.
func (c *client) expectReply(id string, code int, message string) string {
	c.t.Helper()
	e := c.readEnvelope()
	wantType := "error"
	if code == 200 {
		wantType = "response"
	}
	require.Equal(c.t, wantType, e.Type, "%+v", e)
	require.Equal(c.t, id, e.RequestID, "%+v", e)
	require.Equal(c.t, code, e.Code, "%+v", e)
	if message != "" {
		require.Equal(c.t, message, e.Message)
	}
	require.NotEmpty(c.t, e.TraceID)
	require.InDelta(c.t, time.Now().Unix(), e.Timestamp, 60, "a timestamp in seconds")
	return string(e.Data)
}

// expectClose reads until a close frame and compares its code. It returns the
// reason. The client has not answered the close then; see finish.
func (c *client) expectClose(code int) (reason string) {
	c.t.Helper()
	for {
		f := c.read()
		if f.Header.OpCode == gws.OpClose {
			got, reason := gws.ParseCloseFrameData(f.Payload)
			require.Equal(c.t, code, int(got), reason)
			return reason
		}
	}
}

// sendClose sends a close frame.
func (c *client) sendClose(code int, reason string) {
	c.t.Helper()
	c.raw(frame(gws.OpClose, string(gws.NewCloseFrameBody(gws.StatusCode(code), reason))))
}

// finish answers a close and waits for the end of the stream.
func (c *client) finish(code int) {
	c.t.Helper()
	c.sendClose(code, "")
	c.expectEOF()
}

// expectEOF reads until the server closes the connection, orderly.
func (c *client) expectEOF() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.r)
	require.NoError(c.t, err)
}

// abort closes the connection without a close frame, with a reset.
func (c *client) abort() {
	c.t.Helper()
	tcp, ok := c.Conn.(*net.TCPConn)
	require.True(c.t, ok)
	require.NoError(c.t, tcp.SetLinger(0))
	require.NoError(c.t, tcp.Close())
}

// onBothModes runs test for each way and each handler mode.
func onBothModes(t *testing.T, test func(t *testing.T, w way, mode ws.Option)) {
	t.Helper()
	onBothWays(t, func(t *testing.T, w way) {
		t.Run("pooled", func(t *testing.T) { test(t, w, ws.WithHandlerMode(ws.Pooled)) })
		t.Run("inline", func(t *testing.T) { test(t, w, ws.WithHandlerMode(ws.Inline)) })
	})
}

// fragment encodes a masked frame of a fragmented message.
func fragment(op gws.OpCode, fin bool, payload string) string {
	var b strings.Builder
	if err := gws.WriteFrame(&b, gws.MaskFrame(gws.NewFrame(op, fin, []byte(payload)))); err != nil {
		panic(err)
	}
	return b.String()
}

// bigMessage is more than the socket buffers of both sides hold.
var bigMessage = strings.Repeat("0123456789abcdef", 1<<20)

// withDeepQueue lets bigMessage and much more wait in a client's queue.
func withDeepQueue(c *ws.Config) { c.QueueBytes = 1 << 30 }

// stall sends bigMessage to a client that does not read, and returns when its
// socket is full: what is sent afterwards waits in its queue.
func (s *server) stall(sc *ws.Client) {
	s.t.Helper()
	blocked := s.Stats().Total.BlockedTotal
	require.NoError(s.t, sc.SendBytes([]byte(bigMessage)))
	eventually(s.t, func() bool { return s.Stats().Total.BlockedTotal > blocked }, "the socket did not fill")
}

// events collects the events of some types.
func (s *server) events(types ...ws.EventType) <-chan ws.Event {
	ch := make(chan ws.Event, 4096)
	for _, typ := range types {
		s.Subscribe(typ, func(e ws.Event) { ch <- e })
	}
	return ch
}
