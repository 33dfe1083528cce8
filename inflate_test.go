package ws_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
)

// A message of more than 64 KiB may be MaxRatio times as long as its compressed form.
func TestInflateRatio(t *testing.T) {
	const free = 64 << 10
	words := make([]byte, 20_000)
	for i := range words {
		words[i] = 'a' + byte(rand.Uint32()%26)
	}
	for _, tt := range []struct {
		name     string
		maxRatio int
		message  string
		closes   bool
	}{
		{"default, free", 0, strings.Repeat("a", free), false},
		{"default, above", 0, strings.Repeat("a", free+1), true},
		{"default, below", 0, strings.Repeat("a", 400_000) + string(words), false},
		{"low", 2, strings.Repeat("a", 400_000) + string(words), true},
		{"high", 1032, strings.Repeat("a", 512<<10), false},
		{"off", -1, strings.Repeat("a", 512<<10), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBothWays(t, func(t *testing.T, w way) {
				s := start(t, ws.WithCompression(ws.CompressionConfig{MaxRatio: tt.maxRatio}))
				rawEcho(s.Manager)
				c := s.dialDeflate(w, "permessage-deflate")
				c.sendDeflated(gws.OpText, tt.message)
				if tt.closes {
					c.expectClose(int(codec.CloseMessageTooBig))
					return
				}
				_, got, _ := c.message()
				require.True(t, got == tt.message)
			})
		})
	}
}

// The ratio of the first part of a message does not matter.
func TestInflateRatioOfPart(t *testing.T) {
	s := start(t, ws.WithCompression(ws.CompressionConfig{}))
	rawEcho(s.Manager)
	c := s.dialDeflate(native, "permessage-deflate")
	words := make([]byte, 20_000)
	for i := range words {
		words[i] = 'a' + byte(rand.Uint32()%26)
	}
	message := strings.Repeat("a", 400_000) + string(words)
	z := c.z.Append(nil, []byte(message), nil, 15)
	part := func(op gws.OpCode, fin, compressed bool, payload []byte) {
		f := gws.MaskFrameInPlaceWith(gws.NewFrame(op, fin, payload), [4]byte{1, 2, 3, 4})
		f.Header.Rsv = gws.Rsv(compressed, false, false)
		c.raw(string(gws.MustCompileFrame(f)))
	}
	part(gws.OpText, false, true, z[:len(z)/10])
	part(gws.OpPing, true, false, []byte("read"))
	require.Equal(t, gws.OpPong, c.readFrame().Header.OpCode)
	part(gws.OpContinuation, true, false, z[len(z)/10:])
	_, got, _ := c.message()
	require.True(t, got == message)
}
