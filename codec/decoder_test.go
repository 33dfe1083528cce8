package codec_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
)

func TestDecoderSize(t *testing.T) {
	assert.Equal(t, uintptr(8), unsafe.Sizeof(codec.Decoder{}), "budget of an idle connection")
}

// cuts holds the ways to divide a stream into reads.
func cuts() map[string]func(int) int {
	r := rand.New(rand.NewPCG(1, 2))
	return map[string]func(int) int{"whole": whole, "bytewise": bytewise, "chopped": chops(r, 40)}
}

func TestDecoderRejects(t *testing.T) {
	const ping, tx, bin, cont = codec.OpPing, codec.OpText, codec.OpBinary, codec.OpContinuation
	hello := event{tx, "hello"}
	tests := []struct {
		name   string
		stream []byte
		events []event
		err    error
		needs  int // the stream's first bytes that suffice; 0 means all
	}{
		{"5.2 RSV1", []byte{0xC1}, nil, codec.ErrReservedBits, 1},
		{"5.2 RSV2", []byte{0xA1, 0x80}, nil, codec.ErrReservedBits, 1},
		{"5.2 RSV3", []byte{0x91, 0x80, 0, 0, 0, 0}, nil, codec.ErrReservedBits, 1},
		{"5.2 RSV1 on ping", []byte{0xC9, 0x80}, nil, codec.ErrReservedBits, 1},
		{"5.2 RSV1 after a message", join(frame(tx, true, "hello"), []byte{0xC1}), []event{hello}, codec.ErrReservedBits, 0},
		{"5.2 opcode 3", []byte{0x83}, nil, codec.ErrReservedOpcode, 1},
		{"5.2 opcode 7 fragmented", []byte{0x07}, nil, codec.ErrReservedOpcode, 1},
		{"5.2 opcode 11", []byte{0x8B}, nil, codec.ErrReservedOpcode, 1},
		{"5.2 opcode 15", []byte{0x8F}, nil, codec.ErrReservedOpcode, 1},
		{"5.2 opcode 4 between fragments", join(frame(tx, false, "a"), []byte{0x84}), nil, codec.ErrReservedOpcode, 0},
		{"5.1 unmasked text", []byte{0x81, 0x05, 'h'}, nil, codec.ErrUnmasked, 2},
		{"5.1 unmasked ping", []byte{0x89, 0x00}, nil, codec.ErrUnmasked, 2},
		{"5.1 unmasked 64-bit length", []byte{0x82, 127, 0xFF}, nil, codec.ErrUnmasked, 2},
		{"5.5 fragmented ping", []byte{0x09}, nil, codec.ErrFragmentedControl, 1},
		{"5.5 fragmented close", []byte{0x08, 0x80}, nil, codec.ErrFragmentedControl, 1},
		{"5.5 ping of 126 bytes", announce(ping, true, 126), nil, codec.ErrControlTooLong, 2},
		{"5.5 close of 65536 bytes", announce(codec.OpClose, true, 65536), nil, codec.ErrControlTooLong, 2},
		{"5.4 continuation first", []byte{0x80}, nil, codec.ErrUnexpectedContinuation, 1},
		{"5.4 continuation with FIN clear first", []byte{0x00}, nil, codec.ErrUnexpectedContinuation, 1},
		{
			"5.4 continuation after a message", join(frame(tx, true, "hello"), []byte{0x80}),
			[]event{hello},
			codec.ErrUnexpectedContinuation, 0,
		},
		{
			"5.4 continuation after fragments", join(frame(tx, false, "hel"), frame(cont, true, "lo"), []byte{0x80}),
			[]event{hello},
			codec.ErrUnexpectedContinuation, 0,
		},
		{
			"5.4 continuation after a ping alone", join(frame(ping, true, "p"), []byte{0x80}),
			[]event{{ping, "p"}},
			codec.ErrUnexpectedContinuation, 0,
		},
		{"5.4 text within fragments", join(frame(tx, false, "a"), []byte{0x81}), nil, codec.ErrExpectedContinuation, 0},
		{
			"5.4 binary within fragments after a ping",
			join(frame(bin, false, "a"), frame(ping, true, ""), []byte{0x02}),
			[]event{{ping, ""}},
			codec.ErrExpectedContinuation, 0,
		},
		{"5.2 16-bit length of 125", []byte{0x82, 0x80 | 126, 0, 125}, nil, codec.ErrLengthNotMinimal, 4},
		{"5.2 16-bit length of 0", []byte{0x82, 0x80 | 126, 0, 0, 1, 2, 3, 4}, nil, codec.ErrLengthNotMinimal, 4},
		{
			"5.2 64-bit length of 65535",
			[]byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF},
			nil,
			codec.ErrLengthNotMinimal, 10,
		},
		{"5.2 64-bit length of 5", []byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 5}, nil, codec.ErrLengthNotMinimal, 10},
		{
			"5.2 64-bit length with top bit",
			[]byte{0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0},
			nil,
			codec.ErrLengthOverflow, 3,
		},
		{"8.1 text FF", frame(tx, true, "a\xFF"), nil, codec.ErrInvalidUTF8, 0},
		{"8.1 text FF of a frame that goes on", frame(tx, true, "a\xFFbcdef"), nil, codec.ErrInvalidUTF8, 8},
		{"8.1 surrogate of a frame that goes on", frame(tx, true, "\xED\xA0\x80z"), nil, codec.ErrInvalidUTF8, 8},
		{
			"8.1 overlong across fragments", join(frame(tx, false, "\xE0"), frame(cont, false, "\x80")), nil,
			codec.ErrInvalidUTF8, 0,
		},
		{"8.1 rune cut at the end of the message", frame(tx, true, "\xE2\x82"), nil, codec.ErrInvalidUTF8, 0},
		{
			"8.1 rune cut at the end of the last fragment", join(frame(tx, false, "\xE2"), frame(cont, true, "\x82")),
			nil, codec.ErrInvalidUTF8, 0,
		},
		{
			"8.1 rune cut before an empty last fragment",
			join(frame(tx, false, "\xE2\x82"), frame(ping, true, ""), frame(cont, true, "")),
			[]event{{ping, ""}},
			codec.ErrInvalidUTF8, 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, cut := range cuts() {
				var d codec.Decoder
				events, err := decode(&d, tt.stream, 0, cut)
				require.Equal(t, tt.err, err, name)
				assert.Equal(t, tt.events, events, name)
				assert.False(t, d.HasPartial(), "%s: an error releases the state", name)
			}
			needs := cmp.Or(tt.needs, len(tt.stream))
			_, err := decode(new(codec.Decoder), tt.stream[:needs], 0, whole)
			require.Equal(t, tt.err, err, "as soon as %d bytes are there", needs)
			_, err = decode(new(codec.Decoder), tt.stream[:needs-1], 0, whole)
			require.NoError(t, err, "not before")
		})
	}
}

