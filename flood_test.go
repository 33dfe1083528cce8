package ws_test

import (
	"strings"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// A flood of pings, pongs or empty fragments ends with 1008; what a client may
// need does not.
func TestFloods(t *testing.T) {
	for name, flood := range map[string]string{
		"pings":           strings.Repeat(frame(gws.OpPing, "x"), 20_000),
		"pongs":           strings.Repeat(frame(gws.OpPong, ""), 20_000),
		"empty fragments": fragment(gws.OpText, false, "") + strings.Repeat(fragment(gws.OpContinuation, false, ""), 1100),
	} {
		t.Run(name, func(t *testing.T) {
			onBothWays(t, func(t *testing.T, w way) {
				metrics := newRecorder()
				s := start(t, ws.WithMetrics(metrics))
				c, sc := s.dialClient(w)
				c.raw(flood)
				c.expectClose(ws.ClosePolicyViolation)
				eventually(t, sc.IsClosed, "it goes on")
				require.Equal(t, 1, metrics.get("invalid"))
			})
		})
	}
	s := start(t)
	rawEcho(s.Manager)
	c := s.dial(native)
	for range 10 {
		c.raw(strings.Repeat(frame(gws.OpPing, "x"), 10) + fragment(gws.OpText, false, "") +
			strings.Repeat(fragment(gws.OpContinuation, false, ""), 999) + fragment(gws.OpContinuation, true, "end"))
		c.expect("end")
	}
}

// Without a limit all pings are answered, the last of them for sure.
func TestNoControlFrameLimit(t *testing.T) {
	s := start(t, ws.WithControlFrameLimit(0))
	c := s.dial(native)
	c.raw(strings.Repeat(frame(gws.OpPing, "x"), 50_000) + frame(gws.OpPing, "last"))
	for {
		if f := c.readFrame(); string(f.Payload) == "last" {
			return
		}
	}
}
