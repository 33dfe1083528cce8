//go:build linux

package attack

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/load"
)

// inflate inflates a permessage-deflate payload.
func inflate(t *testing.T, payload []byte) []byte {
	t.Helper()
	r := flate.NewReader(io.MultiReader(bytes.NewReader(payload), bytes.NewReader([]byte{0, 0, 0xFF, 0xFF})))
	b, err := io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "no block is the last")
	return b
}

func TestEmptyBlocks(t *testing.T) {
	text := requestText("noop", "1", `{}`)
	payload := emptyBlocks(text, 10_000)
	assert.InDelta(t, 10_000, len(payload), 20)
	assert.Equal(t, string(text), string(inflate(t, payload)))
}

func TestCostlyBlocks(t *testing.T) {
	text := requestText("noop", "1", `{}`)
	payload := costlyBlocks(text, 100_000)
	assert.Less(t, len(payload), 70_000)
	assert.Equal(t, string(text), strings.TrimRight(string(inflate(t, payload)), " "))
}

func TestRatioMessage(t *testing.T) {
	payload := ratioMessage()
	assert.Less(t, len(payload), 700)
	text := inflate(t, payload)
	assert.Greater(t, len(text), maxBytes)
	assert.True(t, json.Valid(text))
}

// TestNumbered asserts that requests of a group have one number, and the next
// batch has others.
func TestNumbered(t *testing.T) {
	var n numbered
	for range 3 {
		n.add("join", numberedRoom(7, "x"))
		n.add("leave", numberedRoom(7, "x"))
	}
	seen := map[string]int{}
	for range 4 {
		b := bytes.Clone(n.batch(2))
		for len(b) > 0 {
			size := int(b[1] & 0x7F)
			head := 6
			if size == 126 {
				size, head = int(b[2])<<8|int(b[3]), 8
			}
			text := b[head : head+size]
			for i := range text {
				text[i] ^= load.Mask[i&3]
			}
			var req struct {
				Event string
				Data  struct{ Room string }
			}
			require.NoError(t, json.Unmarshal(text, &req), "%s", text)
			seen[req.Data.Room]++
			b = b[head+size:]
		}
	}
	assert.Len(t, seen, 12)
	for room, count := range seen {
		assert.Equal(t, 2, count, room)
	}
}
