package ws_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestHandle(t *testing.T) {
	tests := []struct {
		name, event, data string
		code              int
		message, want     string
	}{
		{"answer", "greet", `{"name":"Ann"}`, 200, "success", `{"text":"hello, Ann"}`},
		{"UTF-8 and escapes", "greet", `{"name":"\u00c5 \"ä\" 😀"}`, 200, "success", `{"text":"hello, Å \"ä\" 😀"}`},
		{"unknown fields are ignored", "greet", `{"name":"Ann","age":7}`, 200, "success", `{"text":"hello, Ann"}`},
		{"no data", "greet", ``, 200, "success", `{"text":"hello, "}`},
		{"nil answer", "greet", `{"name":"nothing"}`, 200, "success", ""},
		{"ClientError", "greet", `{"name":"forbidden"}`, 403, "not you", ""},
		{"wrapped ClientError", "greet", `{"name":"wrapped"}`, 409, "taken", ""},
		{"any other error", "greet", `{"name":"secret"}`, 500, "internal error", ""},
		{"panic", "greet", `{"name":"panic"}`, 500, "internal error", ""},
		{"data of another type", "greet", `{"name":7}`, 400, "", ""},
		{"data that is no object", "greet", `"Ann"`, 400, "", ""},
		{"Handle0", "greet0", `{"name":"Ann"}`, 200, "success", ""},
		{"Handle0 ClientError", "greet0", `{"name":"forbidden"}`, 403, "not you", ""},
		{"Handle0 bad data", "greet0", `[]`, 400, "", ""},
		{"Handle0 panic", "greet0", `{"name":"panic"}`, 500, "internal error", ""},
		{"HandleOnly", "only", ``, 200, "success", `{"text":"no questions"}`},
		{"HandleOnly ignores data", "only", `["what","ever"]`, 200, "success", `{"text":"no questions"}`},
		{"HandleOnly ClientError", "only.error", ``, 418, "teapot", ""},
		{"answer that JSON cannot say", "only.unencodable", ``, 500, "internal error", ""},
		{"scalar", "number", `12`, 200, "success", `144`},
		{"scalar of another type", "number", `"12"`, 400, "", ""},
		{"array", "list", `["a","b"]`, 200, "success", `2`},
		{"unknown event", "greeet", `{}`, 404, "", ""},
		{"event names are exact", "Greet", `{}`, 404, "", ""},
		{"missing event", "", `{}`, 404, "", ""},
	}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		c := s.Dial(w)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c := &harness.Client{Conn: c.Conn, R: c.R, T: t}
				id := "req_" + strconv.Itoa(i)
				c.Send(harness.Request(tt.event, id, tt.data))
				data := c.ExpectReply(id, tt.code, tt.message)
				if tt.want == "" {
					assert.Empty(t, data)
				} else {
					assert.JSONEq(t, tt.want, data)
				}
			})
		}
	})
}

// Texts that the client must not read go to the log, with the reply's trace ID.
func TestHandlerErrorIsLogged(t *testing.T) {
	for _, name := range []string{"secret", "panic"} {
		t.Run(name, func(t *testing.T) {
			log := new(harness.Buffer)
			s := harness.Start(t, func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			harness.RegisterGreetings(t, s.Manager)
			c := s.Dial(harness.Native)
			c.Send(harness.Request("greet", "1", `{"name":"`+name+`"}`))
			e := c.ReadEnvelope()
			assert.Equal(t, 500, e.Code)
			assert.NotContains(t, e.Message, "hunter2")
			c.Abort()
			s.Stop()
			assert.Contains(t, log.String(), "hunter2")
			assert.Contains(t, log.String(), e.TraceID, "the log line of the reply's trace ID")
			if name == "panic" {
				assert.Contains(t, log.String(), "handlers.go", "the stack")
			}
		})
	}
}

func TestRegisterPlainHandler(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		c := s.Dial(w)
		c.Send(harness.Request("plain", "r", ""))
		e := c.ReadEnvelope()
		assert.Equal(t, "response", e.Type)
		assert.Equal(t, "r", e.RequestID)
		assert.Equal(t, 202, e.Code)
		assert.Equal(t, "later", e.Message)
		assert.JSONEq(t, `{"type":"request","at":1707552000}`, string(e.Data))

		c.Send(harness.Request("silent", "1", ""), harness.Request("only", "2", ""))
		c.ExpectReply("2", 200, "success") // and none for the first
	})
}

