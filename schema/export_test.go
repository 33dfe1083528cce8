package schema

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws"
)

// WriteGolden is Golden with an error in place of a test.
var WriteGolden = golden

// shapeOfType returns the shape of t as the data of an event.
func shapeOfType(t reflect.Type, opts []Option) (*shape, error) {
	m, err := newModel(ws.Schema{Events: []ws.EventInfo{{Event: "e", Data: t}}}, opts)
	if err != nil {
		return nil, err
	}
	return m.events[0].data, nil
}

// TypeText returns the TypeScript of t: the body of its definition, if it has one.
func TypeText(t reflect.Type, opts ...Option) (string, error) {
	s, err := shapeOfType(t, opts)
	if err != nil {
		return "", err
	}
	p := new(typescript)
	if s.kind == kindRef && s.def.typ == t && s.def.body.kind != kindEnum {
		return p.typ(s.def.body.or(s.nullable)), nil
	}
	if s.kind == kindRef && s.def.body.kind == kindEnum {
		var values []string
		for _, v := range s.def.body.values {
			values = append(values, v.json)
		}
		return strings.Join(values, " | "), nil
	}
	return p.typ(s), nil
}

// Check returns an error if data, which encoding/json has made of a value of type t, is not of
// the shape of t.
func Check(t reflect.Type, data []byte, opts ...Option) error {
	s, err := shapeOfType(t, opts)
	if err != nil {
		return err
	}
	v, err := decode(data)
	if err != nil {
		return err
	}
	return s.check(v, "$")
}

// CheckZero returns an error if the shape of t is wider than the JSON of its zero value: if a
// member is optional and there, or can be null and is not.
func CheckZero(t reflect.Type, data []byte, opts ...Option) error {
	s, err := shapeOfType(t, opts)
	if err != nil {
		return err
	}
	v, err := decode(data)
	if err != nil {
		return err
	}
	return s.checkZero(v, "$")
}

func decode(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return v, d.Decode(&v)
}

//nolint:gocyclo // one case for each kind
func (s *shape) check(v any, at string) error {
	wrong := func(want string) error { return fmt.Errorf("%s: %v is not %s", at, v, want) }
	if v == nil && s.kind != kindUnknown {
		if s.nullable {
			return nil
		}
		if s.kind != kindRef {
			return wrong("null")
		}
	}
	switch s.kind {
	case kindBoolean:
		if _, ok := v.(bool); !ok {
			return wrong("a boolean")
		}
	case kindNumber:
		return s.checkNumber(v, at)
	case kindString:
		return s.checkString(v, at)
	case kindArray, kindTuple:
		list, ok := v.([]any)
		if !ok || s.kind == kindTuple && len(list) != s.length {
			return wrong("an array of the length")
		}
		for i, elem := range list {
			if err := s.elem.check(elem, at+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	case kindMap:
		return s.checkMap(v, at)
	case kindObject:
		return s.checkObject(v, at)
	case kindEnum:
		text, err := json.Marshal(v)
		if err != nil || !slices.ContainsFunc(s.values, func(l literal) bool { return l.json == string(text) }) {
			return wrong("a value of the enum")
		}
	case kindRef:
		return s.def.body.check(v, at)
	}
	return nil
}

func (s *shape) checkNumber(v any, at string) error {
	n, ok := v.(json.Number)
	if !ok {
		return fmt.Errorf("%s: %v is no number", at, v)
	}
	if s.integer && strings.ContainsAny(n.String(), ".eE") || s.unsigned && n.String()[0] == '-' {
		return fmt.Errorf("%s: %v is no such integer", at, v)
	}
	if _, err := n.Int64(); s.integer && s.format == "" && err != nil {
		return fmt.Errorf("%s: %v should have a remark", at, v)
	}
	return nil
}

func (s *shape) checkString(v any, at string) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s: %v is no string", at, v)
	}
	var err error
	switch s.format {
	case formatBase64:
		_, err = base64.StdEncoding.DecodeString(text)
	case formatTime:
		_, err = time.Parse(time.RFC3339Nano, text)
	}
	return err
}

func (s *shape) checkMap(v any, at string) error {
	members, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %v is no object", at, v)
	}
	for key, elem := range members {
		if s.key.kind == kindNumber {
			if _, err := strconv.ParseFloat(key, 64); err != nil {
				return fmt.Errorf("%s: key: %w", at, err)
			}
		}
		if s.key.kind == kindRef && s.key.def.typ.Kind() == reflect.String {
			if err := s.key.check(key, at+"."+key); err != nil {
				return err
			}
		}
		if err := s.elem.check(elem, at+"."+key); err != nil {
			return err
		}
	}
	return nil
}

func (s *shape) checkObject(v any, at string) error {
	members, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: %v is no object", at, v)
	}
	known := make(map[string]bool)
	for _, f := range s.fields {
		known[f.name] = true
		member, there := members[f.name]
		switch {
		case there:
			if err := f.shape.check(member, at+"."+f.name); err != nil {
				return err
			}
		case !f.optional:
			return fmt.Errorf("%s: member %q is missing", at, f.name)
		}
	}
	for name := range members {
		if !known[name] {
			return fmt.Errorf("%s: member %q is not in the type", at, name)
		}
	}
	return nil
}

func (s *shape) checkZero(v any, at string) error {
	if s.nullable && v != nil {
		return fmt.Errorf("%s can be null, but the zero value is %v", at, v)
	}
	for s.kind == kindRef {
		s = s.def.body
	}
	members, ok := v.(map[string]any)
	if s.kind != kindObject || !ok {
		return nil
	}
	for _, f := range s.fields {
		member, there := members[f.name]
		if f.omitZero && implements(f.typ, zeroer) {
			continue // its method decides
		}
		if there == f.optional {
			return fmt.Errorf("%s.%s: optional: %v, but it is there: %v", at, f.name, f.optional, there)
		}
		if there {
			if err := f.shape.checkZero(member, at+"."+f.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// GoType returns the type of Go that stands for t in a file of Go.
func GoType(t reflect.Type, opts ...Option) (string, error) {
	m, err := newModel(ws.Schema{Events: []ws.EventInfo{{Event: "e", Data: t}}}, opts)
	if err != nil {
		return "", err
	}
	g := &goFile{names: make(map[reflect.Type]string), imports: make(map[string]string)}
	for _, d := range m.definitions {
		g.names[d.typ] = d.name
	}
	return g.typ(t), nil
}
