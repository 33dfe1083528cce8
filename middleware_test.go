package ws_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// trace is a list of what happened. Safe for concurrent use.
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

// around is a middleware that tells when it begins and ends.
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
