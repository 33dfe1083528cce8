package codec_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

func TestOpcode(t *testing.T) {
	tests := []struct {
		op      codec.Opcode
		name    string
		control bool
	}{
		{codec.OpContinuation, "continuation", false},
		{codec.OpText, "text", false},
		{codec.OpBinary, "binary", false},
		{0x3, "reserved 0x3", false},
		{codec.OpClose, "close", true},
		{codec.OpPing, "ping", true},
		{codec.OpPong, "pong", true},
		{0xB, "reserved 0xb", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.name, tt.op.String())
			assert.Equal(t, tt.control, tt.op.IsControl())
		})
	}
}

func TestAppendHeader(t *testing.T) {
	tests := []struct {
		name string
		n    int
		want []byte
	}{
		{"5.2 0", 0, []byte{0x82, 0}},
		{"5.2 125", 125, []byte{0x82, 125}},
		{"5.2 126", 126, []byte{0x82, 126, 0, 126}},
		{"5.2 256", 256, []byte{0x82, 126, 1, 0}},
		{"5.2 65535", 65535, []byte{0x82, 126, 0xFF, 0xFF}},
		{"5.2 65536", 65536, []byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
		{"5.2 most of a 32-bit int", math.MaxInt32, []byte{0x82, 127, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, codec.AppendHeader(nil, codec.OpBinary, tt.n))
			assert.Equal(t, append([]byte("x"), tt.want...), codec.AppendHeader([]byte("x"), codec.OpBinary, tt.n))
			assert.Equal(t, len(tt.want), codec.HeaderSize(tt.n))
			assert.LessOrEqual(t, len(tt.want), codec.MaxHeaderSize)
		})
	}
}

func TestFrameAgreesWithGobwas(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 124, 125, 126, 127, 1000, 65535, 65536, 70000} {
		for _, op := range []codec.Opcode{codec.OpText, codec.OpBinary, codec.OpClose, codec.OpPing, codec.OpPong} {
			if op.IsControl() && n > codec.MaxControlPayload {
				continue
			}
			t.Run(fmt.Sprintf("%v/%d", op, n), func(t *testing.T) {
				payload := randomBytes(r, n)
				want := ws.MustCompileFrame(ws.NewFrame(ws.OpCode(op), true, payload))
				got := codec.NewFrame(op, payload)
				assert.True(t, bytes.Equal(want, got))
				assert.True(t, bytes.Equal(want, codec.AppendFrame(nil, op, payload)))
				assert.Equal(t, len(want), codec.FrameSize(got))
				require.LessOrEqual(t, cap(got), len(got)+len(got)/8+16, "the allocator's rounding and no more")
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("func=AppendFrame/size=%d", size), func(b *testing.B) {
			payload, dst := make([]byte, size), make([]byte, 0, size+codec.MaxHeaderSize)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				codec.AppendFrame(dst, codec.OpBinary, payload)
			}
		})
		b.Run(fmt.Sprintf("func=NewFrame/size=%d", size), func(b *testing.B) {
			payload := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				codec.NewFrame(codec.OpBinary, payload)
			}
		})
	}
}
