package codec_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

func FuzzDecoder(f *testing.F) {
	const tx, cont, ping = codec.OpText, codec.OpContinuation, codec.OpPing
	f.Add(frame(tx, true, "hello"), int64(0), uint64(1))
	f.Add(join(frame(tx, false, "h\xC3"), frame(ping, true, "p"), frame(cont, true, "\xA9")), int64(4), uint64(2))
	f.Add(join(frame(tx, true, "a\xED\xA0\x80"), frame(cont, true, "x")), int64(100), uint64(3))
	f.Add([]byte{0x82, 0xFE, 0, 5}, int64(0), uint64(4))
	f.Add(announce(codec.OpBinary, true, math.MaxInt64), int64(0), uint64(5))
	for seed := range uint64(8) {
		stream, _, _ := randomStream(rand.New(rand.NewPCG(seed, 3)), 6)
		f.Add(stream[:min(len(stream), 400)], int64(50*seed), seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte, limit int64, seed uint64) {
		want, wantErr := decode(new(codec.Decoder), stream, limit, whole)
		r := rand.New(rand.NewPCG(seed, seed))
		for _, cut := range []func(int) int{bytewise, chops(r, 7), chops(r, 200)} {
			var d codec.Decoder
			got, err := decode(&d, stream, limit, cut)
			require.Equal(t, wantErr, err)
			require.Equal(t, want, got)
			d.Release()
		}
	})
}

// benchSizes are the payload sizes of the benchmarks.
var benchSizes = []int{16, 64, 125, 512, 4096, 16 << 10, 65536, 1 << 20}

func BenchmarkDecode(b *testing.B) {
	for _, op := range []codec.Opcode{codec.OpBinary, codec.OpText} {
		for _, size := range benchSizes {
			b.Run(fmt.Sprintf("op=%v/size=%d", op, size), func(b *testing.B) {
				// A key of zeros leaves the text unchanged when it is unmasked again and again.
				stream := clientFrame(op, true, bytes.Repeat([]byte("x"), size), [4]byte{})
				var d codec.Decoder
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, _, ok, err := d.Next(stream, 1<<20); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			})
		}
	}
}

// BenchmarkDecodePartial decodes a frame that arrives in two reads.
func BenchmarkDecodePartial(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			stream := clientFrame(codec.OpBinary, true, bytes.Repeat([]byte("x"), size), [4]byte{})
			half := len(stream) / 2
			var d codec.Decoder
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, _, _, _ = d.Next(stream[:half], 1<<20)
				if _, _, ok, err := d.Next(stream[half:], 1<<20); !ok || err != nil {
					b.Fatal(ok, err)
				}
				d.Done()
			}
		})
	}
}
