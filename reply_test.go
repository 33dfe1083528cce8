package ws_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Errors of the library that a handler returns are answered with their codes and texts,
// and are no errors for the operator, unless the server is to blame.
func TestLibraryErrorsAreAnswered(t *testing.T) {
	tests := []struct {
		err    error
		code   int
		text   string
		logged bool
	}{
		{ws.ErrRoomFull, 409, "room full", false},
		{ws.ErrAlreadyInRoom, 409, "already in room", false},
		{ws.ErrTooManyRooms, 409, "too many rooms", false},
		{ws.ErrRoomExists, 409, "room exists", false},
		{ws.ErrRoomNotFound, 404, "room not found", false},
		{ws.ErrClientNotFound, 404, "client not found", false},
		{ws.ErrInvalidRoom, 400, "room ID too long", false},
		{ws.ErrConnectionClosed, 410, "connection closed", false},
		{ws.ErrBroadcastTimeout, 503, "an event loop's ring stayed full", true},
		{ws.ErrChannelFull, 503, "queue full", true},
		{errors.Join(ws.ErrManagerStopped, ws.ErrRoomNotFound), 503, "stopped", true},
		{errors.New("hunter2"), 500, "internal error", true},
	}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		log := new(harness.Buffer)
		s := harness.Start(t, mode, func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		require.NoError(t, ws.Handle0(s.Manager, "fail", func(_ *ws.Client, i *int) error {
			return fmt.Errorf("hunter2: %w", tests[*i].err)
		}))
		errs := s.Events(ws.EventError)
		c := s.Dial(w)
		for i, tt := range tests {
			c.Send(harness.Request("fail", "r", strconv.Itoa(i)))
			e := c.ReadEnvelope()
			assert.Equal(t, tt.code, e.Code, "%v", tt.err)
			assert.Equal(t, tt.text, e.Message, "%v", tt.err)
			if tt.logged {
				assert.ErrorIs(t, harness.Receive(t, errs, "no EventError of %v", tt.err).Data.(error), tt.err)
				harness.Eventually(t, func() bool { return harness.ContainsLine(log.String(), e.TraceID, "hunter2", "ERROR") },
					"%v", tt.err)
			} else {
				assert.NotContains(t, log.String(), e.TraceID)
			}
		}
		assert.Empty(t, errs)
	})
}

// A handler that does not look at the errors of rooms answers with them.
func TestRoomErrorsOfHandlers(t *testing.T) {
	s := harness.Start(t, func(c *ws.Config) { c.Room.MaxRoomSize = 1 })
	require.NoError(t, ws.Handle0(s.Manager, "join", func(c *ws.Client, room *string) error { return c.JoinRoom(*room) }))
	require.NoError(t, ws.Handle0(s.Manager, "say", func(_ *ws.Client, room *string) error {
		return s.BroadcastToRoom(*room, []byte("hi"), nil)
	}))
	a, b := s.Dial(harness.Native), s.Dial(harness.NetHTTP)
	a.Send(harness.Request("join", "1", `"r"`), harness.Request("join", "2", `"r"`),
		harness.Request("say", "3", `"nowhere"`))
	a.ExpectReply("1", 200, "success")
	a.ExpectReply("2", 409, "already in room")
	a.ExpectReply("3", 404, "room not found")
	b.Send(harness.Request("join", "4", `"r"`))
	b.ExpectReply("4", 409, "room full")
}

func TestClientErrorData(t *testing.T) {
	invalid := ws.NewClientError(422, "invalid form")
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		require.NoError(t, ws.Handle0(s.Manager, "form", func(_ *ws.Client, kind *string) error {
			switch *kind {
			case "fields":
				return fmt.Errorf("wrapped: %w", invalid.WithData(map[string]string{"email": "is missing"}))
			case "unencodable":
				return invalid.WithData(make(chan int))
			}
			return invalid
		}))
		c := s.Dial(w)
		c.Send(harness.Request("form", "1", `"fields"`), harness.Request("form", "2", `"unencodable"`),
			harness.Request("form", "3", `""`))
		assert.JSONEq(t, `{"email":"is missing"}`, c.ExpectReply("1", 422, "invalid form"))
		assert.Empty(t, c.ExpectReply("2", 422, "invalid form"))
		assert.Empty(t, c.ExpectReply("3", 422, "invalid form"), "WithData returns a copy")
	})
}