func TestRegisterErrors(t *testing.T) {
	m := harness.NewManager(t)
	h := func(*ws.Client, *ws.Message) error { return nil }
	require.NoError(t, m.Register("a", h))
	require.ErrorIs(t, m.Register("a", h), ws.ErrHandlerExists)
	require.ErrorIs(t, ws.HandleOnly(m, "a", func(*ws.Client) (*int, error) { return nil, nil }), ws.ErrHandlerExists)
	require.ErrorIs(t, ws.Handle0(m, "a", func(*ws.Client, *int) error { return nil }), ws.ErrHandlerExists)
	require.ErrorIs(t, ws.Handle(m, "a", func(*ws.Client, *int) (*int, error) { return nil, nil }), ws.ErrHandlerExists)
	require.ErrorIs(t, m.Register("a", nil), ws.ErrHandlerExists, "whatever the handler")
	require.ErrorIs(t, ws.Handle[int, int](m, "a", nil), ws.ErrHandlerExists)
	require.Error(t, m.Register("b", nil))
	require.Error(t, m.Register("", h))
	m.Router.Freeze()
	require.ErrorIs(t, m.Register("c", h), ws.ErrRouterFrozen)
	require.ErrorIs(t, m.Use(func(_ *ws.Client, _ *ws.Message, next ws.NextFunc) error { return next() }),
		ws.ErrRouterFrozen)
	assert.Equal(t, 1, m.Stats().Handlers)
}

// A handler that was registered while the manager runs serves the next message.
func TestRegisterWhileRunning(t *testing.T) {
	s := harness.Start(t)
	c := s.Dial(harness.Native)
	c.Send(harness.Request("late", "1", ""))
	c.ExpectReply("1", 404, "")
	require.NoError(t, ws.HandleOnly(s.Manager, "late", func(*ws.Client) (*harness.Welcome, error) { return nil, nil }))
	c.Send(harness.Request("late", "2", ""))
	c.ExpectReply("2", 200, "")
}

// A handler's panic is published, and the connection and the process live.
func TestHandlerPanicIsPublished(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		failures := make(chan ws.Event, 10)
		s.Subscribe(ws.EventError, func(e ws.Event) { failures <- e })
		c, sc := s.DialClient(w)
		c.Send(harness.Request("greet", "1", `{"name":"panic"}`), harness.Request("only", "2", ""))
		c.ExpectReply("1", 500, "internal error")
		c.ExpectReply("2", 200, "success")
		e := harness.Receive(t, failures, "no EventError")
		assert.Equal(t, ws.EventError, e.Type)
		assert.Equal(t, sc.ID, e.ClientID)
		err, ok := e.Data.(error)
		require.True(t, ok, "Data is a %T", e.Data)
		assert.ErrorContains(t, err, "hunter2")
	})
}

func TestInvalidMessages(t *testing.T) {
	invalid := []struct{ name, message, id, text string }{
		{"no JSON", `hello`, "", "invalid message: not an object at byte 0"},
		{"empty", ``, "", "invalid message: not an object at byte 0"},
		{"half of an object", `{"type":"request"`, "", "invalid message: want a comma or the object's end at byte 17"},
		{"array", `[]`, "", "invalid message: not an object at byte 0"},
		{"null", `null`, "", "invalid message: not an object at byte 0"},
		{"number", `1`, "", "invalid message: not an object at byte 0"},
		{"two objects", `{"type":"request","event":"only"}{}`, "", "invalid message: bytes after the object at byte 33"},
		{"event is a number", `{"type":"request","event":7}`, "", "invalid message: event must be a string at byte 26"},
		{
			"timestamp is a string", `{"type":"request","event":"only","timestamp":"now","request_id":"r"}`,
			"r", "invalid message: timestamp must be a 64-bit integer at byte 45",
		},
		{
			"request_id is a number", `{"event":"only","request_id":7}`, "7",
			"invalid message: request_id must be a string at byte 29",
		},
		{"type response", `{"type":"response","event":"only"}`, "", `invalid message type "response"`},
		{"type error", `{"type":"error","event":"only"}`, "", `invalid message type "error"`},
		{"unknown type", `{"type":"REQUEST","event":"only","request_id":"r"}`, "r", `invalid message type "REQUEST"`},
	}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		for _, tt := range invalid {
			t.Run(tt.name, func(t *testing.T) {
				c := s.Dial(w)
				c.Send(tt.message, harness.Request("only", "after", ""))
				c.ExpectReply(tt.id, 400, tt.text)
				c.ExpectReply("after", 200, "success")
			})
		}
	})
}

