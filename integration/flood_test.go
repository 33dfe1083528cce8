package integration_test

import (
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// A flood of pings, pongs or empty fragments ends with 1008; a number that a client may need does
// not.
func TestFloods(t *testing.T) {
	for name, flood := range map[string]string{
		"pings": strings.Repeat(harness.Frame(gobwas.OpPing, "x"), 20_000),
		"pongs": strings.Repeat(harness.Frame(gobwas.OpPong, ""), 20_000),
		"empty fragments": harness.Fragment(gobwas.OpText, false, "") +
			strings.Repeat(harness.Fragment(gobwas.OpContinuation, false, ""), 1100),
	} {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				metrics := harness.NewRecorder()
				s := harness.Start(t, ws.WithMetrics(metrics))
				c, sc := s.DialClient(w)
				c.WriteRaw(flood)
				c.ExpectClose(ws.ClosePolicyViolation)
				harness.Eventually(t, sc.IsClosed, "it goes on")
				harness.Eventually(t, func() bool { return metrics.Get("invalid") == 1 }, "not counted")
			})
		})
	}
	s := harness.Start(t)
	s.HandleRaw(harness.Echo)
	c := s.Dial(harness.Native)
	for range 10 {
		c.WriteRaw(strings.Repeat(harness.Frame(gobwas.OpPing, "x"), 10) + harness.Fragment(gobwas.OpText, false, "") +
			strings.Repeat(harness.Fragment(gobwas.OpContinuation, false, ""), 999) +
			harness.Fragment(gobwas.OpContinuation, true, "end"))
		c.Expect("end")
	}
}

// Without a limit all pings are answered, the last of them for sure.
func TestNoControlFrameLimit(t *testing.T) {
	s := harness.Start(t, ws.WithControlFrameLimit(0))
	c := s.Dial(harness.Native)
	c.WriteRaw(strings.Repeat(harness.Frame(gobwas.OpPing, "x"), 50_000) + harness.Frame(gobwas.OpPing, "last"))
	for {
		if f := c.ReadFrame(); string(f.Payload) == "last" {
			return
		}
	}
}
