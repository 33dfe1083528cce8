package wstest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"

	"github.com/qi-realtime/ws"
)

// patience is the longest time that a test waits for one event.
const patience = time.Minute

// Server serves a Manager on a loopback address or on a Network. Safe for concurrent use.
type Server struct {
	Manager *ws.Manager
	URL     string // ws://127.0.0.1:port; empty on a Network

	t       testing.TB
	network *Network // nil on a loopback address
}

// Start runs m and lets clients connect to it through HandleUpgrade, with opts for each of
// them. At the end of the test, m is shut down. The test fails if m does not run or does not
// shut down.
func Start(t testing.TB, m *ws.Manager, opts ...ws.ClientOption) *Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = m.HandleUpgrade(w, r, opts...) // it has answered the request in either case
	}))
	t.Cleanup(server.Close)
	run(t, m)
	return &Server{Manager: m, URL: "ws" + strings.TrimPrefix(server.URL, "http"), t: t}
}

// run runs m until the end of the test.
func run(t testing.TB, m *ws.Manager) {
	ended := make(chan error, 1)
	go func() { ended <- m.Run() }() // until Shutdown
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := m.Shutdown(ctx); err != nil {
			t.Errorf("wstest: shutdown: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("wstest: run: %v", err)
		}
	})
}

// Dial connects a client, whose upgrade request has the lines of header beside its own. The
// test fails if the client is refused.
func (s *Server) Dial(header http.Header) *Client {
	s.t.Helper()
	c, err := s.TryDial(header)
	if err != nil {
		s.t.Fatalf("wstest: dial: %v", err)
	}
	return c
}

// TryDial is Dial for a client that may be refused. On a loopback address the error of a
// refusal is a gobwas/ws.StatusError, whose integer is the HTTP status.
func (s *Server) TryDial(header http.Header) (*Client, error) {
	if s.network != nil {
		return s.network.dial(header)
	}
	dialer := gobwas.Dialer{Timeout: patience, Header: gobwas.HandshakeHeaderHTTP(header)}
	conn, early, _, err := dialer.Dial(context.Background(), s.URL)
	if err != nil {
		return nil, err
	}
	c := newClient(s.t, conn, early)
	s.t.Cleanup(func() { _ = conn.Close() })
	return c, nil
}
