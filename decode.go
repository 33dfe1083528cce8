package ws

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
)

// decode decodes the data of a request.
func decode[Req any](msg *Message) (*Req, error) {
	req := new(Req)
	if len(msg.Data) == 0 {
		return req, nil
	}
	if err := json.Unmarshal(msg.Data, req); err != nil {
		return nil, dataError(err)
	}
	return req, nil
}

// dataError returns the text that a client reads for err, with which encoding/json has refused
// its data: the field and what it must be, in the words of JSON. The text of any other
// error, such as one of a type's own UnmarshalJSON, is for the log.
func dataError(err error) *ClientError {
	e := &ClientError{Code: 400, Message: "invalid data", cause: err, logged: true}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return e
	}
	e.logged = false
	e.Message += ": "
	if wrong.Field != "" {
		e.Message += wrong.Field + " "
	}
	e.Message += "must be " + expectedValue(wrong.Type)
	if kind, ok := valueKinds[wrong.Value]; ok { // and not a number that is out of range
		e.Message += ", not " + kind
	}
	return e
}

// valueKinds translates the kinds of json.UnmarshalTypeError.
var valueKinds = map[string]string{
	"bool": "a boolean", "number": "a number", "string": "a string", "array": "an array", "object": "an object",
}

// textUnmarshaler is the type of values that are strings in JSON.
var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// expectedValue returns the JSON value that a type is decoded from.
func expectedValue(t reflect.Type) string {
	if t.Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler) {
		return "a string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expectedValue(t.Elem())
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		most := int64(math.MaxInt64) >> (64 - t.Bits())
		return fmt.Sprintf("an integer from %d to %d", -most-1, most)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("an integer from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	case reflect.Float32, reflect.Float64:
		return fmt.Sprintf("a number of %d bits", t.Bits())
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "another value"
	}
}

// maxErrorText bounds the part of an answer's text that the client has chosen, in bytes.
const maxErrorText = 256

// shortened returns the beginning of text.
func shortened(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	return strings.ToValidUTF8(text[:maxErrorText], "") + "..."
}
