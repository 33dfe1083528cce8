package router

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Envelope is the outer object of a message:
//
//	{"type":"request","event":"chat.send","request_id":"req_1","data":{...},"timestamp":1707552000}
//
// A field that is missing or null is empty. Not safe for concurrent use.
type Envelope struct {
	// Type, Event and RequestID are the decoded strings. They alias the input and are
	// borrowed as it is, except that a string with an escape or with invalid UTF-8 is a copy.
	Type, Event, RequestID []byte

	// Data is the JSON text of the value, checked but not decoded. It aliases the input.
	Data []byte

	// Timestamp is in Unix seconds.
	Timestamp int64
}

// ParseEnvelope reads b, which is borrowed, into e, in one pass and without allocating as
// long as no string needs decoding. It takes what encoding/json takes for a struct with these
// fields, Data being a json.RawMessage, and reads the same values, but for this:
//
//   - the top level must be an object, where encoding/json also takes null;
//   - keys match exactly, where encoding/json ignores case;
//   - of a key that occurs twice the last value counts, also if it is null;
//   - null as data leaves Data empty, where a json.RawMessage would hold "null";
//   - values nest at most 512 deep, the envelope included, where encoding/json allows 10,000.
//
// On failure it returns ErrEnvelope, wrapped with what is wrong, and e holds the fields read
// before. It allocates then. Safe for concurrent use.
func ParseEnvelope(b []byte, e *Envelope) error {
	*e = Envelope{}
	s := scanner{b: b}
	s.space()
	if !s.next('{') {
		s.fail("not an object")
	} else if s.object(e, 1) {
		s.space()
		if s.i < len(b) {
			s.fail("bytes after the object")
		}
	}
	if s.wrong == "" {
		return nil
	}
	return fmt.Errorf("%w: %s at byte %d", ErrEnvelope, s.wrong, s.i)
}

// field reads the value of key into e, or skips it if the key is not one of e's.
func (s *scanner) field(e *Envelope, key []byte) bool {
	switch string(key) {
	case "type":
		return s.stringField(&e.Type)
	case "event":
		return s.stringField(&e.Event)
	case "request_id":
		return s.stringField(&e.RequestID)
	case "timestamp":
		return s.intField(&e.Timestamp)
	case "data":
		return s.rawField(&e.Data)
	default:
		return s.value(1)
	}
}

func (s *scanner) stringField(dst *[]byte) bool {
	*dst = nil
	switch s.peek() {
	case 'n':
		return s.literal("null")
	case '"':
		var ok bool
		*dst, ok = s.text()
		return ok
	default:
		return s.fail("want a string")
	}
}

func (s *scanner) intField(dst *int64) bool {
	*dst = 0
	if s.peek() == 'n' {
		return s.literal("null")
	}
	start := s.i
	if !s.number() {
		return false
	}
	// The conversion does not escape, so it does not allocate unless ParseInt fails.
	n, err := strconv.ParseInt(string(s.b[start:s.i]), 10, 64)
	if err != nil {
		return s.fail("want a 64-bit integer")
	}
	*dst = n
	return true
}

func (s *scanner) rawField(dst *[]byte) bool {
	*dst = nil
	if s.peek() == 'n' {
		return s.literal("null")
	}
	start := s.i
	if !s.value(1) {
		return false
	}
	*dst = s.b[start:s.i:s.i]
	return true
}

// text scans a string and returns what it says, which aliases the input if it can.
func (s *scanner) text() ([]byte, bool) {
	start := s.i
	escaped, ok := s.string()
	if !ok {
		return nil, false
	}
	if raw := s.b[start+1 : s.i-1 : s.i-1]; !escaped && utf8.Valid(raw) {
		return raw, true
	}
	var decoded string
	if json.Unmarshal(s.b[start:s.i], &decoded) != nil {
		return nil, s.fail("invalid string") // not reached: string checked it
	}
	return []byte(decoded), true
}
