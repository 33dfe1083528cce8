package codec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/race"
)

func TestNegotiateDeflate(t *testing.T) {
	const both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	def := DeflateOptions{WindowBits: 15}
	takeover := DeflateOptions{WindowBits: 15, Takeover: true}
	small := DeflateOptions{WindowBits: 10, Takeover: true}
	for _, tt := range []struct {
		name   string
		opts   DeflateOptions
		offers []string
		answer string
		want   Deflate
	}{
		{"none", def, nil, "", Deflate{}},
		{"plain", def, []string{"permessage-deflate"}, both, Deflate{ServerBits: 15, ClientBits: 15}},
		{
			"chromium", def,
			[]string{"permessage-deflate; client_max_window_bits"},
			both,
			Deflate{ServerBits: 15, ClientBits: 15},
		},
		{
			"takeover", takeover,
			[]string{"permessage-deflate"},
			"permessage-deflate",
			Deflate{ServerBits: 15, ClientBits: 15, ServerTakeover: true, ClientTakeover: true},
		},
		{
			"takeover not by the server", takeover,
			[]string{"permessage-deflate; server_no_context_takeover"},
			"permessage-deflate; server_no_context_takeover",
			Deflate{ServerBits: 15, ClientBits: 15, ClientTakeover: true},
		},
		{
			"takeover not by the client", takeover,
			[]string{"permessage-deflate; client_no_context_takeover"},
			"permessage-deflate; client_no_context_takeover",
			Deflate{ServerBits: 15, ClientBits: 15, ServerTakeover: true},
		},
		{
			"server window", def,
			[]string{"permessage-deflate; server_max_window_bits=9"},
			both + "; server_max_window_bits=9",
			Deflate{ServerBits: 9, ClientBits: 15},
		},
		{
			"server window of 15", def,
			[]string{"permessage-deflate; server_max_window_bits=15"},
			both + "; server_max_window_bits=15",
			Deflate{ServerBits: 15, ClientBits: 15},
		},
		{
			"server window of 8", def,
			[]string{`permessage-deflate;server_max_window_bits="8"`},
			both + "; server_max_window_bits=8",
			Deflate{ServerBits: 8, ClientBits: 15},
		},
		{
			"quoted server window with escapes", def,
			[]string{`permessage-deflate;server_max_window_bits="\1\2"`},
			both + "; server_max_window_bits=12",
			Deflate{ServerBits: 12, ClientBits: 15},
		},
		{
			"client window", def,
			[]string{"permessage-deflate; client_max_window_bits=11"},
			both + "; client_max_window_bits=11",
			Deflate{ServerBits: 15, ClientBits: 11},
		},
		{
			"our window", small,
			[]string{"permessage-deflate; client_max_window_bits"},
			"permessage-deflate; server_max_window_bits=10; client_max_window_bits=10",
			Deflate{ServerBits: 10, ClientBits: 10, ServerTakeover: true, ClientTakeover: true},
		},
		{
			"our window, not asked for", small,
			[]string{"permessage-deflate"},
			"permessage-deflate; server_max_window_bits=10",
			Deflate{ServerBits: 10, ClientBits: 15, ServerTakeover: true, ClientTakeover: true},
		},
		{
			"second offer", def,
			[]string{"permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=12"},
			both + "; server_max_window_bits=12",
			Deflate{ServerBits: 12, ClientBits: 15},
		},
		{"second line", def, []string{"foo; a=b", " ,permessage-deflate,"}, both, Deflate{ServerBits: 15, ClientBits: 15}},
		{
			"first of two", def,
			[]string{"permessage-deflate; server_max_window_bits=9, permessage-deflate"},
			both + "; server_max_window_bits=9",
			Deflate{ServerBits: 9, ClientBits: 15},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, answer, err := NegotiateDeflate(tt.offers, tt.opts)
			require.NoError(t, err)
			assert.Equal(t, tt.answer, answer)
			assert.Equal(t, tt.want, d)
		})
	}
}

