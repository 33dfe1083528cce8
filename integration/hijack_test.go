package integration_test

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// wrapped is a ResponseWriter of a middleware that hides its Hijacker.
type wrapped struct{ http.ResponseWriter }

// unwrapping is one with an Unwrap method.
type unwrapping struct{ wrapped }

func (w unwrapping) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// The error of a writer that hides the connection names its type and the remedy.
func TestHandleUpgradeBehindMiddleware(t *testing.T) {
	tests := []struct {
		name       string
		middleware func(http.Handler) http.Handler
		want       string // in the error; empty for none
	}{
		{"Unwrap", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(unwrapping{wrapped{w}}, r) })
		}, ""},
		{"no Unwrap", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrapped{w}, r) })
		}, "integration_test.wrapped is no http.Hijacker"},
		{
			"TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, harness.Patience, "late") },
			"*http.timeoutWriter is no http.Hijacker",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := harness.Start(t)
			s.Web.Config.Handler = tt.middleware(s.Web.Config.Handler)
			status := s.Status(harness.NetHTTP, "")
			err := harness.Receive(t, s.Upgrades, "HandleUpgrade did not return")
			if tt.want == "" {
				require.NoError(t, err)
				assert.Equal(t, 101, status)
				return
			}
			assert.Equal(t, 500, status)
			require.ErrorIs(t, err, http.ErrNotSupported)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "register HandleUpgrade outside of http.TimeoutHandler")
			assert.Equal(t, ws.RefusalCounts{Failed: 1}, s.Stats().Refused)
		})
	}
}

// piped is a ResponseWriter that gives a pipe in place of the connection, as adaptors of
// other HTTP servers do.
type piped struct {
	http.ResponseWriter
	end net.Conn
}

func (w piped) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.end, bufio.NewReadWriter(bufio.NewReader(w.end), bufio.NewWriter(w.end)), nil
}

// A pipe is refused, also one that nobody reads.
func TestHandleUpgradeOfAPipe(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	for _, reads := range []bool{true, false} {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(harness.UpgradeRequest("/ws", ""))))
		require.NoError(t, err)
		refused := make(chan error, 1)
		go func() { refused <- s.HandleUpgrade(piped{httptest.NewRecorder(), near}, r) }() // ends within a second
		if reads {
			resp, _ := (&harness.Client{Conn: far, T: t, R: bufio.NewReader(far)}).ReadResponse()
			assert.Equal(t, 501, resp.StatusCode)
		}
		err = harness.Receive(t, refused, "HandleUpgrade did not return")
		require.ErrorContains(t, err, "integration_test.piped: connection is a *net.pipe")
		assert.Zero(t, s.GetClientCount())
	}
}
