package engine_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// TestPayloadMakesAnEqualFrame covers each form of the length.
func TestPayloadMakesAnEqualFrame(t *testing.T) {
	for _, length := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16} {
		want := bytes.Repeat([]byte{'x'}, length)
		f := engine.NewFrame(codec.OpBinary, want, engine.Handling{})
		op, payload := f.Payload()
		assert.Equal(t, codec.OpBinary, op)
		assert.True(t, bytes.Equal(want, payload), "%d bytes", length)
		assert.Equal(t, f.Len(), engine.NewFrame(op, payload, engine.Handling{}).Len())
	}
}

// All members with compression share one compressed form of a frame, on all loops.
func BenchmarkDeflatedShared(b *testing.B) {
	z := codec.NewDeflater(1)
	f := engine.NewFrame(codec.OpText, bytes.Repeat([]byte("shared "), 100), engine.Handling{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f.Deflated(z)
		}
	})
}