func TestInvalidMessagesInARow(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		t.Run("ten are answered, the eleventh closes", func(t *testing.T) {
			c := s.Dial(w)
			for range 10 {
				c.Send("?")
				c.ExpectReply("", 400, "")
			}
			c.Send("?")
			c.ExpectClose(1008)
			c.Finish(1008)
		})
		t.Run("in one write", func(t *testing.T) {
			c := s.Dial(w)
			c.WriteRaw(strings.Repeat(harness.Frame(1, "?"), 30))
			for range 10 {
				c.ExpectReply("", 400, "")
			}
			c.ExpectClose(1008)
		})
		t.Run("a valid one resets", func(t *testing.T) {
			c := s.Dial(w)
			for range 3 {
				for range 10 {
					c.Send("?")
					c.ExpectReply("", 400, "")
				}
				c.Send(harness.Request("only", "ok", ""))
				c.ExpectReply("ok", 200, "")
			}
		})
		t.Run("an unknown type does not count", func(t *testing.T) {
			c := s.Dial(w)
			for range 25 {
				c.Send(`{"type":"ping"}`)
				c.ExpectReply("", 400, `invalid message type "ping"`)
			}
			for range 10 {
				c.Send("?", `{"type":"ping"}`)
				c.ExpectReply("", 400, "")
				c.ExpectReply("", 400, "")
			}
			c.Send("?")
			c.ExpectClose(1008)
			c.Finish(1008)
		})
		t.Run("an unknown event is valid", func(t *testing.T) {
			c := s.Dial(w)
			for range 25 {
				c.Send(harness.Request("nobody", "", ""))
				c.ExpectReply("", 404, "")
			}
		})
	})
}

// A message without a type is a request.
func TestRequestWithoutType(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		c := s.Dial(w)
		for _, typ := range []string{"", `"type":null,`, `"type":"",`} {
			c.Send(`{` + typ + `"event":"plain","request_id":"r"}`)
			assert.JSONEq(t, `{"type":"request","at":0}`, expectReplyOf(c, "response", "r", 202))
		}
	})
}

// A notification is handled and not answered; its error is.
func TestNotifications(t *testing.T) {
	s := harness.Start(t)
	harness.RegisterGreetings(t, s.Manager)
	c := s.Dial(harness.Native)
	c.Send(`{"type":"notify","event":"only"}`, harness.Request("only", "2", ""))
	c.ExpectReply("2", 200, "success")
}

// TestTraceID asserts that a handler can log the trace ID of its answer.
func TestTraceID(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		traces := make(chan string, 1)
		require.NoError(t, s.Use(func(_ *ws.Client, msg *ws.Message, next ws.NextFunc) error {
			traces <- msg.TraceID()
			return next()
		}))
		c := s.Dial(w)
		for _, name := range []string{"Ann", "forbidden", "panic"} {
			c.Send(harness.Request("greet", "1", `{"name":"`+name+`"}`))
			e := c.ReadEnvelope()
			assert.Len(t, e.TraceID, 16)
			assert.Equal(t, e.TraceID, harness.Receive(t, traces, "no message"))
		}
	})
}

// TestTraceOfMiddleware asserts that a middleware reads the traceparent of a request, and that
// the answer has the trace ID of the middleware.
func TestTraceOfMiddleware(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	give := map[string]string{
		``:                                     "",
		`,"traceparent":"` + parent + `"`:      parent,
		`,"trace\u0070arent":"` + parent + `"`: parent,
		`,"traceparent":null`:                  "",
		`,"traceparent":17`:                    "",
		`,"traceparent":{"a":"b"}`:             "",
		`,"traceparent":"0\u0030"`:             "",
		`,"traceparent":""`:                    "",
		`,"traceparent":"` + strings.Repeat("0", 255) + `"`: "",
	}
	id := [16]byte{0: 0x4b, 15: 0x36}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		harness.RegisterGreetings(t, s.Manager)
		parents := make(chan string, 1)
		require.NoError(t, s.Use(func(_ *ws.Client, msg *ws.Message, next ws.NextFunc) error {
			parents <- msg.TraceParent()
			msg.SetTraceID(id)
			return next()
		}))
		c := s.Dial(w)
		for field, want := range give {
			for _, name := range []string{"Ann", "forbidden", "panic"} {
				c.Send(fmt.Sprintf(`{"event":"greet","request_id":"1","data":{"name":%q}%s}`, name, field))
				assert.Equal(t, "4b000000000000000000000000000036", c.ReadEnvelope().TraceID)
				assert.Equal(t, want, harness.Receive(t, parents, "no message"), field)
			}
		}
	})
}

// trace is a list of steps. Safe for concurrent use.
type trace struct {
	mu    sync.Mutex
	steps []string // guarded by mu
}

func (tr *trace) add(step string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.steps = append(tr.steps, step)
}

