package ws_test

import (
	"bytes"
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
)

type greeting struct {
	Name string `json:"name"`
}

type welcome struct {
	Text string `json:"text"`
}

// registerGreetings registers a handler for each outcome.
func registerGreetings(t *testing.T, m *ws.Manager) {
	t.Helper()
	greet := func(_ *ws.Client, req *greeting) (*welcome, error) {
		switch req.Name {
		case "forbidden":
			return nil, ws.NewClientError(403, "not you")
		case "wrapped":
			return nil, fmt.Errorf("looking up the name: %w", ws.NewClientError(409, "taken"))
		case "secret":
			return nil, errors.New("password of the database is hunter2")
		case "panic":
			panic("hunter2")
		case "nothing":
			return nil, nil
		}
		return &welcome{"hello, " + req.Name}, nil
	}
	require.NoError(t, ws.Handle(m, "greet", greet))
	require.NoError(t, ws.Handle0(m, "greet0", func(c *ws.Client, req *greeting) error {
		_, err := greet(c, req)
		return err
	}))
	require.NoError(t, ws.HandleOnly(m, "only", func(*ws.Client) (*welcome, error) {
		return &welcome{"no questions"}, nil
	}))
	require.NoError(t, ws.HandleOnly(m, "only.error", func(*ws.Client) (*welcome, error) {
		return nil, ws.NewClientError(418, "teapot")
	}))
	require.NoError(t, ws.HandleOnly(m, "only.unencodable", func(*ws.Client) (*chan int, error) {
		return new(chan int), nil
	}))
	require.NoError(t, ws.Handle(m, "number", func(_ *ws.Client, n *int) (*int, error) {
		square := *n * *n
		return &square, nil
	}))
	require.NoError(t, ws.Handle(m, "list", func(_ *ws.Client, names *[]string) (*int, error) {
		n := len(*names)
		return &n, nil
	}))
	require.NoError(t, m.Register("plain", func(c *ws.Client, msg *ws.Message) error {
		return c.SendResponse(msg.RequestID, 202, "later", map[string]any{"type": msg.Type, "at": msg.Timestamp})
	}))
	require.NoError(t, m.Register("silent", func(*ws.Client, *ws.Message) error { return nil }))
}

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
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		c := s.dial(w)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c := &client{Conn: c.Conn, r: c.r, t: t}
				id := "req_" + strconv.Itoa(i)
				c.send(request(tt.event, id, tt.data))
				data := c.expectReply(id, tt.code, tt.message)
				if tt.want == "" {
					assert.Empty(t, data)
				} else {
					assert.JSONEq(t, tt.want, data)
				}
			})
		}
	})
}

// What the client must not read goes to the log, with the reply's trace ID.
func TestHandlerErrorIsLogged(t *testing.T) {
	for _, name := range []string{"secret", "panic"} {
		t.Run(name, func(t *testing.T) {
			log := new(syncBuffer)
			s := start(t, func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			registerGreetings(t, s.Manager)
			c := s.dial(native)
			c.send(request("greet", "1", `{"name":"`+name+`"}`))
			e := c.readEnvelope()
			assert.Equal(t, 500, e.Code)
			assert.NotContains(t, e.Message, "hunter2")
			c.abort()
			s.shutdown()
			assert.Contains(t, log.String(), "hunter2")
			assert.Contains(t, log.String(), e.TraceID, "the log line of the reply's trace ID")
			if name == "panic" {
				assert.Contains(t, log.String(), "handler_test.go", "the stack")
			}
		})
	}
}

// syncBuffer is a bytes.Buffer. Safe for concurrent use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestRegisterPlainHandler(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		c := s.dial(w)
		c.send(request("plain", "r", ""))
		e := c.readEnvelope()
		assert.Equal(t, "response", e.Type)
		assert.Equal(t, "r", e.RequestID)
		assert.Equal(t, 202, e.Code)
		assert.Equal(t, "later", e.Message)
		assert.JSONEq(t, `{"type":"request","at":1707552000}`, string(e.Data))

		c.send(request("silent", "1", ""), request("only", "2", ""))
		c.expectReply("2", 200, "success") // and none for the first
	})
}

