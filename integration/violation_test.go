package integration_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// violations are bytes that break the protocol, with the code they are closed with.
var violations = map[string]struct {
	bytes string
	code  int
}{
	"reserved opcode": {"\x83\x80\x00\x00\x00\x00", 1002},
	"no UTF-8":        {harness.Frame(gobwas.OpText, "\xff"), 1007},
	"bad close frame": {harness.Frame(gobwas.OpClose, "\x03"), 1002},
	"too large":       {"\x81\xff\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00", 1009},
}

// Messages that came whole before a violation are answered before the close frame, by pooled
// handlers as by inline ones.
func TestViolationIsAnsweredLast(t *testing.T) {
	t.Parallel()
	for name, v := range violations {
		t.Run(name, func(t *testing.T) {
			harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
				for _, mode := range []ws.HandlerMode{ws.Pooled, ws.Inline} {
					s := start(ws.WithHandlerMode(mode), ws.WithMailboxSize(2))
					ends := s.Events(ws.EventClientDisconnected)
					require.NoError(t, s.Register("slow", func(c *ws.Client, msg *ws.Message) error {
						<-time.After(time.Millisecond)
						return c.SendResponse(msg.RequestID, 200, "success", nil)
					}))
					c := s.Connect()
					const requests = 20
					var b string
					for i := range requests {
						b += harness.Frame(gobwas.OpText, harness.Request("slow", fmt.Sprint(i), ""))
					}
					c.WriteRaw(b + v.bytes + harness.Frame(gobwas.OpText, harness.Request("slow", "behind", "")))
					for i := range requests {
						c.ExpectReply(fmt.Sprint(i), 200, "")
					}
					c.ExpectClose(v.code)
					_ = c.Close()
					end := harness.Receive(t, ends, "no disconnect").Data.(*ws.CloseError)
					assert.Equal(t, v.code, end.Code)
					assert.Zero(t, s.Stats().Unhandled)
				}
			})
		})
	}
}

// A handler that hangs holds neither the answer to a close frame nor to a violation for
// longer than CloseTimeout.
func TestCloseWaitsForHandlersWithinBounds(t *testing.T) {
	t.Parallel()
	endings := map[string]struct {
		bytes string
		code  int
	}{"close frame": {harness.Frame(gobwas.OpClose, "\x03\xe8"), 1000}, "violation": {"\x83\x80\x00\x00\x00\x00", 1002}}
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
				s := harness.Start(t, func(c *ws.Config) { c.CloseTimeout = 100 * time.Millisecond })
				release := make(chan struct{})
				require.NoError(t, s.Register("hang", func(*ws.Client, *ws.Message) error { <-release; return nil }))
				free := sync.OnceFunc(func() { close(release) })
				t.Cleanup(free)
				c := s.Dial(w)
				c.WriteRaw(harness.Frame(gobwas.OpText, harness.Request("hang", "1", "")) + ending.bytes)
				c.ExpectClose(ending.code)
				harness.Eventually(t, func() bool { return s.GetClientCount() == 0 }, "it stays")
				free()
			})
		})
	}
}
