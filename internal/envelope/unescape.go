package envelope

import (
	"unicode/utf16"
	"unicode/utf8"
)

// maxRawKey is the length of the envelope's longest key with each byte escaped.
const maxRawKey = 6 * len("traceparent")

// unescapedKey decodes a key that contains an escape. It returns nil for a key that is longer
// than any key of the envelope.
func (s *scanner) unescapedKey(raw []byte) []byte {
	if len(raw) > maxRawKey {
		return nil
	}
	return appendUnescaped(s.key[:0], raw)
}

// appendUnescaped appends the decoded form of raw, the checked text between the quotes of a
// string. Like encoding/json it puts U+FFFD in the place of a lone surrogate and of a byte that
// is not UTF-8.
func appendUnescaped(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case c == '\\' && raw[i+1] == 'u':
			r, n := unescapedRune(raw[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		case c == '\\':
			dst = append(dst, unescapedByte(raw[i+1]))
			i += 2
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	return dst
}

// unescapedByte returns the byte that a backslash with c stands for.
func unescapedByte(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// unescapedRune decodes the \u escape at the start of raw, or the two of a surrogate pair. n is
// their length.
func unescapedRune(raw []byte) (r rune, n int) {
	r = fourDigits(raw)
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
		if pair := utf16.DecodeRune(r, fourDigits(raw[6:])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return utf8.RuneError, 6
}

// fourDigits returns the value of the \u escape at the start of raw.
func fourDigits(raw []byte) (r rune) {
	for _, c := range raw[2:6] {
		switch {
		case isDigit(c):
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
