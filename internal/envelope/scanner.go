package envelope

import (
	"encoding/binary"
	"math/bits"
)

// MaxDepth is the greatest depth of nested objects and arrays, the envelope included. It bounds
// the scanner's recursion, because one message must not grow an event loop's stack without end.
const MaxDepth = 128

// scanner walks over JSON text (RFC 8259) and checks it. Each method begins at the first byte
// of the part that it is named for and stops behind the last. On a fault at i it notes the
// fault in wrong and returns false. Not safe for concurrent use.
type scanner struct {
	b       []byte
	i       int
	wrong   string
	limit   error    // in place of wrong if a limit is exceeded
	escaped fieldSet // the envelope's strings that contain an escape
	key     [maxRawKey]byte
}

// fieldSet is a set of the envelope's strings.
type fieldSet uint8

const (
	fieldType fieldSet = 1 << iota
	fieldEvent
	fieldRequestID
)

func (s *scanner) fail(wrong string) bool {
	s.wrong = wrong
	return false
}

func (s *scanner) exceed(limit error) bool {
	s.limit = limit
	return false
}

// peek returns the byte at i. At the end it returns 0, which begins no JSON value.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// next steps over c, which is not 0, if it comes next.
func (s *scanner) next(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\n', '\r', '\t':
			s.i++
		default:
			return
		}
	}
}

// value checks one value within depth objects and arrays.
func (s *scanner) value(depth int) bool {
	switch s.peek() {
	case '"':
		_, ok := s.string()
		return ok
	case '{':
		return s.enter(depth) && s.object(nil, depth+1)
	case '[':
		return s.enter(depth) && s.array(depth+1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

// enter steps over an opening brace or bracket.
func (s *scanner) enter(depth int) bool {
	if depth == MaxDepth {
		return s.exceed(ErrDepth)
	}
	s.i++
	return true
}

// object checks an object behind its opening brace and, if e is not nil, reads its fields.
func (s *scanner) object(e *Request, depth int) bool {
	s.space()
	if s.next('}') {
		return true
	}
	for {
		if !s.member(e, depth) {
			return false
		}
		s.space()
		if s.next('}') {
			return true
		}
		if !s.next(',') {
			return s.fail("want a comma or the object's end")
		}
		s.space()
	}
}

// member checks one key with its value.
func (s *scanner) member(e *Request, depth int) bool {
	if s.peek() != '"' {
		return s.fail("want a key")
	}
	start := s.i
	escaped, ok := s.string()
	if !ok {
		return false
	}
	key := s.b[start+1 : s.i-1]
	s.space()
	if !s.next(':') {
		return s.fail("want a colon")
	}
	s.space()
	if e == nil {
		return s.value(depth)
	}
	if escaped {
		key = s.unescapedKey(key)
	}
	return s.field(e, key)
}

// array checks an array behind its opening bracket.
func (s *scanner) array(depth int) bool {
	s.space()
	if s.next(']') {
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		s.space()
		if s.next(']') {
			return true
		}
		if !s.next(',') {
			return s.fail("want a comma or the array's end")
		}
		s.space()
	}
}

// string checks a string and reports whether it contains an escape.
func (s *scanner) string() (escaped, ok bool) {
	s.i++
	for {
		s.plain()
		switch c := s.peek(); {
		case c == '"':
			s.i++
			return escaped, true
		case c == '\\':
			escaped = true
			if !s.escape() {
				return escaped, false
			}
		case s.i == len(s.b):
			return escaped, s.fail("string without end")
		default:
			return escaped, s.fail("control character in a string")
		}
	}
}

// plain steps over the bytes of a string that need no treatment, eight at a time.
func (s *scanner) plain() {
	for len(s.b)-s.i >= 8 {
		if special := specialBytes(binary.LittleEndian.Uint64(s.b[s.i:])); special != 0 {
			s.i += bits.TrailingZeros64(special) / 8
			return
		}
		s.i += 8
	}
	for s.i < len(s.b) && s.b[s.i] >= ' ' && s.b[s.i] != '"' && s.b[s.i] != '\\' {
		s.i++
	}
}

// specialBytes returns zero if none of the eight bytes of x is a quote, a backslash or a
// control character. Otherwise the lowest set bit lies in the first such byte. The bits above
// may be wrong, because the subtractions borrow.
func specialBytes(x uint64) uint64 {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	quote := x ^ ones*'"'
	backslash := x ^ ones*'\\'
	return ((x-ones*' ')&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
}

// escape checks an escape sequence. A lone surrogate passes, as in encoding/json.
func (s *scanner) escape() bool {
	s.i++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return true
	case 'u':
		s.i++
		for range 4 {
			if !isHex(s.peek()) {
				return s.fail("want four hexadecimal digits")
			}
			s.i++
		}
		return true
	default:
		return s.fail("invalid escape")
	}
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number checks a number.
func (s *scanner) number() bool {
	s.next('-')
	if !s.next('0') && !s.digits() {
		return s.fail("invalid value")
	}
	switch s.peek() {
	case '.', 'e', 'E':
		return s.fraction()
	}
	return true
}

// fraction checks the fraction and the exponent of a number.
func (s *scanner) fraction() bool {
	if s.next('.') && !s.digits() {
		return s.fail("want a digit")
	}
	if s.next('e') || s.next('E') {
		if !s.next('+') {
			s.next('-')
		}
		if !s.digits() {
			return s.fail("want a digit")
		}
	}
	return true
}

// digits steps over digits and reports whether there was at least one.
func (s *scanner) digits() bool {
	start := s.i
	for isDigit(s.peek()) {
		s.i++
	}
	return s.i > start
}

func (s *scanner) literal(want string) bool {
	if len(s.b)-s.i < len(want) || string(s.b[s.i:s.i+len(want)]) != want {
		return s.fail("invalid value")
	}
	s.i += len(want)
	return true
}
