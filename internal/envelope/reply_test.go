package envelope_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/envelope"
)

func TestReplyAppend(t *testing.T) {
	tests := []struct {
		name string
		give envelope.Reply
		want map[string]any // as encoding/json decodes it, without the time
	}{
		{
			"all fields",
			envelope.Reply{
				Type: "response", RequestID: "r1", Code: 200, Message: "success", Data: []byte(`{"a":[1]}`),
				TraceID: envelope.TraceID{Low: 0xab},
			},
			map[string]any{
				"type": "response", "request_id": "r1", "code": 200.0, "message": "success",
				"data": map[string]any{"a": []any{1.0}}, "trace_id": "00000000000000ab",
			},
		},
		{
			"a long trace ID",
			envelope.Reply{Type: "response", Code: 200, TraceID: envelope.TraceID{High: 1, Low: 0xab, Long: true}},
			map[string]any{
				"type": "response", "code": 200.0, "message": "",
				"trace_id": "000000000000000100000000000000ab",
			},
		},
		{
			"without request_id and data",
			envelope.Reply{Type: "error", Code: 404, Message: "handler not found"},
			map[string]any{"type": "error", "code": 404.0, "message": "handler not found", "trace_id": "0000000000000000"},
		},
		{
			"strings that need escapes",
			envelope.Reply{Type: "error", RequestID: "\"\\\n\u2028é", Message: "\x00<&>\x7f"},
			map[string]any{
				"type": "error", "request_id": "\"\\\n\u2028é", "code": 0.0, "message": "\x00<&>\x7f",
				"trace_id": "0000000000000000",
			},
		},
		{
			"a string that is not UTF-8",
			envelope.Reply{Type: "error", Message: "\xff"},
			map[string]any{"type": "error", "code": 0.0, "message": "\ufffd", "trace_id": "0000000000000000"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.give.Append([]byte("before"))
			require.Equal(t, "before", string(b[:6]))
			var got map[string]any
			require.NoError(t, json.Unmarshal(b[6:], &got))
			assert.InDelta(t, time.Now().Unix(), got["timestamp"], 5, "seconds")
			delete(got, "timestamp")
			assert.Equal(t, tt.want, got)
		})
	}
}

// reply is a Reply as the public types declare it.
type reply struct {
	Type      string          `json:"type"`
	RequestID string          `json:"request_id,omitempty"`
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data,omitempty"`
	TraceID   string          `json:"trace_id,omitempty"`
	Timestamp int64           `json:"timestamp"`
}

// A reply has the bytes that encoding/json writes.
func TestReplyAppendIsJSON(t *testing.T) {
	texts := []string{"", "plain", "é", "\xff", "a\u2028b", "</script>"}
	for c := range rune(0x80) {
		texts = append(texts, "a"+string(c)+"b")
	}
	for _, text := range texts {
		give := envelope.Reply{Type: "error", RequestID: text, Message: text, Data: []byte("1")}
		b := give.Append(nil)
		var r reply
		require.NoError(t, json.Unmarshal(b, &r), "%s", b)
		want, err := json.Marshal(r)
		require.NoError(t, err)
		if text == "\xff" {
			continue // r has U+FFFD in its place, as a character
		}
		assert.Equal(t, string(want), string(b))
	}
}