func TestDecoderAccepts(t *testing.T) {
	const ping, pong, tx, bin, cont = codec.OpPing, codec.OpPong, codec.OpText, codec.OpBinary, codec.OpContinuation
	long := strings.Repeat("p", codec.MaxControlPayload)
	tests := []struct {
		name   string
		stream []byte
		want   []event
	}{
		{
			"5.7 example: masked Hello",
			[]byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58},
			[]event{{tx, "Hello"}},
		},
		{"5.6 empty text", frame(tx, true, ""), []event{{tx, ""}}},
		{"5.6 empty binary", frame(bin, true, ""), []event{{bin, ""}}},
		{"5.6 binary is not checked for UTF-8", frame(bin, true, "\xFF\xFE"), []event{{bin, "\xFF\xFE"}}},
		{"5.2 length 125", frame(bin, true, strings.Repeat("x", 125)), []event{{bin, strings.Repeat("x", 125)}}},
		{"5.2 length 126", frame(bin, true, strings.Repeat("x", 126)), []event{{bin, strings.Repeat("x", 126)}}},
		{"5.2 length 65535", frame(bin, true, strings.Repeat("x", 65535)), []event{{bin, strings.Repeat("x", 65535)}}},
		{"5.2 length 65536", frame(bin, true, strings.Repeat("x", 65536)), []event{{bin, strings.Repeat("x", 65536)}}},
		{"5.4 two fragments", join(frame(tx, false, "Hel"), frame(cont, true, "lo")), []event{{tx, "Hello"}}},
		{
			"5.4 fragments all empty", join(frame(bin, false, ""), frame(cont, false, ""), frame(cont, true, "")),
			[]event{{bin, ""}},
		},
		{
			"5.4 message after fragments", join(frame(bin, false, "a"), frame(cont, true, "b"), frame(tx, true, "c")),
			[]event{{bin, "ab"}, {tx, "c"}},
		},
		{
			"5.4 ping between fragments", join(frame(tx, false, "Hel"), frame(ping, true, "p"), frame(cont, true, "lo")),
			[]event{{ping, "p"}, {tx, "Hello"}},
		},
		{
			"5.4 control frames of 125 bytes between fragments",
			join(
				frame(tx, false, "a"), frame(ping, true, long), frame(pong, true, ""), frame(cont, false, "b"),
				frame(codec.OpClose, true, "\x03\xE8bye"), frame(cont, true, "c"),
			),
			[]event{{ping, long}, {pong, ""}, {codec.OpClose, "\x03\xE8bye"}, {tx, "abc"}},
		},
		{
			"5.5 empty control frames",
			join(frame(codec.OpClose, true, ""), frame(ping, true, ""), frame(pong, true, "")),
			[]event{{codec.OpClose, ""}, {ping, ""}, {pong, ""}},
		},
		{
			"8.1 rune across fragments",
			join(
				frame(tx, false, "\xF0\x9F"), frame(ping, true, "\xFF"), frame(cont, false, "\x98"),
				frame(cont, true, "\x80!"),
			),
			[]event{{ping, "\xFF"}, {tx, "😀!"}},
		},
		{
			"8.1 binary fragments are not checked for UTF-8",
			join(frame(bin, false, "\xFF"), frame(cont, true, "\xC0")),
			[]event{{bin, "\xFF\xC0"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, cut := range cuts() {
				var d codec.Decoder
				got, err := decode(&d, tt.stream, 0, cut)
				require.NoError(t, err, name)
				assert.Equal(t, tt.want, got, name)
				assert.False(t, d.HasPartial(), "%s: nothing held at a boundary", name)
				assert.Zero(t, d.Buffered(), name)
			}
		})
	}
}