// secretive is a type with an UnmarshalJSON of its own.
type secretive struct{}

func (*secretive) UnmarshalJSON([]byte) error { return errors.New("table users_hunter2 is locked") }

// form has a field of each kind of JSON.
type form struct {
	User struct {
		Name string `json:"name"`
		Age  int8   `json:"age"`
	} `json:"user"`
	Count  uint16         `json:"count"`
	Price  float64        `json:"price"`
	Active bool           `json:"active"`
	Tags   []string       `json:"tags"`
	Extra  map[string]int `json:"extra"`
	Addr   netip.Addr     `json:"addr"`
	Next   *int           `json:"next"`
	Secret secretive      `json:"secret"`
	At     time.Time      `json:"at"`
}

func TestDecodeErrorsNameTheField(t *testing.T) {
	tests := []struct{ data, text string }{
		{`"text"`, "invalid data: must be an object, not a string"},
		{`[1]`, "invalid data: must be an object, not an array"},
		{`{"user":{"name":7}}`, "invalid data: user.name must be a string, not a number"},
		{`{"user":{"age":"7"}}`, "invalid data: user.age must be an integer from -128 to 127, not a string"},
		{`{"user":{"age":128}}`, "invalid data: user.age must be an integer from -128 to 127"},
		{`{"user":{"age":1.5}}`, "invalid data: user.age must be an integer from -128 to 127"},
		{`{"count":-1}`, "invalid data: count must be an integer from 0 to 65535"},
		{`{"price":true}`, "invalid data: price must be a number of 64 bits, not a boolean"},
		{`{"price":1e999}`, "invalid data: price must be a number of 64 bits"},
		{`{"active":{}}`, "invalid data: active must be a boolean, not an object"},
		{`{"tags":"a"}`, "invalid data: tags must be an array, not a string"},
		{`{"tags":[1]}`, "invalid data: tags must be a string, not a number"},
		{`{"extra":[]}`, "invalid data: extra must be an object, not an array"},
		{`{"addr":1}`, "invalid data: addr must be a string, not a number"},
		{`{"addr":"nowhere"}`, "invalid data"},
		{
			`{"next":"x"}`,
			"invalid data: next must be an integer from -9223372036854775808 to 9223372036854775807, not a string",
		},
		{`{"secret":1}`, "invalid data"},
		{`{"at":"yesterday"}`, "invalid data"},
	}
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		log := new(harness.Buffer)
		s := harness.Start(t, mode, func(c *ws.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		require.NoError(t, ws.Handle0(s.Manager, "typed", func(*ws.Client, *form) error { return nil }))
		require.NoError(t, s.Register("plain", func(_ *ws.Client, msg *ws.Message) error { return msg.Unmarshal(new(form)) }))
		c := s.Dial(w)
		for _, event := range []string{"typed", "plain"} {
			for _, tt := range tests {
				c.Send(harness.Request(event, "r", tt.data))
				e := c.ReadEnvelope()
				assert.Equal(t, 400, e.Code)
				assert.Equal(t, tt.text, e.Message, tt.data)
				if tt.text == "invalid data" {
					harness.Eventually(t, func() bool { return harness.ContainsLine(log.String(), e.TraceID, "INFO") }, tt.data)
				} else {
					assert.NotContains(t, log.String(), e.TraceID)
				}
			}
		}
		assert.Contains(t, log.String(), "users_hunter2")
	})
}

// The errors of Unmarshal can still be told apart.
func TestUnmarshalError(t *testing.T) {
	m, err := ws.NewMessageSimple("form", "text")
	require.NoError(t, err)
	err = m.Unmarshal(new(form))
	require.EqualError(t, err, `ws: decode data of "form": invalid data: must be an object, not a string (code 400)`)
	_, ok := errors.AsType[*json.UnmarshalTypeError](err)
	assert.True(t, ok)
	known, ok := errors.AsType[*ws.ClientError](err)
	require.True(t, ok)
	assert.Equal(t, 400, known.Code)
}
