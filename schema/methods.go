package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"reflect"
	"time"
)

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// standard are the types of the standard library whose JSON their fields do not show.
var standard = map[reflect.Type]*shape{
	reflect.TypeFor[time.Time]():       {kind: kindString, format: formatTime},
	reflect.TypeFor[time.Duration]():   {kind: kindNumber, integer: true, format: formatDuration},
	reflect.TypeFor[json.RawMessage](): {kind: kindUnknown},
	reflect.TypeFor[json.Number]():     {kind: kindNumber},
	reflect.TypeFor[big.Int]():         {kind: kindNumber, integer: true, format: formatBig},
	reflect.TypeFor[slog.Level]():      {kind: kindString},
}

// implements reports whether t or a pointer to it has the methods of i.
func implements(t, i reflect.Type) bool {
	return t.Implements(i) || reflect.PointerTo(t).Implements(i)
}

// customMethod returns the method that makes the JSON of t unknown, or "".
func customMethod(t reflect.Type) string {
	switch {
	case implements(t, jsonMarshaler):
		return "MarshalJSON"
	case implements(t, jsonUnmarshaler):
		return "UnmarshalJSON"
	case implements(t, textUnmarshaler) && !implements(t, textMarshaler):
		return "UnmarshalText, but not MarshalText"
	}
	return ""
}

// isText reports whether t is a string in JSON because of its MarshalText.
func isText(t reflect.Type) bool { return implements(t, textMarshaler) }

// isBytes reports whether encoding/json writes t in base64: a slice of bytes whose elements
// have no methods for JSON.
func isBytes(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8 {
		return false
	}
	p := reflect.PointerTo(t.Elem())
	return !p.Implements(jsonMarshaler) && !p.Implements(textMarshaler)
}

// choice is the way in which encoding/json writes a value.
type choice uint8

const (
	byKind choice = iota
	byMarshalJSON
	byMarshalText
)

// choose returns the way in which encoding/json writes values of type t. It calls a method of
// the pointer only if the value is addressable.
func choose(t reflect.Type, addressable bool) choice {
	has := func(i reflect.Type) bool {
		return t.Implements(i) || addressable && t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(i)
	}
	switch {
	case has(jsonMarshaler):
		return byMarshalJSON
	case has(textMarshaler):
		return byMarshalText
	}
	return byKind
}

// visit is a type at a place where its values are addressable, or are not.
type visit struct {
	typ         reflect.Type
	addressable bool
}

// checkReceivers returns an error if a value within t has a method for JSON that encoding/json
// does not call, because the receiver is a pointer and the value is not addressable: a value of
// a map, for example.
func checkReceivers(t reflect.Type, addressable bool, seen map[visit]bool) error {
	v := visit{t, addressable}
	if seen[v] || t.Kind() == reflect.Interface {
		return nil
	}
	seen[v] = true
	way := choose(t, addressable)
	if !addressable && way != choose(t, true) {
		return fmt.Errorf("encoding/json does not call the method of *%v here, because the value is not addressable: "+
			"use *%v, or give the method a receiver that is no pointer", t, t)
	}
	if way != byKind {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return checkReceivers(t.Elem(), true, seen)
	case reflect.Array:
		return checkReceivers(t.Elem(), addressable, seen)
	case reflect.Map:
		if err := checkReceivers(t.Elem(), false, seen); err != nil {
			return fmt.Errorf("values of %v: %w", t, err)
		}
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			if err := checkReceivers(f.typ, addressable || f.pointer, seen); err != nil {
				return fmt.Errorf("field %s of %v: %w", f.goName, f.owner, err)
			}
		}
	default: // nothing within
	}
	return nil
}
