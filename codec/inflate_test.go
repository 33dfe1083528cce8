package codec_test

import (
	"bytes"
	"compress/flate"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/race"
)

// bitWriter writes the bits of a DEFLATE stream (RFC 1951 section 3.1.1).
type bitWriter struct {
	b []byte
	n int // bits in the last byte
}

// bits appends the n lowest bits of v, the lowest first.
func (w *bitWriter) bits(v, n int) {
	for ; n > 0; n-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v&1) << (w.n % 8)
		v >>= 1
		w.n++
	}
}

// dynamicBlock appends a block with its own tables (section 3.2.7), for the symbols 'a' and end of
// block. It contains n times 'a'.
func (w *bitWriter) dynamicBlock(n int) {
	w.bits(0, 1)
	w.bits(2, 2)
	w.bits(0, 5)  // 257 literals and lengths
	w.bits(0, 5)  // 1 distance
	w.bits(14, 4) // 18 lengths of code lengths, in their order: 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1
	for _, length := range []int{0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2} {
		w.bits(length, 3)
	}
	zeros := func(n int) { w.bits(0, 1); w.bits(n-11, 7) } // symbol 18
	one := func() { w.bits(3, 2) }                         // symbol 1
	zeros(97)
	one() // 'a'
	zeros(138)
	zeros(20)
	one()        // end of block
	w.bits(1, 2) // no distance: symbol 0
	for range n {
		w.bits(0, 1)
	}
	w.bits(1, 1)
}

// blocks returns at least size bytes of blocks with n bytes each, behind one block of first bytes.
func blocks(size, n, first int) []byte {
	var w bitWriter
	w.dynamicBlock(first)
	for len(w.b) < size {
		w.dynamicBlock(n)
	}
	w.bits(0, 3) // the beginning of the flush whose end the protocol leaves out
	return w.b
}

// A message with many blocks, which cost much and inflate to little, ends when it has too many.
func TestInflateBlocks(t *testing.T) {
	got, err := Inflate(nil, blocks(500, 3, 3), nil, 0)
	require.NoError(t, err, "a few")
	require.Equal(t, bytes.Repeat([]byte("a"), len(got)), got)
	require.NotEmpty(t, got)
	for name, payload := range map[string][]byte{
		"empty":          blocks(512<<10, 0, 0),
		"of one byte":    blocks(512<<10, 1, 0),
		"fixed tables":   bytes.Repeat([]byte{0x02, 0x08, 0x20, 0x80, 0x00}, 100<<10), // 4 blocks of 10 bits
		"stored":         bytes.Repeat([]byte{0x00, 0x00, 0x00, 0xff, 0xff}, 100<<10),
		"behind 100 KiB": blocks(512<<10, 0, 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := Inflate(nil, payload, nil, 0)
			t.Logf("%v", time.Since(began))
			require.ErrorIs(t, err, ErrInvalidDeflate)
			_, err = InflateStart(nil, payload, nil, 0)
			require.ErrorIs(t, err, ErrInvalidDeflate)
			_, err = Inflate(nil, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), nil, 0)
			assert.NoError(t, err, "the next message")
		})
	}
}

// The messages of honest clients stay below the limit on blocks: random bytes and words, at each
// level, with a flush after each 200 bytes.
func TestInflateHonestBlocks(t *testing.T) {
	message := make([]byte, 1<<20)
	if race.Enabled { // it is slow, and one goroutine does all of it
		message = message[:100_000] // more than three windows
	}
	for i := range message {
		message[i] = byte(rand.Uint32())
	}
	copy(message[len(message)/2:], bytes.Repeat([]byte(`{"type":"notify","event":"price"} `), 1<<20/70))
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		for _, flush := range []int{200, 5000, len(message)} {
			var z bytes.Buffer
			w, err := flate.NewWriter(&z, level)
			require.NoError(t, err)
			for rest := message; len(rest) > 0; {
				n := min(flush, len(rest))
				_, err := w.Write(rest[:n])
				require.NoError(t, err)
				require.NoError(t, w.Flush())
				rest = rest[n:]
			}
			got, err := Inflate(nil, bytes.TrimSuffix(z.Bytes(), []byte("\x00\x00\xff\xff")), nil, 0)
			require.NoError(t, err, "level %d, flush each %d", level, flush)
			require.True(t, bytes.Equal(message, got))
		}
	}
}

// Steps of no time inflate a message like one step. Each ends soon: after a block or 32 KiB.
func TestInflateSteps(t *testing.T) {
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestSpeed)
	require.NoError(t, err)
	_, err = w.Write(random)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	for name, payload := range map[string][]byte{
		"blocks": blocks(200<<10, 300, 0),
		"random": bytes.TrimSuffix(z.Bytes(), []byte("\x00\x00\xff\xff")),
		"small":  []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"),
		"empty":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			want, err := Inflate([]byte("head"), payload, nil, 0)
			require.NoError(t, err)
			inflater := NewInflater([]byte("head"), payload, nil, 0)
			defer inflater.Close()
			steps := 0
			for done := false; !done; steps++ {
				before := len(inflater.Bytes())
				done, err = inflater.Step(0)
				require.NoError(t, err)
				if len(payload) > 8<<10 && !done {
					require.LessOrEqual(t, len(inflater.Bytes())-before, 32<<10)
				}
			}
			require.True(t, bytes.Equal(want, inflater.Bytes()))
			if len(payload) > 8<<10 {
				assert.GreaterOrEqual(t, steps, len(want)/(32<<10))
			}
		})
	}
}
