package envelope

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MaxRequestID is the greatest length of a request_id, in bytes. It bounds the answer, which
// repeats the ID: as JSON the ID may take six times as many bytes.
const MaxRequestID = 256

// Request is the envelope of a request or a notification:
//
//	{"type":"request","event":"chat.send","request_id":"req_1","data":{...},"timestamp":1707552000}
//
// A field that is missing or null is empty. Not safe for concurrent use.
type Request struct {
	// Type, Event and RequestID are the decoded strings. They alias the input and are
	// borrowed like it. A string with an escape or with invalid UTF-8 is a copy.
	Type, Event, RequestID []byte

	// Data is the JSON text of the value. It is checked, not decoded, and aliases the input.
	Data []byte

	// TraceParent is the JSON text of the value, which may be of any kind. It aliases the input.
	TraceParent []byte

	// Timestamp is in Unix seconds.
	Timestamp int64

	// Idempotent marks a request that the client may repeat with the same RequestID.
	Idempotent bool
}

// Parse reads b, which is borrowed, into e, in one pass. It allocates only if a string needs
// decoding. It accepts the same messages as encoding/json for a struct with these fields, with
// Data as a json.RawMessage, and reads the same values, with these differences:
//
//   - the top level must be an object, where encoding/json also accepts null;
//   - keys match exactly, where encoding/json ignores case;
//   - the last value of a repeated key counts, also if it is null;
//   - null as data leaves Data empty, where a json.RawMessage would hold "null";
//   - values nest at most MaxDepth deep, the envelope included, where encoding/json allows
//     10,000, and a request_id has at most MaxRequestID bytes.
//
// The time is proportional to the length: at most a few nanoseconds for each byte of any input.
//
// On failure Parse returns ErrInvalid, wrapped with the fault, and allocates. e then holds the
// fields before the fault, and the RequestID if it can be found anywhere in b. The RequestID
// of a number is its text. Safe for concurrent use.
func Parse(b []byte, e *Request) error {
	*e = Request{}
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
	s.decode(e)
	if (s.wrong != "" || s.limit != nil) && len(e.RequestID) == 0 {
		e.RequestID = findRequestID(b)
	}
	switch {
	case s.limit != nil:
		return fmt.Errorf("%w, at byte %d", s.limit, s.i)
	case s.wrong != "":
		return fmt.Errorf("%w: %s at byte %d", ErrInvalid, s.wrong, s.i)
	}
	return nil
}

// decode decodes the strings of e. It runs at the end, once for each field, because a message
// may contain the same key thousands of times.
func (s *scanner) decode(e *Request) {
	e.Type = s.decoded(e.Type, fieldType)
	e.Event = s.decoded(e.Event, fieldEvent)
	if len(e.RequestID) <= 6*MaxRequestID { // an escape is at most six times as long as a byte
		e.RequestID = s.decoded(e.RequestID, fieldRequestID)
	}
	if len(e.RequestID) > MaxRequestID {
		e.RequestID = nil
		s.exceed(ErrRequestID)
	}
}

// decoded returns the decoded string: raw itself, or a copy if raw needs decoding.
func (s *scanner) decoded(raw []byte, field fieldSet) []byte {
	if s.escaped&field == 0 && utf8.Valid(raw) {
		return raw
	}
	return appendUnescaped(make([]byte, 0, len(raw)), raw)
}

// field reads the value of key into e. It skips the value of an unknown key.
func (s *scanner) field(e *Request, key []byte) bool {
	switch string(key) {
	case "type":
		return s.stringField(&e.Type, fieldType, "type must be a string")
	case "event":
		return s.stringField(&e.Event, fieldEvent, "event must be a string")
	case "request_id":
		return s.stringField(&e.RequestID, fieldRequestID, "request_id must be a string")
	case "timestamp":
		return s.intField(&e.Timestamp)
	case "data":
		return s.rawField(&e.Data)
	case "traceparent":
		return s.rawField(&e.TraceParent)
	case "idempotent":
		return s.boolField(&e.Idempotent, "idempotent must be true or false")
	default:
		return s.value(1)
	}
}

// stringField sets dst to the raw string, which aliases the input. It fails with wrong if the
// value is no string.
func (s *scanner) stringField(dst *[]byte, field fieldSet, wrong string) bool {
	*dst = nil
	s.escaped &^= field
	switch s.peek() {
	case 'n':
		return s.literal("null")
	case '"':
		start := s.i
		escaped, ok := s.string()
		if !ok {
			return false
		}
		if escaped {
			s.escaped |= field
		}
		*dst = s.b[start+1 : s.i-1 : s.i-1]
		return true
	default:
		return s.fail(wrong)
	}
}

// maxInt64 is the length of the longest 64-bit integer.
const maxInt64 = len("-9223372036854775808")

const wrongTimestamp = "timestamp must be a 64-bit integer"

func (s *scanner) intField(dst *int64) bool {
	*dst = 0
	if s.peek() == 'n' {
		return s.literal("null")
	}
	start := s.i
	if !s.number() {
		return s.fail(wrongTimestamp)
	}
	if s.i-start > maxInt64 {
		return s.fail(wrongTimestamp) // ParseInt would copy all of it
	}
	// The converted string does not escape, so it allocates only if ParseInt fails.
	n, err := strconv.ParseInt(string(s.b[start:s.i]), 10, 64)
	if err != nil {
		return s.fail(wrongTimestamp)
	}
	*dst = n
	return true
}

// boolField sets dst to the value. It fails with wrong if the value is no Boolean.
func (s *scanner) boolField(dst *bool, wrong string) bool {
	*dst = false
	switch s.peek() {
	case 'n':
		return s.literal("null")
	case 'f':
		return s.literal("false")
	case 't':
		*dst = s.literal("true")
		return *dst
	default:
		return s.fail(wrong)
	}
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