func TestDecoderDifferential(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 99))
			stream, want, _ := randomStream(r, 1+r.IntN(30))
			for name, cut := range map[string]func(int) int{
				"whole": whole, "bytewise": bytewise, "chops of 10": chops(r, 10), "chops of 5000": chops(r, 5000),
			} {
				var d codec.Decoder
				got, err := decode(&d, stream, 0, cut)
				require.NoError(t, err, name)
				require.Equal(t, want, got, name)
				require.False(t, d.HasPartial(), name)
			}
		})
	}
}

// TestDecoderCutAnywhere ends streams at each byte: the messages that are whole by then come
// out, and no others.
func TestDecoderCutAnywhere(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		stream, want, ends := randomStream(r, 5)
		if len(stream) > 3000 {
			continue
		}
		for at := range len(stream) + 1 {
			var d codec.Decoder
			head, err := decode(&d, stream[:at], 0, whole)
			require.NoError(t, err)
			n := 0
			for n < len(ends) && ends[n] <= at {
				n++
			}
			require.Equal(t, append([]event(nil), want[:n]...), head, "seed %d, truncated at %d", seed, at)
			tail, err := decode(&d, stream[at:], 0, whole)
			require.NoError(t, err)
			require.Equal(t, want, append(head, tail...), "seed %d, cut at %d", seed, at)
		}
	}
}

