package codec

import "unicode/utf8"

// utf8State validates UTF-8 that arrives in pieces. Its zero value is the start of a text. It
// holds no more than the bytes of one unfinished rune. Not safe for concurrent use.
type utf8State struct {
	tail [utf8.UTFMax - 1]byte // the start of a rune that the last piece cut
	n    uint8                 // how many bytes of tail are used
}

// write reports whether the text so far, with b at its end, can still become valid UTF-8. It
// is false from the first byte that no continuation could make valid; the state is then of no
// more use. b is borrowed.
func (s *utf8State) write(b []byte) bool {
	// utf8.FullRune is false exactly for what is valid so far and too short: its answer for
	// an invalid start (overlong, surrogate, above U+10FFFF) is true.
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

// complete reports whether the text may end here, not within a rune.
func (s *utf8State) complete() bool { return s.n == 0 }

// cutRune returns how many bytes at the end of b, at most three, begin a rune that b does not
// finish.
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
