package codec_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/qi-realtime/ws/codec"
)

// event is a message with a payload of its own.
type event struct {
	op      codec.Opcode
	payload string
}

// clientFrame encodes a masked frame with gobwas/ws, the reference encoder.
func clientFrame(op codec.Opcode, fin bool, payload []byte, key [4]byte) []byte {
	f := ws.NewFrame(ws.OpCode(op), fin, bytes.Clone(payload))
	return ws.MustCompileFrame(ws.MaskFrameInPlaceWith(f, key))
}

// frame is clientFrame with a key that does not matter.
func frame(op codec.Opcode, fin bool, payload string) []byte {
	return clientFrame(op, fin, []byte(payload), [4]byte{0x12, 0x34, 0x56, 0x78})
}

// announce returns a masked frame header that announces n payload bytes.
func announce(op codec.Opcode, fin bool, n uint64) []byte {
	first := byte(op)
	if fin {
		first |= 0x80
	}
	b := []byte{first}
	switch {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), n)
	}
	return append(b, 1, 2, 3, 4)
}

// join concatenates frames.
func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// decode feeds stream to d in pieces. cut returns the size of the next piece for the bytes left.
// decode overwrites the buffer after each piece, and returns the messages before the first error.
func decode(d *codec.Decoder, stream []byte, limit int64, cut func(left int) int) ([]event, error) {
	var events []event
	stream = bytes.Clone(stream)
	for len(stream) > 0 {
		size := min(max(cut(len(stream)), 1), len(stream))
		read := bytes.Clone(stream[:size])
		stream = stream[size:]
		for b := read; len(b) > 0; {
			n, m, ok, err := d.Next(b, limit)
			if err != nil {
				return events, err
			}
			if !ok && n != len(b) {
				panic("Next left bytes without a message")
			}
			if ok {
				events = append(events, event{m.Op, string(m.Payload)})
			}
			b = b[n:]
		}
		d.Done()
		for i := range read {
			read[i] = 0xEE
		}
	}
	return events, nil
}

// whole is the cut that leaves a stream in one piece.
func whole(left int) int { return left }

// bytewise is the cut after each byte.
func bytewise(int) int { return 1 }

// chops returns a cut at random places.
func chops(r *rand.Rand, most int) func(int) int {
	return func(int) int { return 1 + r.IntN(most) }
}

// randomKey returns a masking key.
func randomKey(r *rand.Rand) (key [4]byte) {
	binary.NativeEndian.PutUint32(key[:], r.Uint32())
	return key
}

// randomText returns n bytes of UTF-8, or a few more, with runes of every length.
func randomText(r *rand.Rand, n int) []byte {
	var b []byte
	for len(b) < n {
		top := []rune{0x80, 0x800, 0xD800, 0x110000}[r.IntN(4)]
		c := r.Int32N(top)
		if c >= 0xD800 && c <= 0xDFFF {
			c = 0xFFFD
		}
		b = utf8.AppendRune(b, c)
	}
	return b
}

// randomBytes returns n bytes.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomSize returns sizes around the borders of the length encodings, most of them small.
func randomSize(r *rand.Rand) int {
	switch r.IntN(12) {
	case 0:
		return 124 + r.IntN(5)
	case 1:
		return 65533 + r.IntN(6)
	case 2:
		return r.IntN(10_000)
	case 3:
		return 0
	default:
		return r.IntN(200)
	}
}

// randomStream returns a stream of valid frames, the messages that must come out, and for each
// message the size of the stream that completes it. Some messages are fragmented, with control
// frames between the fragments.
func randomStream(r *rand.Rand, messages int) (stream []byte, want []event, ends []int) {
	add := func(op codec.Opcode, fin bool, payload []byte) {
		stream = append(stream, clientFrame(op, fin, payload, randomKey(r))...)
	}
	control := func() {
		op := []codec.Opcode{codec.OpPing, codec.OpPong, codec.OpClose}[r.IntN(3)]
		payload := randomBytes(r, r.IntN(codec.MaxControlPayload+1))
		add(op, true, payload)
		want, ends = append(want, event{op, string(payload)}), append(ends, len(stream))
	}
	for range messages {
		if r.IntN(4) == 0 {
			control()
			continue
		}
		op, payload := codec.OpBinary, randomBytes(r, randomSize(r))
		if r.IntN(2) == 0 {
			op, payload = codec.OpText, randomText(r, len(payload))
		}
		next, rest := op, payload
		for r.IntN(3) == 0 {
			n := r.IntN(len(rest) + 1)
			add(next, false, rest[:n])
			next, rest = codec.OpContinuation, rest[n:]
			for r.IntN(3) == 0 {
				control()
			}
		}
		add(next, true, rest)
		want, ends = append(want, event{op, string(payload)}), append(ends, len(stream))
	}
	return stream, want, ends
}
