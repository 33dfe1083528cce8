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
)

// echo is a raw handler.
func echo(c *ws.Client, op ws.Opcode, payload []byte) {
	if op == ws.OpBinary {
		_ = c.SendBinary(payload)
		return
	}
	_ = c.SendBytes(payload)
}

func TestHandleRaw(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		s.HandleRaw(echo)
		c := s.dial(w)
		for _, n := range []int{0, 1, 125, 126, 4096, 65535, 65536, 200_000} {
			for _, op := range []gws.OpCode{gws.OpText, gws.OpBinary} {
				payload := strings.Repeat("\x7f", n)
				require.NoError(t, wsutil.WriteClientMessage(c, op, []byte(payload)))
				f := c.read()
				assert.Equal(t, op, f.Header.OpCode)
				assert.True(t, f.Header.Fin)
				assert.False(t, f.Header.Masked)
				assert.True(t, payload == string(f.Payload), "%d bytes", n)
			}
		}
		c.raw(fragment(2, false, "a") + frame(9, "p") + fragment(0, false, "b") + fragment(0, true, "c"))
		f := c.read()
		assert.Equal(t, gws.OpBinary, f.Header.OpCode)
		assert.Equal(t, "abc", string(f.Payload))

		for range 20 { // no envelope, so none is invalid
			c.send("no JSON")
			c.expect("no JSON")
		}
		s.HandleRaw(nil)
		c.send("no JSON")
		c.expectReply("", 400, "")
	})
}

// Many messages of one read are answered in order.
func TestHandleRawPipelined(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode, func(c *ws.Config) { c.MailboxSize, c.MessageQueueSize = 5000, 5000 })
		s.HandleRaw(echo)
		c := s.dial(w)
		const n = 1000
		var messages []string
		for i := range n {
			messages = append(messages, strings.Repeat("x", i%50)+"!")
		}
		c.send(messages...)
		c.expect(messages...)
	})
}

// A raw handler's panic ends neither the process nor the connection.
func TestHandleRawPanics(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		r := newRecorder()
		s := start(t, mode, ws.WithMetrics(r))
		s.HandleRaw(func(c *ws.Client, op ws.Opcode, payload []byte) {
			if string(payload) == "panic" {
				panic("raw")
			}
			echo(c, op, payload)
		})
		failures := s.events(ws.EventError)
		c, sc := s.dialClient(w)
		c.send("panic", "alive?")
		c.expect("alive?")
		e := receive(t, failures, "no EventError")
		assert.Equal(t, sc.ID, e.ClientID)
		assert.ErrorContains(t, e.Data.(error), "raw")
		assert.Equal(t, 1, r.get("errors "))
	})
}

// An inline handler that joins rooms fills the ring of its own loop, which takes
// nothing from it until the handler has returned: what it then sends to its
// client is not refused for that, and stays behind the joins.
func TestSendBehindJoinsIsNotRefused(t *testing.T) {
	s := start(t, ws.WithHandlerMode(ws.Inline), ws.WithLoops(1), func(c *ws.Config) { c.Broadcast.QueueSize = 4 })
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
	c := s.dial(native)
	c.send("go")
	for range 151 {
		require.NoError(t, <-errs)
	}
	got := map[string]bool{}
	for i, high := 0, 0; i < 101; i++ {
		text := string(c.read().Payload)
		got[text] = true
		if text == "high" {
			high++
			continue
		}
		require.Equal(t, strconv.Itoa(i-high), text, "in order")
	}
	assert.True(t, got["high"])
}
