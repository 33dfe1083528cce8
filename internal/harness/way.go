package harness

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/race"
)

// Endpoint is a server that is reached on one way, with TLS or without.
type Endpoint struct {
	*Server
	Way  Way
	Wrap func(*Client) *Client // TLS, or nil
	TLS  *tls.Config           // of the clients, or nil
}

// Connect opens a WebSocket connection.
func (s *Endpoint) Connect() *Client {
	s.T.Helper()
	if s.Wrap == nil {
		return s.Dial(s.Way)
	}
	c := s.Wrap(s.DialTCP(s.Way))
	c.WriteRaw(UpgradeRequest("/ws", ""))
	resp, body := c.ReadResponse()
	require.Equal(s.T, 101, resp.StatusCode, body)
	return c
}

// OnEachTransport runs test on both ways, plain and with TLS.
func OnEachTransport(t *testing.T, test func(t *testing.T, start func(opts ...ws.Option) *Endpoint)) {
	t.Helper()
	OnBothWays(t, func(t *testing.T, w Way) {
		t.Run("plain", func(t *testing.T) {
			test(t, func(opts ...ws.Option) *Endpoint { return &Endpoint{Server: Start(t, opts...), Way: w} })
		})
		t.Run("TLS", func(t *testing.T) {
			test(t, func(opts ...ws.Option) *Endpoint {
				s := StartTLS(t, nil, opts...)
				cfg := s.ClientConfig(tls.VersionTLS13)
				return &Endpoint{s.Server, w, func(c *Client) *Client { return c.Over(cfg) }, cfg}
			})
		})
	})
}

// OnEachTransportAndMode runs test with pooled and with inline handlers, too.
func OnEachTransportAndMode(t *testing.T,
	test func(t *testing.T, mode ws.HandlerMode, start func(opts ...ws.Option) *Endpoint),
) {
	t.Helper()
	for name, mode := range map[string]ws.HandlerMode{"pooled": ws.Pooled, "inline": ws.Inline} {
		t.Run(name, func(t *testing.T) {
			OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *Endpoint) {
				test(t, mode, func(opts ...ws.Option) *Endpoint {
					return start(append([]ws.Option{ws.WithHandlerMode(mode)}, opts...)...)
				})
			})
		})
	}
}

// FewerUnderRace returns n, or a tenth of it under the race detector.
func FewerUnderRace(n int) int {
	if race.Enabled {
		return n / 10
	}
	return n
}

// Way is one of the ways in which a connection reaches an event loop.
type Way string

// The ways.
const (
	Native  Way = "native"   // the loop accepted it
	NetHTTP Way = "net/http" // HandleUpgrade handed it over
	Served  Way = "Serve"    // the native path, but Serve accepted it; not one of OnBothWays
)

// OnBothWays runs test once for each way.
func OnBothWays(t *testing.T, test func(t *testing.T, w Way)) {
	t.Helper()
	for _, w := range []Way{Native, NetHTTP} {
		t.Run(string(w), func(t *testing.T) { test(t, w) })
	}
}

// OnBothModes runs test for each way and each handler mode.
func OnBothModes(t *testing.T, test func(t *testing.T, w Way, mode ws.Option)) {
	t.Helper()
	OnBothWays(t, func(t *testing.T, w Way) {
		t.Run("pooled", func(t *testing.T) { test(t, w, ws.WithHandlerMode(ws.Pooled)) })
		t.Run("inline", func(t *testing.T) { test(t, w, ws.WithHandlerMode(ws.Inline)) })
	})
}
