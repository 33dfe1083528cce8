package ws_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// placedByPath is an Authenticate that uses the query as the key of WithPlacement.
func placedByPath(r *http.Request) ([]ws.ClientOption, error) {
	return []ws.ClientOption{ws.WithPlacement(r.URL.RawQuery), ws.WithMetadata("addr", r.RemoteAddr)}, nil
}

// loopsInUse returns the number of loops with connections.
func loopsInUse(m *ws.Manager) (n int) {
	for _, loop := range m.Stats().Loops {
		if loop.Connections > 0 {
			n++
		}
	}
	return n
}

// Clients with one key share a loop, and lose nothing on their way to it.
func TestPlacement(t *testing.T) {
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		const clients = 12
		s := start(ws.WithLoops(4), ws.WithHandlerMode(ws.Inline), ws.WithAuthenticate(placedByPath))
		s.HandleRaw(harness.Echo)
		for i := range clients {
			c := s.DialTCP(s.Way)
			if s.Wrap != nil {
				c = s.Wrap(c)
			}
			early := fmt.Sprint("early ", i)
			c.WriteRaw(harness.UpgradeRequest("/ws?room", "") + harness.Frame(1, early))
			resp, body := c.ReadResponse()
			require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode, body)
			c.Expect(early)
			c.Send("later")
			c.Expect("later")
		}
		st := s.Stats()
		assert.Equal(t, clients, st.Clients)
		assert.Equal(t, clients, st.Total.Connections)
		assert.Equal(t, 1, loopsInUse(s.Manager))
		s.RangeClients(func(c *ws.Client) bool {
			addr, _ := c.GetMetadata("addr")
			return assert.Equal(t, addr, c.RemoteAddr())
		})
	})
}

// Different keys, and clients without one, spread over the loops.
func TestPlacementSpreads(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithLoops(4), ws.WithAuthenticate(placedByPath))
		for i := range 64 {
			s.Dial(w, fmt.Sprint(i))
		}
		assert.Equal(t, 4, loopsInUse(s.Manager))
	})
}

// A client that hangs up on its way to its loop leaves nothing behind.
func TestPlacementOfTheDead(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const clients = 200
		s := harness.Start(t, ws.WithLoops(4), ws.WithMaxConnections(clients), ws.WithAuthenticate(placedByPath))
		for i := range clients {
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws?room", ""))
			if i%2 == 0 {
				c.Abort()
			} else {
				_ = c.Conn.Close()
			}
		}
		none := func() bool { st := s.Stats(); return st.Clients == 0 && st.Total.Connections == 0 }
		harness.Eventually(t, none, "%+v", s.Stats().Total)
		for range clients { // each of them gave its place back
			harness.Eventually(t, func() bool { _, err := s.TryDial(w, "room"); return err == nil }, "no place")
		}
		assert.Equal(t, clients, s.Stats().Clients)
	})
}

// Shutdown ends the clients that are on their way to a loop.
func TestPlacementAtShutdown(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithLoops(4), ws.WithCloseTimeout(100*time.Millisecond), ws.WithAuthenticate(placedByPath))
		for range 50 {
			s.DialTCP(w).WriteRaw(harness.UpgradeRequest("/ws?room", ""))
		}
		s.Stop()
		assert.Zero(t, s.GetClientCount())
	})
}
