package ws_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// All values of the application pass through the functions of WithJSON.
func TestWithJSON(t *testing.T) {
	var marshaled, unmarshaled atomic.Int32
	errData := errors.New("of another library")
	s := harness.Start(t, ws.WithJSON(
		func(v any) ([]byte, error) {
			marshaled.Add(1)
			return json.Marshal(v)
		},
		func(data []byte, v any) error {
			unmarshaled.Add(1)
			if string(data) == `"bad"` {
				return errData
			}
			return json.Unmarshal(data, v)
		},
	))
	require.NoError(t, ws.Handle(s.Manager, "typed", func(_ *ws.Client, s *string) (*string, error) { return s, nil }))
	require.NoError(t, s.Register("message", func(c *ws.Client, msg *ws.Message) error {
		var v string
		if err := msg.Unmarshal(&v); err != nil {
			return err
		}
		return c.SendResponse(msg.RequestID, 201, "", v)
	}))
	require.NoError(t, ws.Handle0(s.Manager, "error", func(*ws.Client, *string) error {
		return ws.NewClientError(409, "taken").WithData(7)
	}))
	require.NoError(t, ws.Handle0(s.Manager, "json", func(c *ws.Client, s *string) error { return c.SendJSON(s) }))
	c := s.Dial(harness.Native)
	for _, tt := range []struct {
		event, data             string
		code                    int
		text, want              string
		marshaled, unmarshaling int32
	}{
		{"typed", `"a"`, 200, "success", `"a"`, 1, 1},
		{"message", `"a"`, 201, "", `"a"`, 1, 1},
		{"error", `"a"`, 409, "taken", `7`, 1, 1},
		{"typed", `"bad"`, 400, "invalid data", ``, 0, 1},
		{"typed", `7`, 400, "invalid data: must be a string, not a number", ``, 0, 1},
		{"message", `"bad"`, 400, "invalid data", ``, 0, 1},
		{"typed", ``, 200, "success", `""`, 1, 0},
	} {
		marshaled.Store(0)
		unmarshaled.Store(0)
		c.Send(harness.Request(tt.event, "1", tt.data))
		e := c.ReadEnvelope()
		assert.Equal(t, tt.code, e.Code, tt)
		assert.Equal(t, tt.text, e.Message, tt)
		assert.Equal(t, tt.want, string(e.Data), tt)
		assert.Equal(t, tt.marshaled, marshaled.Load(), tt)
		assert.Equal(t, tt.unmarshaling, unmarshaled.Load(), tt)
	}
	marshaled.Store(0)
	c.Send(harness.Request("json", "1", `"a"`))
	assert.Equal(t, `"a"`, string(c.Next().Payload))
	assert.EqualValues(t, 1, marshaled.Load())
}

// decoded is the target of the documents of FuzzUnmarshalJSON.
type decoded struct {
	A int8
	B string
	C []decoded
	D map[string]any
	E *json.Number
	F json.RawMessage
}

// A pooled decoder decodes as json.Unmarshal does, after every document before.
func FuzzUnmarshalJSON(f *testing.F) {
	for _, text := range []string{
		`{"A":1,"B":"x\u00e9<","C":[{"A":2},{"B":"y"}],"D":{"k":[1,null,true]},"E":1e9,"F":{"x":[1, 2]}}`,
		`{"A":300}`, `{"A":"1"}`, `{"B":"\ud800"}`, `{"C":[{"A":1},{"A":"x"}]}`, `{"E":"x"}`,
		`7`, `null`, `"s"`, `[]`, `{}`, ` {} `, "{}\n\t ", `{} {}`, `{}x`, `{`, "\"\n", `{"A":}`, `1 2`, `-`, `tru`, ``, ` `,
		strings.Repeat("[", 200) + strings.Repeat("]", 200), `"` + strings.Repeat("long", 1000) + `"`,
		`{"B":"` + strings.Repeat("x", 40<<10) + `"}`, "\x00", "\xff", "{\"B\":\"\xff\"}", `{"a":1,"A":2}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want decoded
		var gotAny, wantAny any
		for range 2 {
			compareErrors(t, json.Unmarshal(data, &want), ws.UnmarshalJSON(data, &got))
			compareErrors(t, json.Unmarshal(data, &wantAny), ws.UnmarshalJSON(data, &gotAny))
			if json.Valid(data) {
				assert.Equal(t, want, got)
				assert.Equal(t, wantAny, gotAny)
			}
		}
	})
}

func compareErrors(t *testing.T, want, got error) {
	t.Helper()
	assert.IsType(t, want, got)
	if want != nil && got != nil {
		assert.Equal(t, want.Error(), got.Error())
	}
}

// A pooled encoder encodes as json.Marshal does, after errors and large values, too.
func TestEncodeJSON(t *testing.T) {
	var c ws.Config
	for range 2 {
		for _, v := range []any{
			nil, 7, "<&>\u2028\xff\n", "\n",
			map[string]any{"b": 1, "a": []int{}},
			json.RawMessage(` {"x" : 1}` + "\n"),
			strings.Repeat("x", 100<<10), make(chan int), func() {}, json.RawMessage("{"),
			decoded{B: "z"},
		} {
			want, wantErr := json.Marshal(v)
			got, err := ws.EncodeJSON(&c, v)
			compareErrors(t, wantErr, err)
			assert.Equal(t, string(want), got)
		}
	}
}
