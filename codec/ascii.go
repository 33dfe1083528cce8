package codec

import "strings"

// The character classes of the handshake, each a bit set of the 128 ASCII characters.
const (
	lowerLetters = (1<<26 - 1) << 'a'
	letters      = lowerLetters | (1<<26-1)<<'A'
	digits       = (1<<10 - 1) << '0'

	// tokenChars holds the characters of a method or field name (RFC 9110 section 5.6.2).
	tokenChars = letters | digits | 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' |
		1<<'+' | 1<<'-' | 1<<'.' | 1<<'^' | 1<<'_' | 1<<'`' | 1<<'|' | 1<<'~'
	// hostChars holds the characters of a Host field (RFC 3986 section 3.2, without user info).
	hostChars = letters | digits | 1<<'!' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'(' | 1<<')' |
		1<<'*' | 1<<'+' | 1<<',' | 1<<'-' | 1<<'.' | 1<<':' | 1<<';' | 1<<'=' | 1<<'[' | 1<<']' |
		1<<'_' | 1<<'~'
)

// isToken reports whether c may stand in a method or field name.
func isToken(c byte) bool {
	return inClass(c, tokenChars&(1<<64-1), tokenChars>>64)
}

// isHost reports whether c may stand in a Host field.
func isHost(c byte) bool {
	return inClass(c, hostChars&(1<<64-1), hostChars>>64)
}

// isTarget reports whether c may stand in a request target. Bytes beyond ASCII and # pass, as
// in net/http, because clients send them unescaped. In a target # begins no fragment: it is a
// part of the path or of the query.
func isTarget(c byte) bool { return c > ' ' && c != 0x7F }

// isFieldText reports whether c may stand in a field value: a tab or any byte that is no
// control character (RFC 9110 section 5.5).
func isFieldText(c byte) bool {
	return c >= ' ' && c != 0x7F || c == '\t'
}

// inClass reports whether c is in the set with the bits lo for 0 to 63 and hi for 64 to 127.
func inClass(c byte, lo, hi uint64) bool {
	return lo&(1<<c)|hi&(1<<(c-64)) != 0
}

// all reports whether each byte of s is in the class.
func all[S string | []byte](s S, class func(byte) bool) bool {
	for i := range len(s) {
		if !class(s[i]) {
			return false
		}
	}
	return true
}

// equalFold reports whether s and t are equal but for the case of ASCII letters.
// strings.EqualFold would take the Kelvin sign for a k.
func equalFold(s, t string) bool {
	if len(s) != len(t) {
		return false
	}
	for i := range len(s) {
		if lower(s[i]) != lower(t[i]) {
			return false
		}
	}
	return true
}

// lower returns the lower case of an ASCII letter, and any other byte unchanged.
func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// oneLine returns s with a space in place of each control character, so that s cannot end a
// header line.
func oneLine(s string) string {
	if all(s, isFieldText) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7F {
			return ' '
		}
		return r
	}, s)
}
