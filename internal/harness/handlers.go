package harness

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

// Greeting is the request of RegisterGreetings.
type Greeting struct {
	Name string `json:"name"`
}

// Welcome is the response of RegisterGreetings.
type Welcome struct {
	Text string `json:"text"`
}

// RegisterGreetings registers a handler for each outcome.
func RegisterGreetings(t *testing.T, m *ws.Manager) {
	t.Helper()
	greet := func(_ *ws.Client, req *Greeting) (*Welcome, error) {
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
		return &Welcome{"hello, " + req.Name}, nil
	}
	require.NoError(t, ws.Handle(m, "greet", greet))
	require.NoError(t, ws.Handle0(m, "greet0", func(c *ws.Client, req *Greeting) error {
		_, err := greet(c, req)
		return err
	}))
	require.NoError(t, ws.HandleOnly(m, "only", func(*ws.Client) (*Welcome, error) {
		return &Welcome{"no questions"}, nil
	}))
	require.NoError(t, ws.HandleOnly(m, "only.error", func(*ws.Client) (*Welcome, error) {
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

// RegisterBlock registers "block", a handler that sends the request ID to entered and answers after
// release has been called.
func RegisterBlock(t *testing.T, m *ws.Manager) (entered <-chan string, release func()) {
	t.Helper()
	begun, released := make(chan string, 10_000), make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	require.NoError(t, m.Register("block", func(c *ws.Client, m *ws.Message) error {
		begun <- m.RequestID
		<-released
		return c.SendResponse(m.RequestID, 200, "success", nil)
	}))
	return begun, release
}

// BlockMessage returns a request for the handler of RegisterBlock.
func BlockMessage(id int) string { return Request("block", strconv.Itoa(id), "") }

// Echo is a raw handler that sends each message back.
func Echo(c *ws.Client, op ws.Opcode, payload []byte) {
	if op == ws.OpBinary {
		_ = c.SendBinary(payload)
		return
	}
	_ = c.SendBytes(payload)
}

// OneBlockingLoop configures a single event loop, for BlockLoop.
func OneBlockingLoop(c *ws.Config) {
	c.Loops, c.HandlerMode = 1, ws.Inline
}

// BlockLoop blocks the only event loop until release is called.
func (s *Server) BlockLoop(c *Client) (release func()) {
	s.T.Helper()
	entered, done := make(chan struct{}), make(chan struct{})
	s.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
		close(entered)
		<-done
	})
	c.Send("block")
	Receive(s.T, entered, "the handler did not run")
	s.HandleRaw(nil)
	release = sync.OnceFunc(func() { close(done) })
	s.T.Cleanup(release)
	return release
}
