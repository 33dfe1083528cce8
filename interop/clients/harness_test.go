package clients_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/interop/clients/echoserver"
)

// patience is how long a test waits for anything.
const patience = time.Minute

// message is one message, received whole.
type message struct {
	binary  bool
	payload string
}

// dialOptions are the options that every library has.
type dialOptions struct {
	tls          *tls.Config
	subprotocols []string
	compress     bool // offer permessage-deflate, and use it for every message
	takeover     bool // with context takeover
	header       http.Header
}

// peer is a connection of one of the libraries. It belongs to one goroutine.
type peer interface {
	// send sends one message whole.
	send(m message) error
	// receive returns the next message, or the close frame's code and reason as a closeError.
	receive() (message, error)
	// ping returns once the pong with this payload has come.
	ping(payload string) error
	// close sends a close frame. It returns the code that came back, or 0 if the library does
	// not wait for it.
	close(code int, reason string) (int, error)
	// subprotocol returns the negotiated subprotocol.
	subprotocol() string
	// abandon ends the connection without a close frame, if it is still there.
	abandon()
}

// library is a WebSocket client written in Go.
type library struct {
	name string
	dial func(ctx context.Context, url string, o dialOptions) (peer, *http.Response, error)
}

// libraries lists the tested libraries.
var libraries = []library{
	{"gorilla", dialGorilla},
	{"coder", dialCoder},
	{"gws", dialGWS},
}

// closeError reports a received close frame.
type closeError struct {
	code   int
	reason string
}

func (e *closeError) Error() string { return "closed: " + e.reason }

// identity returns the certificate that all servers share.
var identity = sync.OnceValues(echoserver.NewIdentity)

// server is a running echo server, with the TLS configuration of its clients.
type server struct {
	*echoserver.Server
	tls *tls.Config
}

// start runs a server of the kind row until the test ends.
func start(t *testing.T, row echoserver.Row) *server {
	t.Helper()
	id, err := identity()
	require.NoError(t, err)
	s, err := echoserver.Start(row, id)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &server{Server: s, tls: &tls.Config{RootCAs: id.Pool(), ServerName: "127.0.0.1"}}
}

// connection is a peer in a test.
type connection struct {
	peer
	t    *testing.T
	resp *http.Response
}

// dial connects with a library.
func (s *server) dial(t *testing.T, lib library, o dialOptions) *connection {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.tls = s.tls
	p, resp, err := lib.dial(ctx, s.URL, o)
	require.NoError(t, err)
	t.Cleanup(p.abandon)
	return &connection{peer: p, t: t, resp: resp}
}

// echo sends a message and expects it back.
func (c *connection) echo(m message) {
	c.t.Helper()
	require.NoError(c.t, c.send(m))
	got, err := c.receive()
	require.NoError(c.t, err)
	require.Equal(c.t, m.binary, got.binary)
	if m.payload != got.payload { // a diff of 1 MiB helps nobody
		require.Failf(c.t, "another payload", "sent %d bytes %.40q, got %d bytes %.40q",
			len(m.payload), m.payload, len(got.payload), got.payload)
	}
}

// ended returns the code and reason with which the server's next connection ends.
func (s *server) ended(t *testing.T) *ws.CloseError {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case end := <-s.Closed:
		return end
	case <-timer.C:
		require.Fail(t, "the connection did not end")
		return nil
	}
}
