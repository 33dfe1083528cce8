package schema

import (
	"reflect"

	"github.com/qi-realtime/ws"
)

// kind is the kind of a JSON value.
type kind uint8

const (
	kindUnknown  kind = iota // any JSON value
	kindBoolean              // true or false
	kindNumber               // a number; see shape.integer
	kindString               // a string; see shape.format
	kindArray                // any number of elem
	kindTuple                // exactly length of elem
	kindMap                  // an object with keys of kind key and values elem
	kindObject               // an object with fields
	kindEnum                 // one of values
	kindRef                  // the body of def
	kindDeclared             // the TypeScript in text
)

// The formats of numbers and strings.
const (
	formatBase64   = "base64"
	formatTime     = "time"
	formatDuration = "duration"
	formatWide     = "64 bits" // integers that may be beyond 2^53
	formatBig      = "big"     // integers of any size
)

// shape is the form that the JSON of a Go type has. Immutable after New, except that the body of
// a definition is set while its recursive uses exist already.
type shape struct {
	kind     kind
	nullable bool // null is possible, too
	integer  bool
	unsigned bool
	format   string
	elem     *shape
	key      *shape
	length   int
	fields   []field
	values   []literal
	def      *definition
	text     string
}

// definition is a named type of the output.
type definition struct {
	typ  reflect.Type
	name string
	doc  string
	body *shape // not nullable
}

// field is a member of an object.
type field struct {
	jsonField
	optional bool
	shape    *shape
	doc      string
}

// route is the handler of one event. A nil shape says that there is no data.
type route struct {
	name, doc         string
	request, response *shape

	requestType, responseType reflect.Type
}

// event is an event that the server sends.
type event struct {
	name string
	data *shape
	typ  reflect.Type
}

// model is a whole API.
type model struct {
	settings    *settings
	routes      []route
	events      []event
	errors      []ws.ErrorInfo
	definitions []*definition // sorted by name
}

// or returns a copy of s that may be null.
func (s *shape) or(null bool) *shape {
	if null == s.nullable {
		return s
	}
	other := *s
	other.nullable = null
	return &other
}

// note returns a remark on the values of s for readers, or "".
func (s *shape) note() string {
	switch {
	case s.elem != nil:
		return s.elem.note()
	case s.format == formatBase64:
		return "Base64."
	case s.format == formatTime:
		return "RFC 3339."
	case s.format == formatDuration:
		return "Nanoseconds."
	case s.format == formatWide:
		return "An integer of 64 bits: JavaScript reads it exactly up to 2^53 only."
	case s.format == formatBig:
		return "An integer of any size: JavaScript reads it exactly up to 2^53 only."
	}
	return ""
}