func TestDecoderLimit(t *testing.T) {
	const limit = 1000
	tx, cont := codec.OpText, codec.OpContinuation
	of := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name   string
		stream []byte
		limit  int64
		err    error
	}{
		{"limit-1", frame(tx, true, of(limit-1)), limit, nil},
		{"limit", frame(tx, true, of(limit)), limit, nil},
		{"limit+1", frame(tx, true, of(limit+1)), limit, codec.ErrMessageTooLarge},
		{"fragments of limit-1", join(frame(tx, false, of(500)), frame(cont, true, of(499))), limit, nil},
		{"fragments of limit", join(frame(tx, false, of(500)), frame(cont, true, of(500))), limit, nil},
		{
			"fragments of limit+1", join(frame(tx, false, of(500)), frame(cont, true, of(501))), limit,
			codec.ErrMessageTooLarge,
		},
		{"empty fragment at limit", join(frame(tx, false, of(limit)), frame(cont, true, "")), limit, nil},
		{"two messages of limit", join(frame(tx, true, of(limit)), frame(tx, true, of(limit))), limit, nil},
		{"control frame above limit", frame(codec.OpPing, true, of(100)), 10, nil},
		{
			"control frame in a message at limit",
			join(frame(tx, false, of(10)), frame(codec.OpPing, true, of(100)), frame(cont, true, "")), 10, nil,
		},
		{"limit 1, 2 bytes", frame(tx, true, "xx"), 1, codec.ErrMessageTooLarge},
		{"no limit 0", frame(tx, true, of(100_000)), 0, nil},
		{"no limit -1", frame(tx, true, of(100_000)), -1, nil},
		{"header alone", announce(tx, true, limit+1), limit, codec.ErrMessageTooLarge},
		{"header alone, most that fits 63 bits", announce(tx, true, math.MaxInt64), limit, codec.ErrMessageTooLarge},
		{
			"most after a fragment", join(frame(tx, false, "x"), announce(cont, true, math.MaxInt64)), math.MaxInt64,
			codec.ErrMessageTooLarge,
		},
		{"most alone at that limit", announce(tx, true, math.MaxInt64), math.MaxInt64, nil},
		{
			"most after a fragment, no limit",
			join(frame(tx, false, "x"), announce(cont, true, math.MaxInt64), []byte("\x01")), 0, nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, cut := range cuts() {
				var d codec.Decoder
				_, err := decode(&d, tt.stream, tt.limit, cut)
				require.Equal(t, tt.err, err, name)
				require.LessOrEqual(t, d.AssemblyCap(), codec.MaxPooledBytes, "%s: memory follows the received bytes", name)
				d.Release()
			}
		})
	}
	t.Run("lowered within a message", func(t *testing.T) {
		var d codec.Decoder
		_, err := decode(&d, frame(tx, false, of(500)), limit, whole)
		require.NoError(t, err)
		_, err = decode(&d, frame(cont, true, ""), 10, whole)
		require.Equal(t, codec.ErrMessageTooLarge, err)
	})
}

// TestDecoderAgreesWithGobwasHeaderRules compares each first pair of header bytes with the
// checks of gobwas/ws.
func TestDecoderAgreesWithGobwasHeaderRules(t *testing.T) {
	for first := range 256 {
		for second := range 256 {
			for _, fragmented := range []bool{false, true} {
				h := ws.Header{
					Fin: first&0x80 != 0, Rsv: byte(first >> 4 & 7), OpCode: ws.OpCode(first & 15),
					Masked: second&0x80 != 0, Length: int64(second & 0x7F),
				}
				state := ws.StateServerSide
				var d codec.Decoder
				if fragmented {
					state = state.Set(ws.StateFragmented)
					_, err := decode(&d, frame(codec.OpBinary, false, "x"), 0, whole)
					require.NoError(t, err)
				}
				_, err := decode(&d, []byte{byte(first), byte(second)}, 0, whole)
				require.Equal(t, ws.CheckHeader(h, state) != nil, err != nil,
					"%#x %#x fragmented=%v: %v", first, second, fragmented, err)
				d.Release()
			}
		}
	}
}

func TestDecoderMask(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 300 {
		payload, key := randomBytes(r, n), randomKey(r)
		stream := announce(codec.OpBinary, true, uint64(n))
		copy(stream[len(stream)-4:], key[:])
		for i, c := range payload { // RFC 6455 section 5.3, word for word
			stream = append(stream, c^key[i%4])
		}
		for name, cut := range cuts() {
			got, err := decode(new(codec.Decoder), stream, 0, cut)
			require.NoError(t, err)
			require.Equal(t, []event{{codec.OpBinary, string(payload)}}, got, "%d bytes, %s", n, name)
		}
	}
}
