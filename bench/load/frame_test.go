//go:build linux

package load

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/control"
)

// serverFrame is payload as the server sends it.
func serverFrame(op byte, payload []byte) []byte {
	masked := MaskedFrame(op, payload)
	header := masked[:len(masked)-len(payload)-len(Mask)]
	header[1] &= 0x7F
	return append(slices.Clone(header), payload...)
}

type seen struct {
	op   byte
	size int
	head string
}

// parseAll parses stream in pieces that cut yields the sizes of.
func parseAll(t *testing.T, stream []byte, cut func() int) []seen {
	t.Helper()
	var p Parser
	var got []seen
	for len(stream) > 0 {
		n := min(cut(), len(stream))
		piece := stream[:n]
		stream = stream[n:]
		for len(piece) > 0 {
			rest, f, ok, err := p.Next(piece)
			require.NoError(t, err)
			if ok {
				got = append(got, seen{f.Op, f.Size, string(f.Head)})
			} else {
				require.Empty(t, rest)
			}
			piece = rest
		}
	}
	assert.Zero(t, p.n, "nothing is left between frames")
	assert.Zero(t, p.skipped, "nothing is left between frames")
	return got
}

func TestParserCutAnywhere(t *testing.T) {
	var stream []byte
	var want []seen
	payload := make([]byte, 70_000)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for _, size := range []int{0, 1, 15, 16, 17, 125, 126, 512, 65_535, 65_536, 0, 70_000, 3} {
		stream = append(stream, serverFrame(OpBinary, payload[:size])...)
		want = append(want, seen{OpBinary, size, string(payload[:min(size, control.StampBytes)])})
	}
	cuts := map[string]func() int{
		"whole":        func() int { return len(stream) },
		"byte by byte": func() int { return 1 },
		"at random":    func() int { return 1 + rand.IntN(40) },
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, want, parseAll(t, stream, cut))
		})
	}
	t.Run("in two, at each byte", func(t *testing.T) {
		short := serverFrame(OpBinary, payload[:300])
		for i := 1; i < len(short); i++ {
			first := true
			got := parseAll(t, short, func() int {
				if first {
					first = false
					return i
				}
				return len(short)
			})
			require.Equal(t, []seen{{OpBinary, 300, string(payload[:control.StampBytes])}}, got, "cut at %d", i)
		}
	})
}

func TestParserRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"masked":     {0x82, 0x80, 0, 0, 0, 0},
		"fragmented": {0x02, 0x00},
		"reserved":   {0xC2, 0x00},
		"oversized":  {0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := new(Parser).Next(b)
			require.ErrorIs(t, err, errBadFrame)
			var p Parser
			for _, c := range b {
				if _, _, _, err = p.Next([]byte{c}); err != nil {
					break
				}
			}
			require.ErrorIs(t, err, errBadFrame)
		})
	}
}

func TestStampSurvivesMasking(t *testing.T) {
	for _, size := range []int{16, 125, 126, 512, 65_536} {
		template := MaskedFrame(OpBinary, make([]byte, size))
		b := appendStamped([]byte("before"), template, size, 7, 1234567890123)[len("before"):]
		require.Len(t, b, len(template))
		payload := slices.Clone(b[len(b)-size:])
		for i := range payload {
			payload[i] ^= Mask[i&3]
		}
		assert.Equal(t, uint64(7), binary.LittleEndian.Uint64(payload))
		assert.Equal(t, uint64(1234567890123), binary.LittleEndian.Uint64(payload[8:]))
		assert.Equal(t, make([]byte, size-control.StampBytes), payload[control.StampBytes:])
	}
}
