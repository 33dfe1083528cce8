package ws_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// withDebugLog makes a manager log to log, debug records included.
func withDebugLog(log *harness.Buffer) ws.Option {
	return func(c *ws.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// refuseByQuery is an Authenticate that refuses a request as its query asks.
func refuseByQuery(r *http.Request) ([]ws.ClientOption, error) {
	switch q := r.URL.Query(); {
	case q.Has("deny"):
		return nil, errors.New("wrong password")
	case q.Has("pay"):
		return nil, &ws.HandshakeError{Status: 402, Reason: "pay first"}
	case q.Has("panic"):
		panic("authenticate")
	case q.Has("wait"):
		<-r.Context().Done()
		return nil, r.Context().Err()
	case q.Has("header"):
		return []ws.ClientOption{ws.WithResponseHeader(http.Header{"Connection": {"x"}})}, nil
	default:
		return harness.ByQuery(r)
	}
}

// Each refusal is counted under its reason on both ways. On the native path, where
// nobody reads HandleUpgrade's error, it is logged at debug.
func TestRefusalsAreCounted(t *testing.T) {
	auth := ws.WithAuthenticate(refuseByQuery)
	const ok = "Origin: http://example.com\r\n"
	tests := []struct {
		name, request string
		status        int
		want          ws.RefusalCounts
		logged        string
	}{
		{"malformed", "hello\r\n\r\n", 400, ws.RefusalCounts{Malformed: 1}, `reason="malformed`},
		{
			"version", strings.Replace(harness.UpgradeRequest("/ws", ok), "13", "8", 1), 426,
			ws.RefusalCounts{Malformed: 1},
			"status=426",
		},
		{
			"key", strings.Replace(harness.UpgradeRequest("/ws", ok), "ZQ==", "", 1), 400,
			ws.RefusalCounts{Malformed: 1},
			"Sec-WebSocket-Key",
		},
		{"path", harness.UpgradeRequest("/other", ok), 404, ws.RefusalCounts{Path: 1}, "status=404"},
		{
			"origin", harness.UpgradeRequest("/ws", "Origin: http://evil.example\r\n"), 403,
			ws.RefusalCounts{Origin: 1},
			`origin=http://evil.example`,
		},
		{"Authenticate", harness.UpgradeRequest("/ws?deny", ok), 401, ws.RefusalCounts{Auth: 1}, `error="wrong password"`},
		{
			"Authenticate with a status", harness.UpgradeRequest("/ws?pay", ok), 402,
			ws.RefusalCounts{Auth: 1},
			`reason="pay first"`,
		},
		{"a panic", harness.UpgradeRequest("/ws?panic", ok), 500, ws.RefusalCounts{Failed: 1}, "authenticate"},
		{
			"a malformed response header", harness.UpgradeRequest("/ws?header", ok), 500,
			ws.RefusalCounts{Failed: 1},
			"level=ERROR",
		},
		{"client ID", harness.UpgradeRequest("/ws?id=ann", ok), 409, ws.RefusalCounts{ClientID: 1}, "status=409"},
	}
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		for _, tt := range tests {
			if w == harness.NetHTTP && (tt.name == "malformed" || tt.name == "path") {
				continue // net/http and the router refuse them
			}
			t.Run(tt.name, func(t *testing.T) {
				var log harness.Buffer
				s := harness.Start(t, auth, withDebugLog(&log))
				s.Dial(w, "id=ann")
				c := s.DialTCP(w)
				c.WriteRaw(tt.request)
				resp, _ := c.ReadResponse()
				require.Equal(t, tt.status, resp.StatusCode)
				harness.Eventually(t, func() bool { return s.Stats().Refused == tt.want }, "%+v", s.Stats().Refused)
				refused := s.Stats().Refused
				assert.EqualValues(t, 1, refused.Total())
				if w == harness.Native {
					assert.Contains(t, log.String(), `msg="ws: handshake refused"`)
					assert.Contains(t, log.String(), tt.logged)
					assert.Contains(t, log.String(), "remote="+c.LocalAddr().String())
				} else {
					assert.NotContains(t, log.String(), `msg="ws: handshake refused"`)
				}
			})
		}
		t.Run("full", func(t *testing.T) {
			s := harness.Start(t, ws.WithMaxConnections(1))
			s.Dial(w)
			require.Equal(t, 503, s.Status(w, ""))
			assert.Equal(t, ws.RefusalCounts{Full: 1}, s.Stats().Refused)
		})
		t.Run("timeout of Authenticate", func(t *testing.T) {
			s := harness.Start(t, auth, func(c *ws.Config) { c.HandshakeTimeout = 100 * time.Millisecond })
			c := s.DialTCP(w)
			c.WriteRaw(harness.UpgradeRequest("/ws?wait", ok))
			_, _ = c.ReadResponse()
			harness.Eventually(t, func() bool { return s.Stats().Stuck == 0 && s.Stats().Refused.Timeout == 1 },
				"%+v", s.Stats().Refused)
			refused := s.Stats().Refused
			assert.EqualValues(t, 1, refused.Total(), "%+v", refused)
		})
	})
	t.Run("timeout of a silent connection", func(t *testing.T) {
		s := harness.Start(t, func(c *ws.Config) { c.HandshakeTimeout = 50 * time.Millisecond })
		resp, _ := s.DialTCP(harness.Native).ReadResponse()
		assert.Equal(t, 408, resp.StatusCode)
		assert.Equal(t, ws.RefusalCounts{Timeout: 1}, s.Stats().Refused)
	})
	t.Run("stopped", func(t *testing.T) {
		s := harness.Start(t)
		harness.Shutdown(t, s.Manager)
		require.Equal(t, 503, s.Status(harness.NetHTTP, ""))
		require.ErrorIs(t, harness.Receive(t, s.Upgrades, "HandleUpgrade did not return"), ws.ErrManagerStopped)
		assert.Equal(t, ws.RefusalCounts{Stopped: 1}, s.Stats().Refused)
	})
}

// Text of a client's cannot forge a line of the log.
func TestRefusalIsLoggedInOneLine(t *testing.T) {
	var log harness.Buffer
	s := harness.StartTLS(t, nil, withDebugLog(&log))
	c := s.DialTCP(harness.Native).Over(s.ClientConfig(tls.VersionTLS13))
	c.WriteRaw(harness.UpgradeRequest("/ws", "Origin: http://evil.example status=101 msg=\"fine\"\u2028\r\n"))
	resp, _ := c.ReadResponse()
	require.Equal(t, 403, resp.StatusCode)
	var lines []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "evil") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 1)
	assert.Contains(t, lines[0], `level=DEBUG msg="ws: handshake refused" status=403`)
	assert.Contains(t, lines[0], `host=example.com origin="http://evil.example status=101 msg=\"fine\"\u2028"`)
}