// take returns the steps, joined by spaces, and forgets them.
func (tr *trace) take() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	defer func() { tr.steps = nil }()
	return strings.Join(tr.steps, " ")
}

// peek returns the steps, joined by spaces.
func (tr *trace) peek() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return strings.Join(tr.steps, " ")
}

// around is a middleware that records its begin and end.
func (tr *trace) around(name string) ws.MiddlewareFunc {
	return func(_ *ws.Client, _ *ws.Message, next ws.NextFunc) error {
		tr.add(name + "(")
		defer tr.add(")" + name)
		return next()
	}
}

func TestMiddleware(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		tr := new(trace)
		require.NoError(t, s.Use(tr.around("a"), tr.around("b")))
		require.NoError(t, ws.Handle(s.Manager, "echo", func(_ *ws.Client, req *string) (*string, error) {
			tr.add("handler")
			return req, nil
		}))
		require.NoError(t, s.Use(tr.around("c")), "also around handlers that there are already")
		require.NoError(t, s.Use(func(_ *ws.Client, m *ws.Message, next ws.NextFunc) error {
			switch m.RequestID {
			case "stop":
				return nil
			case "refuse":
				return ws.NewClientError(403, "no entry")
			case "fail":
				return errors.New("secret")
			case "panic":
				panic("middleware")
			case "replace":
				other, err := ws.NewMessageSimple("echo", "another")
				if err != nil {
					return err
				}
				other.RequestID = "replaced"
				*m = *other
			case "change":
				m.Data = []byte(`"changed"`)
			case "twice":
				if err := next(); err != nil {
					return err
				}
			}
			return next()
		}))
		c := s.Dial(w)
		const all = "a( b( c( handler )c )b )a"
		const stopped = "a( b( c( )c )b )a"
		tests := []struct {
			id, replyID string
			code        int
			data, want  string
		}{
			{"pass", "pass", 200, `"hi"`, all},
			{"refuse", "refuse", 403, "", stopped},
			{"fail", "fail", 500, "", stopped},
			{"panic", "panic", 500, "", stopped},
			{"replace", "replaced", 200, `"another"`, all},
			{"change", "change", 200, `"changed"`, all},
		}
		for _, tt := range tests {
			t.Run(tt.id, func(t *testing.T) {
				c := &harness.Client{Conn: c.Conn, R: c.R, T: t}
				c.Send(harness.Request("echo", tt.id, `"hi"`))
				assert.Equal(t, tt.data, c.ExpectReply(tt.replyID, tt.code, ""))
				harness.Eventually(t, func() bool { return strings.HasSuffix(tr.peek(), ")a") }, "not done")
				assert.Equal(t, tt.want, tr.take())
			})
		}
		c.Send(harness.Request("echo", "stop", `"hi"`), harness.Request("echo", "twice", `"hi"`))
		c.ExpectReply("twice", 200, "") // and no reply to "stop"
		c.ExpectReply("twice", 200, "")
		c.Send(harness.Request("nobody", "n", ""))
		c.ExpectReply("n", 404, "")
		tr.take()
		c.Send(harness.Request("nobody", "n", ""))
		c.ExpectReply("n", 404, "")
		assert.Empty(t, tr.take(), "a message without a handler meets no middleware")

		s.Router.Freeze()
		require.ErrorIs(t, s.Use(tr.around("d")), ws.ErrRouterFrozen)
		c.Send(harness.Request("echo", "frozen", `"hi"`))
		c.ExpectReply("frozen", 200, "")
		harness.Eventually(t, func() bool { return strings.HasSuffix(tr.peek(), ")a") }, "not done")
		assert.Equal(t, all, tr.take())
		require.Error(t, s.Use(nil))
	})
}

// A middleware that goes on on another goroutine gets an error, and the handler does not
// run.
func TestNextOnAnotherGoroutine(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		require.NoError(t, s.Use(func(_ *ws.Client, m *ws.Message, next ws.NextFunc) error {
			if m.RequestID != "elsewhere" {
				return next()
			}
			done := make(chan error)
			go func() { done <- next() }()
			return <-done
		}))
		tr := new(trace)
		require.NoError(t, s.Register("a", func(c *ws.Client, m *ws.Message) error {
			tr.add(m.RequestID)
			return c.SendResponse(m.RequestID, 200, "", nil)
		}))
		c := s.Dial(w)
		c.Send(harness.Request("a", "elsewhere", ""), harness.Request("a", "here", ""))
		c.ExpectReply("elsewhere", 500, "internal error")
		c.ExpectReply("here", 200, "")
		assert.Equal(t, "here", tr.take())
	})
}
