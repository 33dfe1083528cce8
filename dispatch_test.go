package ws_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// BenchmarkRoute handles one message as a loop or a worker does: parse the
// envelope, find the handler, run it. The typed handler also decodes its
// request and encodes its response, which a client that is not connected then
// refuses.
func BenchmarkRoute(b *testing.B) {
	m, err := ws.NewManager()
	if err != nil {
		b.Fatal(err)
	}
	type say struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	if err := m.Register("plain", func(*ws.Client, *ws.Message) error { return nil }); err != nil {
		b.Fatal(err)
	}
	if err := ws.Handle(m, "typed", func(_ *ws.Client, req *say) (*say, error) { return req, nil }); err != nil {
		b.Fatal(err)
	}
	c := ws.NewTestClient(m)
	for _, event := range []string{"plain", "typed"} {
		b.Run("handler="+event, func(b *testing.B) {
			msg := []byte(`{"type":"request","event":"` + event +
				`","request_id":"req_1","data":{"room":"lobby","text":"hello, everybody"},"timestamp":1707552000}`)
			b.ReportAllocs()
			b.SetBytes(int64(len(msg)))
			for b.Loop() {
				ws.HandleMessage(c, msg)
			}
		})
	}
}

// BenchmarkPrepare encodes a broadcast.
func BenchmarkPrepare(b *testing.B) {
	payload := make([]byte, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		ws.Prepare(ws.OpText, payload)
	}
}

func TestHandleRaw(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		s.HandleRaw(harness.Echo)
		c := s.Dial(w)
		for _, n := range []int{0, 1, 125, 126, 4096, 65535, 65536, 200_000} {
			for _, op := range []gobwas.OpCode{gobwas.OpText, gobwas.OpBinary} {
				payload := strings.Repeat("\x7f", n)
				require.NoError(t, wsutil.WriteClientMessage(c, op, []byte(payload)))
				f := c.Next()
				assert.Equal(t, op, f.Header.OpCode)
				assert.True(t, f.Header.Fin)
				assert.False(t, f.Header.Masked)
				assert.True(t, payload == string(f.Payload), "%d bytes", n)
			}
		}
		c.WriteRaw(harness.Fragment(2, false, "a") + harness.Frame(9, "p") +
			harness.Fragment(0, false, "b") + harness.Fragment(0, true, "c"))
		f := c.Next()
		assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
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

// An inline handler that joins rooms fills the ring of its own loop, which takes nothing from it
// until the handler has returned: its later messages to its client are not refused for that, and
// stays behind the joins.
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

// A binary frame is no envelope, whatever it contains.
func TestBinaryMessagesAreRefused(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		failures := s.Events(ws.EventError)
		c := s.Dial(w)
		for i, payload := range []string{"\xff\xfe", "", harness.Request("only", "7", "")} {
			c.WriteRaw(harness.Frame(gobwas.OpBinary, payload))
			c.ExpectReply([]string{"", "", "7"}[i], 400, "invalid message type: binary")
		}
		c.Send(harness.Request("only", "8", ""))
		c.ExpectReply("8", 200, "")
		for range 10 {
			c.WriteRaw(harness.Frame(gobwas.OpBinary, "?"))
			c.ExpectReply("", 400, "")
		}
		c.WriteRaw(harness.Frame(gobwas.OpBinary, "?"))
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
				c.WriteRaw(harness.Frame(gobwas.OpBinary, "\xff\x00") +
					harness.Frame(gobwas.OpText, harness.Request("only", "r", "")) + harness.Frame(gobwas.OpBinary, ""))
			}
			for range 20 {
				f := c.Next()
				assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
				assert.Equal(t, "\xff\x00", string(f.Payload))
				c.ExpectReply("r", 200, "")
				assert.Empty(t, c.Next().Payload)
			}
			opposite := ws.RunInline()
			if round == 1 {
				opposite = ws.RunPooled()
			}
			require.NoError(t, s.Register([]string{"a", "b", "c"}[round], func(*ws.Client, *ws.Message) error { return nil },
				opposite))
		}
		for range 10 { // a binary message ends the row of invalid ones
			c.Send("?")
			c.ExpectReply("", 400, "")
		}
		c.WriteRaw(harness.Frame(gobwas.OpBinary, "!"))
		assert.Equal(t, "!", string(c.Next().Payload))
		c.Send("?")
		c.ExpectReply("", 400, "")
		s.HandleBinary(nil)
		c.WriteRaw(harness.Frame(gobwas.OpBinary, "!"))
		c.ExpectReply("", 400, "invalid message type: binary")
	})
}

