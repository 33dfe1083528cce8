package ws_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

func TestNewMessage(t *testing.T) {
	tests := []struct {
		name   string
		make   func(string, any) (*ws.Message, error)
		typ    string
		pooled bool
	}{
		{"NewMessage", ws.NewMessage, ws.TypeRequest, true},
		{"NewNotifyMessage", ws.NewNotifyMessage, ws.TypeNotify, true},
		{"NewMessageSimple", ws.NewMessageSimple, ws.TypeRequest, false},
		{"NewNotifyMessageSimple", ws.NewNotifyMessageSimple, ws.TypeNotify, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := tt.make("chat.send", map[string]int{"n": 7})
			require.NoError(t, err)
			assert.Equal(t, tt.typ, m.Type)
			assert.Equal(t, "chat.send", m.Event)
			assert.Empty(t, m.RequestID)
			assert.JSONEq(t, `{"n":7}`, string(m.Data))
			assert.InDelta(t, time.Now().Unix(), m.Timestamp, 5, "seconds")

			var got struct{ N int }
			require.NoError(t, m.Unmarshal(&got))
			assert.Equal(t, 7, got.N)
			var wrong []string
			require.Error(t, m.Unmarshal(&wrong))

			m.RequestID = "req_1"
			b, err := json.Marshal(m)
			require.NoError(t, err)
			var e harness.Envelope
			require.NoError(t, json.Unmarshal(b, &e))
			assert.Equal(t, harness.Envelope{
				Type: tt.typ, Event: "chat.send", RequestID: "req_1", Data: json.RawMessage(`{"n":7}`), Timestamp: m.Timestamp,
			}, e)
			if tt.pooled {
				m.Release()
			}

			m, err = tt.make("empty", nil)
			require.NoError(t, err)
			assert.Empty(t, m.Data, "of a message that was used before: nothing")
			assert.Empty(t, m.RequestID)
			b, err = json.Marshal(m)
			require.NoError(t, err)
			assert.NotContains(t, string(b), "data")
			got.N = 3
			require.NoError(t, m.Unmarshal(&got), "no data is no error")
			assert.Equal(t, 3, got.N)

			_, err = tt.make("bad", make(chan int))
			require.Error(t, err)
			assert.ErrorContains(t, err, "bad", "names the event")
		})
	}
}

// Messages that were sent do not change when they are released.
func TestReleaseAfterSend(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t)
		c, sc := s.DialClient(w)
		for i := range 100 {
			m, err := ws.NewNotifyMessage("tick", i)
			require.NoError(t, err)
			require.NoError(t, sc.SendJSON(m))
			m.Release()
		}
		for i := range 100 {
			e := c.ReadEnvelope()
			assert.Equal(t, "notify", e.Type)
			assert.Equal(t, "tick", e.Event)
			want, _ := json.Marshal(i)
			assert.Equal(t, string(want), string(e.Data))
		}
	})
}

// The fields that a handler reads are those of the frame, and its message may
// be cut at any place into frames.
func TestReceivedMessage(t *testing.T) {
	harness.OnBothModes(t, func(t *testing.T, w harness.Way, mode ws.Option) {
		s := harness.Start(t, mode)
		got := make(chan ws.Message, 1)
		require.NoError(t, s.Register("chat.send", func(_ *ws.Client, m *ws.Message) error {
			kept := *m
			kept.Data = append(json.RawMessage(nil), m.Data...)
			got <- kept
			return nil
		}))
		c := s.Dial(w)
		text := harness.Request("chat.send", "req_ä", `{"text": [1, "ü"]}`)
		want := ws.Message{
			Type: "request", Event: "chat.send", RequestID: "req_ä", Data: json.RawMessage(`{"text": [1, "ü"]}`),
			Timestamp: 1707552000,
		}
		c.Send(text)
		assert.Equal(t, want, harness.Receive(t, got, "no message"))
		for i := 1; i < len(text); i += 7 {
			c.WriteRaw(harness.Fragment(1, false, text[:i]) + harness.Frame(9, "ping") + harness.Fragment(0, true, text[i:]))
			assert.Equal(t, want, harness.Receive(t, got, "no message cut at %d", i))
		}
		bytes := harness.Frame(1, text)
		for i := 1; i < len(bytes); i += 11 {
			c.WriteRaw(bytes[:i])
			c.WriteRaw(bytes[i:])
			assert.Equal(t, want, harness.Receive(t, got, "no message cut at %d", i))
		}
	})
}

func TestResponsesInJSON(t *testing.T) {
	b, err := json.Marshal(ws.Response{
		Type: ws.TypeResponse, RequestID: "req_1", Code: 200, Message: "success", Data: json.RawMessage(`{"a":1}`),
		TraceID: "t", Timestamp: 1707552001,
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{"type":"response","request_id":"req_1","code":200,"message":"success",
		"data":{"a":1},"trace_id":"t","timestamp":1707552001}`, string(b))
	b, err = json.Marshal(ws.ErrorResponse{
		Type: ws.TypeError, RequestID: "req_1", Code: 400, Message: "bad", TraceID: "t", Timestamp: 1707552001,
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{"type":"error","request_id":"req_1","code":400,"message":"bad",
		"trace_id":"t","timestamp":1707552001}`, string(b))
}

// The library's encoder and encoding/json agree on any text.
func TestReplyEncoding(t *testing.T) {
	s := harness.Start(t)
	c, sc := s.DialClient(harness.Native)
	for _, text := range []string{
		"", "plain", `"quoted" \ back`, "line\nbreak\x00\x1f", "ü 😀 \u2028", "<b>&</b>",
		"broken \xff UTF-8",
	} {
		require.NoError(t, sc.SendError(text, 418, text))
		clean, _ := json.Marshal(text)
		var want string
		require.NoError(t, json.Unmarshal(clean, &want))
		e := c.ReadEnvelope()
		assert.Equal(t, want, e.RequestID)
		assert.Equal(t, want, e.Message)
		assert.Equal(t, 418, e.Code)
		assert.Len(t, e.TraceID, 16)
	}
	require.NoError(t, sc.SendResponse("r", 201, "made", map[string]string{"a": "b"}))
	assert.JSONEq(t, `{"a":"b"}`, expectReplyOf(c, "response", "r", 201))
	require.NoError(t, sc.SendResponse("", 200, "", nil))
	assert.Empty(t, expectReplyOf(c, "response", "", 200))
	require.Error(t, sc.SendResponse("r", 200, "", make(chan int)))
	require.Error(t, sc.SendJSON(make(chan int)))
}

// expectReplyOf reads a reply, checks it, and returns its data.
func expectReplyOf(c *harness.Client, typ, id string, code int) string {
	c.T.Helper()
	e := c.ReadEnvelope()
	require.Equal(c.T, harness.Envelope{
		Type: typ, RequestID: id, Code: code, Message: e.Message, Data: e.Data, TraceID: e.TraceID, Timestamp: e.Timestamp,
	}, e)
	return string(e.Data)
}