func TestNegotiateDeflateDeclines(t *testing.T) {
	for _, tt := range []struct{ name, offer string }{
		{"another extension", "x-webkit-deflate-frame"},
		{"unknown parameter", "permessage-deflate; foo"},
		{"repeated parameter", "permessage-deflate; client_max_window_bits; client_max_window_bits=10"},
		{"flag with a value", "permessage-deflate; server_no_context_takeover=1"},
		{"client flag with a value", "permessage-deflate; client_no_context_takeover=true"},
		{"window without a value", "permessage-deflate; server_max_window_bits"},
		{"window 7", "permessage-deflate; client_max_window_bits=7"},
		{"window 16", "permessage-deflate; server_max_window_bits=16"},
		{"window 08", "permessage-deflate; server_max_window_bits=08"},
		{"window +9", "permessage-deflate; server_max_window_bits=+9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, answer, err := NegotiateDeflate([]string{tt.offer}, DeflateOptions{WindowBits: 15})
			require.NoError(t, err)
			assert.Empty(t, answer)
			assert.Zero(t, d)
		})
	}
}

func TestNegotiateDeflateRefuses(t *testing.T) {
	for _, bad := range []string{
		"permessage-deflate;", "; a", "permessage-deflate; =1", "permessage-deflate; a=", `permessage-deflate; a="`,
		`permessage-deflate; a=""`, `permessage-deflate; a="b c"`, `permessage-deflate; a="b\"`,
		`permessage-deflate; a="\"b"`, `permessage-deflate; a="b\`, "permessage-deflate b",
		"permessage-deflate; a b", "a/b", "a; b=\x00",
	} {
		_, _, err := NegotiateDeflate([]string{"permessage-deflate", bad}, DeflateOptions{WindowBits: 15})
		var refused *RequestError
		require.ErrorAs(t, err, &refused, "%q", bad)
		assert.Equal(t, 400, refused.Status)
	}
}

// deflateSamples returns messages of many kinds and lengths.
func deflateSamples() (samples [][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	lengths := []int{1, 2, 31, 100, 512, 4000, 40_000, 100_000, 1 << 20}
	if race.Enabled { // it is slow, and one goroutine does all of it
		lengths = lengths[:len(lengths)-1]
	}
	for _, n := range lengths {
		random := make([]byte, n)
		words := make([]byte, 0, n+8)
		for i := range random {
			random[i] = byte(r.Uint32())
		}
		for len(words) < n {
			words = fmt.Appendf(words, "%d ", r.IntN(300))
		}
		samples = append(samples, random, words[:n], bytes.Repeat([]byte("x"), n))
	}
	return samples
}

func TestDeflateRoundTrip(t *testing.T) {
	for level := 1; level <= 9; level++ {
		z := NewDeflater(level)
		for bits := uint8(MinWindowBits); bits <= MaxWindowBits; bits++ {
			if bits < MaxWindowBits && level > 1 {
				continue
			}
			var sent, received []byte
			for i, message := range deflateSamples() {
				alone := z.Append([]byte("head"), message, nil, bits)
				got, err := Inflate([]byte("head"), alone[4:], nil, int64(len(message)))
				require.NoError(t, err, "level %d, %d bits, message %d", level, bits, i)
				require.True(t, bytes.Equal(message, got[4:]), "level %d, %d bits, message %d", level, bits, i)

				got, err = Inflate(nil, z.Append(nil, message, sent, bits), received, int64(len(message)))
				require.NoError(t, err, "level %d, %d bits, message %d", level, bits, i)
				require.True(t, bytes.Equal(message, got), "level %d, %d bits, message %d in context", level, bits, i)
				sent = AppendHistory(sent, message, bits)
				received = AppendHistory(received, got, bits) // at most the window: no reference may go beyond it
			}
		}
	}
}

func TestInflate(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		err            error
	}{
		// RFC 7692 section 7.2.3.
		{"one block", "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello", nil},
		{"stored", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello", nil},
		{"final block", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello", nil},
		{"final block, nothing behind it", "\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello", nil},
		{"two final blocks", "\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "HelloHello", nil},
		{"two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello", nil},
		{"empty message", "\x00", "", nil},
		{"nothing", "", "", nil},
		{"garbage", "\xff\xff\xff\xff", "", ErrInvalidDeflate},
		{"cut", "\xf2\x48\xcd", "", ErrInvalidDeflate},
		{"too many final blocks", strings.Repeat("\x03\x00", 100) + "\x00", "", ErrInvalidDeflate},
		{"beyond the window", "\x6a\x03\x22\x00", "", ErrInvalidDeflate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Inflate(nil, []byte(tt.in), nil, 100)
			require.ErrorIs(t, err, tt.err)
			if err == nil {
				assert.Equal(t, tt.want, string(got))
			}
		})
	}
	// The second message of section 7.2.3.2 refers to the first.
	got, err := Inflate(nil, []byte("\xf2\x00\x11\x00\x00"), []byte("Hello"), 0)
	require.NoError(t, err)
	assert.Equal(t, "Hello", string(got))
}

// The first part of a compressed message inflates to the first part of the message.
func TestInflateStart(t *testing.T) {
	for i, message := range deflateSamples() {
		history := bytes.Repeat([]byte("history "), 100)
		z := NewDeflater(1).Append(nil, message, history, 15)
		step := max(1, len(z)/50)
		for n := 0; n <= len(z); n += step {
			got, err := InflateStart([]byte("head"), z[:n], history, int64(len(message)))
			require.NoError(t, err, "message %d, %d of %d bytes", i, n, len(z))
			require.True(t, bytes.HasPrefix(message, got[4:]), "message %d, %d of %d bytes", i, n, len(z))
		}
		got, err := InflateStart(nil, z, history, int64(len(message)))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), len(message)-8, "the inflater looks ahead a little")
		if len(message) > 8 {
			_, err = InflateStart(nil, z, history, int64(len(message)-9))
			require.ErrorIs(t, err, ErrMessageTooLarge)
		}
	}
	for _, in := range []string{
		"\xff\xff\xff\xff", strings.Repeat("\x03\x00", 100), "\x6a\x03\x22\x00", "\x00\x05\x00\x00\x00",
	} {
		_, err := InflateStart(nil, []byte(in), nil, 100)
		require.ErrorIs(t, err, ErrInvalidDeflate, "%q", in)
	}
}

// Unfinished returns the received part of a compressed text when it has doubled, and nil
// otherwise.
func TestUnfinished(t *testing.T) {
	var d Decoder
	var shown []int
	read := func(b ...byte) {
		t.Helper()
		for len(b) > 0 {
			n, _, _, err := d.NextDeflate(b, 1000)
			require.NoError(t, err)
			b = b[n:]
		}
		if part := d.Unfinished(); part != nil {
			require.Equal(t, []byte("0123456789abcdefghij")[:len(part)], part)
			shown = append(shown, len(part))
		}
		d.Done()
	}
	const mask = 0x80
	text := func() {
		read(0x41, mask|4, 0, 0, 0)
		read(0, '0')
		read('1')
		read('2')
		read('3', 0x89, mask, 0) // and half a ping
		read(0, 0, 0)
		read(0x00, mask, 0, 0, 0, 0)
		read(0x80, mask|16, 0, 0, 0, 0, '4', '5')
		read([]byte("6789abcdef")...)
		read([]byte("ghi")...)
	}
	text()
	assert.Equal(t, []int{1, 2, 4, 16}, shown)
	read('j')
	shown = nil
	text() // once more, from the beginning
	assert.Equal(t, []int{1, 2, 4, 16}, shown)
	read('j')
	shown = nil
	read(0x42, mask|1, 0, 0, 0, 0, '0') // binary
	read(0x80, mask|1, 0, 0, 0, 0, '1')
	read(0x01, mask|1, 0, 0, 0, 0, '0') // not compressed
	assert.Empty(t, shown)
}

// A decompression bomb costs no more than the limit.
func TestInflateLimit(t *testing.T) {
	const limit = 1 << 20
	z := NewDeflater(9)
	fits, bomb := bytes.Repeat([]byte{0}, limit), bytes.Repeat([]byte{0}, 64*limit)
	got, err := Inflate(nil, z.Append(nil, fits, nil, 15), nil, limit)
	require.NoError(t, err)
	require.Len(t, got, limit)
	got, err = Inflate(nil, z.Append(nil, bomb, nil, 15), nil, limit)
	require.ErrorIs(t, err, ErrMessageTooLarge)
	assert.LessOrEqual(t, cap(got), limit+(64<<10))
}

func TestDecoderDeflate(t *testing.T) {
	text := NewDeflater(1).Append(nil, []byte(strings.Repeat("text ", 100)), nil, 15)
	frame := func(first byte, payload []byte) []byte {
		b := []byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}
		return append(b, payload...)
	}
	half := len(text) / 2
	stream := slicesConcat(
		frame(0xC1, text), frame(0x41, text[:half]), frame(0x89, []byte("ping")), frame(0x80, text[half:]),
		frame(0x81, []byte("plain")),
	)
	for _, chop := range []int{1, 2, 7, len(stream)} {
		var d Decoder
		var got []string
		in := bytes.Clone(stream)
		for len(in) > 0 {
			b := in[:min(chop, len(in))]
			in = in[len(b):]
			for len(b) > 0 {
				n, m, ok, err := d.NextDeflate(b, 1000)
				require.NoError(t, err)
				b = b[n:]
				if !ok {
					continue
				}
				payload := m.Payload
				if m.Compressed {
					payload, err = Inflate(nil, payload, nil, 1000)
					require.NoError(t, err)
				}
				got = append(got, fmt.Sprint(m.Op, len(payload)))
			}
			d.Done()
		}
		want := []string{fmt.Sprint(OpText, 500), fmt.Sprint(OpPing, 4), fmt.Sprint(OpText, 500), fmt.Sprint(OpText, 5)}
		assert.Equal(t, want, got, "chops of %d", chop)
	}
	for name, bad := range map[string][]byte{
		"not negotiated": nil,
		"control":        frame(0xC9, nil),
		"RSV2":           frame(0xA1, nil),
		"RSV1 and RSV2":  frame(0xE1, nil),
		"continuation":   slicesConcat(frame(0x41, text[:half]), frame(0xC0, text[half:])),
	} {
		var d Decoder
		next := d.NextDeflate
		if bad == nil {
			bad, next = frame(0xC1, text), d.Next
		}
		_, _, _, err := next(bad, 1000)
		assert.ErrorIs(t, err, ErrReservedBits, name)
	}
}

func slicesConcat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// FuzzInflate checks that the limit holds for any input, and that a deflated message inflates to
// itself.
func FuzzInflate(f *testing.F) {
	for _, s := range []string{
		"\xf2\x48\xcd\xc9\xc9\x07\x00", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "\x00", "", "\xff\xff",
	} {
		f.Add([]byte(s), []byte("Hello"), uint8(15))
	}
	z := NewDeflater(1)
	f.Fuzz(func(t *testing.T, in, history []byte, bits uint8) {
		const limit = 10_000
		out, err := Inflate(nil, in, history, limit)
		if err == nil && len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
		part := in[:len(in)/2]
		start, startErr := InflateStart(nil, part, history, limit)
		if err == nil && (startErr != nil || !bytes.HasPrefix(out, start)) {
			t.Fatalf("%v: half of it is %q, all is %q", startErr, start, out)
		}
		bits = MinWindowBits + bits%(MaxWindowBits-MinWindowBits+1)
		window := history[max(0, len(history)-1<<bits):]
		got, err := Inflate(nil, z.Append(nil, in, history, bits), window, int64(len(in)))
		if err != nil || !bytes.Equal(in, got) {
			t.Fatalf("%v: %q became %q", err, in, got)
		}
	})
}

func BenchmarkDeflate(b *testing.B) {
	message := bytes.Repeat([]byte(`{"type":"notify","event":"price","data":{"id":1234}} `), 20)[:512]
	z := NewDeflater(1)
	b.Run("deflate", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(512)
		var out []byte
		for b.Loop() {
			out = z.Append(out[:0], message, nil, 15)
		}
		b.ReportMetric(float64(len(out)), "bytes")
	})
	b.Run("inflate", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(512)
		in := z.Append(nil, message, nil, 15)
		var out []byte
		for b.Loop() {
			out, _ = Inflate(out[:0], in, nil, 1000)
		}
	})
}
