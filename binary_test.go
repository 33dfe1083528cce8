package ws_test

import (
	"errors"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// A binary frame is no envelope, whatever it contains.
func TestBinaryMessagesAreRefused(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		failures := s.Events(ws.EventError)
		c := s.Dial(w)
		for i, payload := range []string{"\xff\xfe", "", harness.Request("only", "7", "")} {
			c.WriteRaw(harness.Frame(gws.OpBinary, payload))
			c.ExpectReply([]string{"", "", "7"}[i], 400, "invalid message type: binary")
		}
		c.Send(harness.Request("only", "8", ""))
		c.ExpectReply("8", 200, "")
		for range 10 {
			c.WriteRaw(harness.Frame(gws.OpBinary, "?"))
			c.ExpectReply("", 400, "")
		}
		c.WriteRaw(harness.Frame(gws.OpBinary, "?"))
		c.ExpectClose(1008)
		assert.ErrorIs(t, harness.Receive(t, failures, "no EventError").Data.(error), ws.ErrInvalidMessageType)
		c.Finish(1008)
	})
}

// HandleBinary takes binary messages beside envelopes, in one order with them, also where
// some routes are inline and some pooled.
func TestHandleBinary(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		s.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBinary(payload) })
		c := s.Dial(w)
		for round := range 3 {
			for range 20 {
				c.WriteRaw(harness.Frame(gws.OpBinary, "\xff\x00") + harness.Frame(gws.OpText, harness.Request("only", "r", "")) + harness.Frame(gws.OpBinary, ""))
			}
			for range 20 {
				f := c.Next()
				assert.Equal(t, gws.OpBinary, f.Header.OpCode)
				assert.Equal(t, "\xff\x00", string(f.Payload))
				c.ExpectReply("r", 200, "")
				assert.Empty(t, c.Next().Payload)
			}
			opposite := ws.RunInline()
			if round == 1 {
				opposite = ws.RunPooled()
			}
			require.NoError(t, s.Register([]string{"a", "b", "c"}[round], func(*ws.Client, *ws.Message) error { return nil }, opposite))
		}
		for range 10 { // a binary message ends the row of invalid ones
			c.Send("?")
			c.ExpectReply("", 400, "")
		}
		c.WriteRaw(harness.Frame(gws.OpBinary, "!"))
		assert.Equal(t, "!", string(c.Next().Payload))
		c.Send("?")
		c.ExpectReply("", 400, "")
		s.HandleBinary(nil)
		c.WriteRaw(harness.Frame(gws.OpBinary, "!"))
		c.ExpectReply("", 400, "invalid message type: binary")
	})
}

// Middleware runs around raw handlers, and its errors reach clients that read envelopes.
func TestMiddlewareAroundRawHandlers(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
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
		c := s.Dial(w)
		failures := s.Events(ws.EventError)
		s.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBinary(payload) })
		c.WriteRaw(harness.Frame(gws.OpBinary, "\xff") + harness.Frame(gws.OpBinary, "refuse") + harness.Frame(gws.OpBinary, "fail") + harness.Frame(gws.OpBinary, "change"))
		assert.Equal(t, "\xff", string(c.Next().Payload))
		c.ExpectReply("", 403, "no entry")
		c.ExpectReply("", 500, "internal error")
		assert.Equal(t, "changed", string(c.Next().Payload))
		harness.Eventually(t, func() bool { return len(tr.peek()) == len("a( raw )a")*4+3 }, "not done")
		assert.Equal(t, "a( raw )a a( raw )a a( raw )a a( raw )a", tr.take())
		assert.ErrorContains(t, harness.Receive(t, failures, "no EventError").Data.(error), "hunter2")

		s.HandleRaw(harness.Echo)
		c.WriteRaw(harness.Frame(gws.OpText, "refuse") + harness.Frame(gws.OpText, "fail") + harness.Frame(gws.OpText, "change") + harness.Frame(gws.OpBinary, "\xff"))
		c.Expect("changed")
		f := c.Next()
		assert.Equal(t, gws.OpBinary, f.Header.OpCode)
		assert.Equal(t, "\xff", string(f.Payload), "and no answers to the first two")
		assert.ErrorContains(t, harness.Receive(t, failures, "no EventError").Data.(error), "hunter2")
	})
}
