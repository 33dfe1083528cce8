package codec

import "unicode/utf8"

// utf8State validates UTF-8 that arrives in pieces. Its zero value is the start of a text. It
// holds only the bytes of one unfinished rune. Not safe for concurrent use.
type utf8State struct {
	tail [utf8.UTFMax - 1]byte // the start of a rune that the last piece cut
	n    uint8                 // used bytes of tail
}

// write appends b to the text and reports whether the text can still become valid UTF-8. It
// returns false from the first byte that no continuation could make valid. The state is useless
// afterwards. b is borrowed.
func (s *utf8State) write(b []byte) bool {
	// utf8.FullRune is false exactly for the unfinished start of a valid rune. It is true for
	// an invalid start (overlong, surrogate, above U+10FFFF).
	for s.n > 0 && len(b) > 0 {
		var seq [utf8.UTFMax]byte
		n := copy(seq[:], s.tail[:s.n])
		seq[n] = b[0]
		b = b[1:]
		if !utf8.FullRune(seq[:n+1]) {
			s.n = uint8(copy(s.tail[:], seq[:n+1]))
			continue
		}
		if r, size := utf8.DecodeRune(seq[:n+1]); r == utf8.RuneError && size == 1 {
			return false
		}
		s.n = 0
	}
	whole := len(b) - cutRune(b)
	if !utf8.Valid(b[:whole]) {
		return false
	}
	if whole < len(b) {
		s.n = uint8(copy(s.tail[:], b[whole:]))
	}
	return true
}

// complete reports whether the text may end here: it does not end within a rune.
func (s *utf8State) complete() bool { return s.n == 0 }

// cutRune returns the number of bytes, at most three, of an unfinished rune at the end of b.
func cutRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
