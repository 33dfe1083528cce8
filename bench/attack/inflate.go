//go:build linux

package attack

import (
	"bytes"
	"cmp"
	"compress/flate"
	"slices"
	"strings"

	"github.com/qi-realtime/ws/bench/load"
)

// Attacks with compressed messages.

// deflateHeaders asks for compression.
const deflateHeaders = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; " +
	"server_no_context_takeover\r\n"

// opDeflatedText is the first byte of a compressed text, without the bit of the
// last fragment.
const opDeflatedText = 0x40 | load.OpText

// bitWriter writes the bits of a deflate stream.
type bitWriter struct {
	b    []byte
	used int // bits of the last byte
}

// put writes the n lowest bits of v, the lowest first.
func (w *bitWriter) put(v uint32, n int) {
	for ; n > 0; n-- {
		if w.used&7 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v&1) << (w.used & 7)
		w.used++
		v >>= 1
	}
}

// emptyBlock writes a block with Huffman codes of its own and nothing in it (RFC
// 1951, section 3.2.7), in 90 bits.
func (w *bitWriter) emptyBlock() {
	w.put(0, 1)  // not the last
	w.put(2, 2)  // dynamic codes
	w.put(0, 5)  // 257 literal codes
	w.put(0, 5)  // 1 distance code
	w.put(14, 4) // 18 lengths of code length codes, in their peculiar order
	for i := range 18 {
		switch i {
		case 2, 17: // for 18 (many zeros) and 1
			w.put(1, 3)
		default:
			w.put(0, 3)
		}
	}
	w.put(1, 1) // 138 zeros
	w.put(127, 7)
	w.put(1, 1) // 118 zeros
	w.put(107, 7)
	w.put(0, 1) // length 1 for the end of the block ...
	w.put(0, 1) // ... and for the distance
	w.put(0, 1) // the end of the block
}

// stored writes text as a block that is not the last, at the beginning of a stream.
func (w *bitWriter) stored(text []byte) {
	w.put(0, 8)
	n := uint16(len(text))
	w.b = append(w.b, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
	w.b = append(w.b, text...)
}

// emptyBlocks is text, stored, with empty blocks behind it, in size bytes or a
// few more: a permessage-deflate payload.
func emptyBlocks(text []byte, size int) []byte {
	w := new(bitWriter)
	w.stored(text)
	for len(w.b) < size {
		w.emptyBlock()
	}
	w.put(0, 3) // the stored block whose other bytes RFC 7692 leaves out
	return w.b
}

func prepareEmptyBlocks(*strike) any {
	return load.MaskedFrame(opDeflatedText, emptyBlocks(requestText("noop", "1", `{}`), maxBytes))
}

// inflateEmpty sends 1.7 MB in a second.
func inflateEmpty(s *strike, i int) {
	message := s.shared.([]byte)
	s.reconnecting(deflateHeaders, func(a *attacker) {
		at := 0
		s.paced(i, 50, func(int) bool {
			end := min(len(message), at+34_000)
			err := a.write(message[at:end])
			at = end % len(message)
			return err == nil
		})
	})
}

// ratioMessage inflates to maxBytes; the rest of it is white space.
func ratioMessage() []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write(requestText("noop", "1", "{"+strings.Repeat(" ", maxBytes)+"}"))
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xFF, 0xFF})
}

func prepareRatio(*strike) any { return load.MaskedFrame(opDeflatedText, ratioMessage()) }

func inflateRatio(s *strike, i int) { s.sendPaced(i, 310, deflateHeaders) }

// costlyBlock writes a block with Huffman codes of its own that contains n spaces
// (RFC 1951, section 3.2.7). The codes are of the kind that takes longest to
// prepare: many of them are longer than the nine bits that the first table of a
// decoder covers.
func (w *bitWriter) costlyBlock(n int) {
	w.put(0, 1)                              // not the last
	w.put(2, 2)                              // dynamic codes
	w.put(uint32(len(costlyLengths)-257), 5) // literal codes
	w.put(0, 5)                              // 1 distance code
	w.put(15, 4)                             // 19 lengths of code length codes, in their peculiar order
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		w.put(uint32(costlyLengthLengths[symbol]), 3)
	}
	codes := huffmanCodes(costlyLengthLengths[:])
	all := append(slices.Clone(costlyLengths[:]), 1) // and the length of the distance code
	for i := 0; i < len(all); {
		repeats := 0
		for i > 0 && repeats < 6 && i+repeats < len(all) && all[i+repeats] == all[i-1] {
			repeats++
		}
		if repeats >= 3 { // symbol 16 repeats the length before it
			w.putCode(codes[16])
			w.put(uint32(repeats-3), 2)
			i += repeats
			continue
		}
		w.putCode(codes[all[i]])
		i++
	}
	codes = huffmanCodes(costlyLengths[:])
	for range n {
		w.putCode(codes[' '])
	}
	w.putCode(codes[256]) // the end of the block
}

// costlyLengths are the lengths of the literal codes, and costlyLengthLengths the
// lengths of the codes for lengths.
var (
	costlyLengths = func() (lengths [280]int) {
		for i := range lengths {
			lengths[i] = 10
			if i >= 240 {
				lengths[i] = 7
			}
		}
		copy(lengths[274:], []int{11, 12, 13, 14, 15, 15})
		lengths[' '] = 1
		return lengths
	}()
	costlyLengthLengths = [19]int{1: 4, 7: 3, 10: 3, 11: 5, 12: 5, 13: 5, 14: 5, 15: 4, 16: 1}
)

// huffmanCode is a code of n bits.
type huffmanCode struct {
	bits uint32
	n    int
}

// huffmanCodes returns the codes of symbols whose lengths are given (section
// 3.2.2).
func huffmanCodes(lengths []int) []huffmanCode {
	order := make([]int, 0, len(lengths))
	for symbol, n := range lengths {
		if n > 0 {
			order = append(order, symbol)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(lengths[a], lengths[b]) })
	codes := make([]huffmanCode, len(lengths))
	next, n := uint32(0), 0
	for _, symbol := range order {
		next <<= lengths[symbol] - n
		n = lengths[symbol]
		codes[symbol] = huffmanCode{next, n}
		next++
	}
	return codes
}

// putCode writes a code, its highest bit first.
func (w *bitWriter) putCode(c huffmanCode) {
	for i := c.n - 1; i >= 0; i-- {
		w.put(c.bits>>i&1, 1)
	}
}

// costlyBlocks is text, stored, with blocks of spaces behind it that inflate to
// size bytes: a permessage-deflate payload of as many blocks as the server lets
// through.
func costlyBlocks(text []byte, size int) []byte {
	w := new(bitWriter)
	w.stored(text)
	for n := len(text); n < size; n += 102 {
		w.costlyBlock(102)
	}
	w.put(0, 3)
	return w.b
}

func prepareCostlyBlocks(*strike) any {
	return load.MaskedFrame(opDeflatedText, costlyBlocks(requestText("noop", "1", `{}`), maxBytes))
}

func inflateBlocks(s *strike, i int) { s.sendPaced(i, 40, deflateHeaders) }
