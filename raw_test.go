package ws_test

import (
	"strconv"
	"strings"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestHandleRaw(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		s.HandleRaw(harness.Echo)
		c := s.Dial(w)
		for _, n := range []int{0, 1, 125, 126, 4096, 65535, 65536, 200_000} {
			for _, op := range []gws.OpCode{gws.OpText, gws.OpBinary} {
				payload := strings.Repeat("\x7f", n)
				require.NoError(t, wsutil.WriteClientMessage(c, op, []byte(payload)))
				f := c.Next()
				assert.Equal(t, op, f.Header.OpCode)
				assert.True(t, f.Header.Fin)
				assert.False(t, f.Header.Masked)
				assert.True(t, payload == string(f.Payload), "%d bytes", n)
			}
		}
		c.WriteRaw(harness.Fragment(2, false, "a") + harness.Frame(9, "p") + harness.Fragment(0, false, "b") + harness.Fragment(0, true, "c"))
		f := c.Next()
		assert.Equal(t, gws.OpBinary, f.Header.OpCode)
		assert.Equal(t, "abc", string(f.Payload))

		for range 20 { // no envelope, so none is invalid
			c.Send("no JSON")
			c.Expect("no JSON")
		}
		s.HandleRaw(nil)
		c.Send("no JSON")
		c.ExpectReply("", 400, "")
	})
}

// Many messages of one read are answered in order.
func TestHandleRawPipelined(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode, func(c *ws.Config) { c.MailboxSize, c.MessageQueueSize = 5000, 5000 })
		s.HandleRaw(harness.Echo)
		c := s.Dial(w)
		const n = 1000
		var messages []string
		for i := range n {
			messages = append(messages, strings.Repeat("x", i%50)+"!")
		}
		c.Send(messages...)
		c.Expect(messages...)
	})
}

// A raw handler's panic ends neither the process nor the connection.
func TestHandleRawPanics(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		r := harness.NewRecorder()
		s := harness.Start(t, mode, ws.WithMetrics(r))
		s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) {
			if string(payload) == "panic" {
				panic("raw")
			}
			harness.Echo(c, op, payload)
		})
		failures := s.Events(ws.EventError)
		c, sc := s.DialClient(w)
		c.Send("panic", "alive?")
		c.Expect("alive?")
		e := harness.Receive(t, failures, "no EventError")
		assert.Equal(t, sc.ID, e.ClientID)
		assert.ErrorContains(t, e.Data.(error), "raw")
		assert.Equal(t, 1, r.Get("errors "))
	})
}

// An inline handler that joins rooms fills the ring of its own loop, which takes
// nothing from it until the handler has returned: what it then sends to its
// client is not refused for that, and stays behind the joins.
func TestSendBehindJoinsIsNotRefused(t *testing.T) {
	s := harness.Start(t, ws.WithHandlerMode(ws.Inline), ws.WithLoops(1), func(c *ws.Config) { c.Broadcast.QueueSize = 4 })
	errs := make(chan error, 200)
	s.HandleRaw(func(c *ws.Client, _ ws.Opcode, _ []byte) {
		for i := range 50 {
			errs <- c.JoinRoom(strconv.Itoa(i))
		}
		for i := range 100 {
			errs <- c.SendBytes([]byte(strconv.Itoa(i)))
		}
		errs <- c.SendBytesHigh([]byte("high"))
	})
	c := s.Dial(harness.Native)
	c.Send("go")
	for range 151 {
		require.NoError(t, <-errs)
	}
	got := map[string]bool{}
	for i, high := 0, 0; i < 101; i++ {
		text := string(c.Next().Payload)
		got[text] = true
		if text == "high" {
			high++
			continue
		}
		require.Equal(t, strconv.Itoa(i-high), text, "in order")
	}
	assert.True(t, got["high"])
}