// UseIf passes over the messages that are not wanted, with and without the envelope.
func TestUseIf(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		wanted := func(c *ws.Client, msg *ws.Message) bool {
			return (msg.Type == ws.TypeRaw || strings.Contains(string(msg.Data), "refuse")) && assert.NotNil(t, c)
		}
		refuse := func(_ *ws.Client, msg *ws.Message, next ws.NextFunc) error {
			if strings.Contains(string(msg.Data), "refuse") {
				return ws.NewClientError(403, "no entry")
			}
			return next()
		}
		unwanted := func(_ *ws.Client, msg *ws.Message) bool { return msg.Type == ws.TypeNotify }
		fail := func(*ws.Client, *ws.Message, ws.NextFunc) error { return errors.New("not wanted") }
		require.NoError(t, s.UseIf(unwanted, fail))
		require.NoError(t, s.UseIf(wanted, refuse))
		require.NoError(t, s.UseIf(unwanted, fail))
		require.Error(t, s.UseIf(nil, refuse))
		c := s.Dial(w)
		c.Send(harness.Request("greet", "1", `{"name":"Ann"}`), harness.Request("greet", "2", `{"name":"refuse"}`))
		c.ExpectReply("1", 200, "success")
		c.ExpectReply("2", 403, "no entry")
		s.HandleBinary(func(c *ws.Client, payload []byte) { _ = c.SendBinary(payload) })
		c.WriteRaw(harness.Frame(gobwas.OpBinary, "refuse") + harness.Frame(gobwas.OpBinary, "\xff"))
		c.ExpectReply("", 403, "no entry")
		assert.Equal(t, "\xff", string(c.Next().Payload))
		s.Router.Freeze()
		require.ErrorIs(t, s.UseIf(wanted, refuse), ws.ErrRouterFrozen)
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
		c.WriteRaw(harness.Frame(gobwas.OpBinary, "\xff") + harness.Frame(gobwas.OpBinary, "refuse") +
			harness.Frame(gobwas.OpBinary, "fail") + harness.Frame(gobwas.OpBinary, "change"))
		assert.Equal(t, "\xff", string(c.Next().Payload))
		c.ExpectReply("", 403, "no entry")
		c.ExpectReply("", 500, "internal error")
		assert.Equal(t, "changed", string(c.Next().Payload))
		harness.Eventually(t, func() bool { return len(tr.peek()) == len("a( raw )a")*4+3 }, "not done")
		assert.Equal(t, "a( raw )a a( raw )a a( raw )a a( raw )a", tr.take())
		assert.ErrorContains(t, harness.Receive(t, failures, "no EventError").Data.(error), "hunter2")

		s.HandleRaw(harness.Echo)
		c.WriteRaw(harness.Frame(gobwas.OpText, "refuse") + harness.Frame(gobwas.OpText, "fail") +
			harness.Frame(gobwas.OpText, "change") + harness.Frame(gobwas.OpBinary, "\xff"))
		c.Expect("changed")
		f := c.Next()
		assert.Equal(t, gobwas.OpBinary, f.Header.OpCode)
		assert.Equal(t, "\xff", string(f.Payload), "and no answers to the first two")
		assert.ErrorContains(t, harness.Receive(t, failures, "no EventError").Data.(error), "hunter2")
	})
}