func TestRegisterErrors(t *testing.T) {
	m := newManager(t)
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
	s := start(t)
	c := s.dial(native)
	c.send(request("late", "1", ""))
	c.expectReply("1", 404, "")
	require.NoError(t, ws.HandleOnly(s.Manager, "late", func(*ws.Client) (*welcome, error) { return nil, nil }))
	c.send(request("late", "2", ""))
	c.expectReply("2", 200, "")
}

// A handler's panic is published, and the connection and the process live.
func TestHandlerPanicIsPublished(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		failures := make(chan ws.Event, 10)
		s.Subscribe(ws.EventError, func(e ws.Event) { failures <- e })
		c, sc := s.dialClient(w)
		c.send(request("greet", "1", `{"name":"panic"}`), request("only", "2", ""))
		c.expectReply("1", 500, "internal error")
		c.expectReply("2", 200, "success")
		e := receive(t, failures, "no EventError")
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
		{"request_id is a number", `{"event":"only","request_id":7}`, "7", "invalid message: request_id must be a string at byte 29"},
		{"type response", `{"type":"response","event":"only"}`, "", `invalid message type "response"`},
		{"type error", `{"type":"error","event":"only"}`, "", `invalid message type "error"`},
		{"unknown type", `{"type":"REQUEST","event":"only","request_id":"r"}`, "r", `invalid message type "REQUEST"`},
	}
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		for _, tt := range invalid {
			t.Run(tt.name, func(t *testing.T) {
				c := s.dial(w)
				c.send(tt.message, request("only", "after", ""))
				c.expectReply(tt.id, 400, tt.text)
				c.expectReply("after", 200, "success")
			})
		}
	})
}

func TestInvalidMessagesInARow(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		t.Run("ten are answered, the eleventh closes", func(t *testing.T) {
			c := s.dial(w)
			for range 10 {
				c.send("?")
				c.expectReply("", 400, "")
			}
			c.send("?")
			c.expectClose(1008)
			c.finish(1008)
		})
		t.Run("in one write", func(t *testing.T) {
			c := s.dial(w)
			c.raw(strings.Repeat(frame(1, "?"), 30))
			for range 10 {
				c.expectReply("", 400, "")
			}
			c.expectClose(1008)
		})
		t.Run("a valid one resets", func(t *testing.T) {
			c := s.dial(w)
			for range 3 {
				for range 10 {
					c.send("?")
					c.expectReply("", 400, "")
				}
				c.send(request("only", "ok", ""))
				c.expectReply("ok", 200, "")
			}
		})
		t.Run("an unknown type does not count", func(t *testing.T) {
			c := s.dial(w)
			for range 25 {
				c.send(`{"type":"ping"}`)
				c.expectReply("", 400, `invalid message type "ping"`)
			}
			for range 10 {
				c.send("?", `{"type":"ping"}`)
				c.expectReply("", 400, "")
				c.expectReply("", 400, "")
			}
			c.send("?")
			c.expectClose(1008)
			c.finish(1008)
		})
		t.Run("an unknown event is valid", func(t *testing.T) {
			c := s.dial(w)
			for range 25 {
				c.send(request("nobody", "", ""))
				c.expectReply("", 404, "")
			}
		})
	})
}

// A message without a type is a request.
func TestRequestWithoutType(t *testing.T) {
	onBothModes(t, func(t *testing.T, w way, mode ws.Option) {
		s := start(t, mode)
		registerGreetings(t, s.Manager)
		c := s.dial(w)
		for _, typ := range []string{"", `"type":null,`, `"type":"",`} {
			c.send(`{` + typ + `"event":"plain","request_id":"r"}`)
			assert.JSONEq(t, `{"type":"request","at":0}`, c.expectReplyOf("response", "r", 202))
		}
	})
}

// A notification is handled and not answered; its error is.
func TestNotifications(t *testing.T) {
	s := start(t)
	registerGreetings(t, s.Manager)
	c := s.dial(native)
	c.send(`{"type":"notify","event":"only"}`, request("only", "2", ""))
	c.expectReply("2", 200, "success")
}
