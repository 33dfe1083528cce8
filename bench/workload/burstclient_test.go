//go:build linux

package workload

import (
	"encoding/json"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// TestNoopForm asserts that a request contains its number, and that an answer
// has it.
func TestNoopForm(t *testing.T) {
	n := newNoopPayload(burstRequest)
	b := n.append([]byte("before"), 7)[len("before"):]
	require.Len(t, b, len(n.template))
	text := slices.Clone(b[len(b)-burstRequest:])
	for i := range text {
		text[i] ^= load.Mask[i&3]
	}
	var req struct {
		Type, Event string
		RequestID   string `json:"request_id"`
		Data        control.NoopData
	}
	require.NoError(t, json.Unmarshal(text, &req))
	assert.Equal(t, strconv.Itoa(load.JSONBase+7), req.RequestID)
	assert.Equal(t, "noop", req.Event)
	seq, ok := n.answer([]byte(`{"request_id":"` + req.RequestID + `","code":200}`))
	assert.True(t, ok)
	assert.EqualValues(t, 7, seq)
	_, ok = n.answer([]byte(`{"request_id":"` + req.RequestID + `","code":500}`))
	assert.False(t, ok)
}
