//go:build linux

package load

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/control"
)

// TestJSONPayload asserts that a request contains its stamp, and that the stamp is
// found in answers.
func TestJSONPayload(t *testing.T) {
	for _, size := range []int{MinJSON, 512, 70_000} {
		j := NewJSONPayload(size)
		b := j.Append([]byte("before"), 7, 1234567890123)[len("before"):]
		require.Len(t, b, len(j.template))
		text := slices.Clone(b[len(b)-size:])
		for i := range text {
			text[i] ^= Mask[i&3]
		}
		var req struct {
			Type, Event string
			RequestID   string `json:"request_id"`
			Data        control.EchoData
		}
		require.NoError(t, json.Unmarshal(text, &req))
		assert.Equal(t, "request", req.Type)
		assert.Equal(t, "echo", req.Event)
		assert.Equal(t, strconv.Itoa(JSONBase+7), req.RequestID)
		assert.Len(t, req.Data.Pad, size-MinJSON)
		data, err := json.Marshal(map[string]any{"code": 200, "data": req.Data})
		require.NoError(t, err)
		seq, due, ok := j.Stamp(&Frame{Size: len(data), Head: data})
		assert.True(t, ok)
		assert.Equal(t, uint64(7), seq)
		assert.Equal(t, int64(1234567890123), due)
	}
	for _, wrong := range []string{"", `{"seq":1,"sent":2}`, `"seq":1000000000000000007,"sent":100000000000000000`} {
		_, _, ok := new(JSONPayload).Stamp(&Frame{Head: []byte(wrong)})
		assert.False(t, ok, wrong)
	}
}

// TestPublishPayload asserts that a message has its room and its time.
func TestPublishPayload(t *testing.T) {
	for _, size := range []int{control.StampBytes, 512, 70_000} {
		message := append([]byte{control.PublishByte}, make([]byte, 4+size)...)
		binary.LittleEndian.PutUint32(message[1:], 77)
		binary.LittleEndian.PutUint64(message[5+8:], 1234567890123)
		got := NewPublishPayload(size).Append([]byte("before"), 77, 1234567890123)
		assert.Equal(t, append([]byte("before"), MaskedFrame(OpBinary, message)...), got)
	}
}
