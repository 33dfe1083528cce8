package ws_test

import (
	"errors"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// A binary frame is no envelope, whatever it contains.
func TestBinaryMessagesAreRefused(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		failures := s.events(ws.EventError)
		c := s.dial(w)
		for i, payload := range []string{"\xff\xfe", "", request("only", "7", "")} {
			c.raw(frame(gws.OpBinary, payload))
			c.expectReply([]string{"", "", "7"}[i], 400, "invalid message type: binary")
		}
		c.send(request("only", "8", ""))
		c.expectReply("8", 200, "")
		for range 10 {
			c.raw(frame(gws.OpBinary, "?"))
			c.expectReply("", 400, "")
		}
		c.raw(frame(gws.OpBinary, "?"))
		c.expectClose(1008)
		assert.ErrorIs(t, receive(t, failures, "no EventError").Data.(error), ws.ErrInvalidMessageType)
		c.finish(1008)
	})
}

// HandleBinary takes binary messages beside envelopes, in one order with them, also where
// some routes are inline and some pooled.
func TestHandleBinary(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		s.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBinary(payload) })
		c := s.dial(w)
		for round := range 3 {
			for range 20 {
				c.raw(frame(gws.OpBinary, "\xff\x00") + frame(gws.OpText, request("only", "r", "")) + frame(gws.OpBinary, ""))
			}
			for range 20 {
				f := c.read()
				assert.Equal(t, gws.OpBinary, f.Header.OpCode)
				assert.Equal(t, "\xff\x00", string(f.Payload))
				c.expectReply("r", 200, "")
				assert.Empty(t, c.read().Payload)
			}
			opposite := ws.RunInline()
			if round == 1 {
				opposite = ws.RunPooled()
			}
			require.NoError(t, s.Register([]string{"a", "b", "c"}[round], func(*ws.Client, *ws.Message) error { return nil }, opposite))
		}
		for range 10 { // a binary message ends the row of invalid ones
			c.send("?")
			c.expectReply("", 400, "")
		}
		c.raw(frame(gws.OpBinary, "!"))
		assert.Equal(t, "!", string(c.read().Payload))
		c.send("?")
		c.expectReply("", 400, "")
		s.HandleBinary(nil)
		c.raw(frame(gws.OpBinary, "!"))
		c.expectReply("", 400, "invalid message type: binary")
	})
}

// Middleware runs around raw handlers, and its errors reach clients that read envelopes.
func TestMiddlewareAroundRawHandlers(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		tr := new(trace)
		require.NoError(t, s.Use(tr.around("a"), func(_ *ws.Client, m *ws.Message, next ws.NextFunc) error {
			tr.add(m.Type)
			switch string(m.Data) {
			case "refuse":
				return ws.NewClientError(403, "no entry")
			case "fail":
				return errors.New("hunter2")
			case "change":
				m.Data = []byte("changed")
			}
			return next()
		}))
		c := s.dial(w)
		failures := s.events(ws.EventError)
		s.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBinary(payload) })
		c.raw(frame(gws.OpBinary, "\xff") + frame(gws.OpBinary, "refuse") + frame(gws.OpBinary, "fail") + frame(gws.OpBinary, "change"))
		assert.Equal(t, "\xff", string(c.read().Payload))
		c.expectReply("", 403, "no entry")
		c.expectReply("", 500, "internal error")
		assert.Equal(t, "changed", string(c.read().Payload))
		eventually(t, func() bool { return len(tr.peek()) == len("a( raw )a")*4+3 }, "not done")
		assert.Equal(t, "a( raw )a a( raw )a a( raw )a a( raw )a", tr.take())
		assert.ErrorContains(t, receive(t, failures, "no EventError").Data.(error), "hunter2")

		s.HandleRaw(echo)
		c.raw(frame(gws.OpText, "refuse") + frame(gws.OpText, "fail") + frame(gws.OpText, "change") + frame(gws.OpBinary, "\xff"))
		c.expect("changed")
		f := c.read()
		assert.Equal(t, gws.OpBinary, f.Header.OpCode)
		assert.Equal(t, "\xff", string(f.Payload), "and no answers to the first two")
		assert.ErrorContains(t, receive(t, failures, "no EventError").Data.(error), "hunter2")
	})
}
