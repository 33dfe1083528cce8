package schema

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/qi-realtime/ws"
)

// builder finds the shapes of types. Not safe for concurrent use.
type builder struct {
	settings    *settings
	definitions map[reflect.Type]*definition
	found       []*definition // in the order in which they were met
}

// newModel returns the model of s.
func newModel(s ws.Schema, opts []Option) (*model, error) {
	settings, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	b := &builder{settings: settings, definitions: make(map[reflect.Type]*definition)}
	m := &model{settings: settings, errors: s.Errors}
	for _, h := range s.Handlers {
		r := route{name: h.Event, doc: h.Doc, requestType: h.Request, responseType: h.Response}
		if h.Request == nil && h.Response == nil { // of Register: the handler may take and answer all
			r.request, r.response = &shape{}, &shape{}
		}
		if r.request, err = b.root(h.Request, r.request, true); err != nil {
			return nil, fmt.Errorf("schema: request of %q: %w", h.Event, err)
		}
		if r.response, err = b.root(h.Response, r.response, true); err != nil {
			return nil, fmt.Errorf("schema: response of %q: %w", h.Event, err)
		}
		m.routes = append(m.routes, r)
	}
	for _, e := range s.Events {
		data, err := b.root(e.Data, nil, false)
		if err != nil {
			return nil, fmt.Errorf("schema: event %q: %w", e.Event, err)
		}
		m.events = append(m.events, event{e.Event, data, e.Data})
	}
	if err := settings.source.err; err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	nameDefinitions(b.found)
	m.definitions = slices.SortedFunc(slices.Values(b.found), func(a, b *definition) int {
		return cmp.Compare(a.name, b.name)
	})
	return m, nil
}

// root returns the shape of the data of a message, or none if t is nil. addressable says
// whether the library encodes a pointer to it.
func (b *builder) root(t reflect.Type, none *shape, addressable bool) (*shape, error) {
	if t == nil {
		return none, nil
	}
	s, err := b.shapeOf(t, "")
	if err != nil {
		return nil, err
	}
	return s, checkReceivers(t, addressable, make(map[visit]bool))
}

// shapeOf returns the shape of t. where is its place in the sources: the key of the struct
// that an anonymous struct belongs to.
func (b *builder) shapeOf(t reflect.Type, where string) (*shape, error) {
	if text, ok := b.settings.declared[t]; ok {
		return b.define(t, func() (*shape, error) { return &shape{kind: kindDeclared, text: text}, nil })
	}
	if s, ok := standard[t]; ok {
		return s, nil
	}
	if t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface {
		switch method := customMethod(t); {
		case method != "":
			return nil, fmt.Errorf("%v has the method %s, so its JSON is unknown: declare it with schema.As[%v]", t, method, t)
		case isText(t):
			return b.define(t, func() (*shape, error) { return &shape{kind: kindString}, nil })
		}
	}
	if t.Kind() == reflect.Interface || t.PkgPath() == "" || t.Name() == "" {
		return b.plain(t, where)
	}
	s, err := b.define(t, func() (*shape, error) {
		if values := b.settings.source.constantsOf(t); len(values) > 0 {
			return &shape{kind: kindEnum, values: values}, nil
		}
		s, err := b.plain(t, typeKey(t))
		if err != nil {
			return nil, err
		}
		return s.or(false), nil
	})
	if err != nil {
		return nil, err
	}
	k := t.Kind()
	return s.or(k == reflect.Slice || k == reflect.Map || k == reflect.Pointer), nil
}

// define returns a reference to the definition of t, whose body is made at its first use. A
// type without a name has no definition.
func (b *builder) define(t reflect.Type, body func() (*shape, error)) (*shape, error) {
	if t.Name() == "" {
		return body()
	}
	d := b.definitions[t]
	if d == nil {
		d = &definition{typ: t, doc: b.settings.source.docOf(typeKey(t))}
		b.definitions[t] = d
		b.found = append(b.found, d)
		var err error
		if d.body, err = body(); err != nil {
			return nil, err
		}
		for at := d.body; at != nil && at.kind == kindRef; at = at.def.body {
			if at.def == d {
				return nil, fmt.Errorf("%v is a pointer to itself", t)
			}
		}
	}
	return &shape{kind: kindRef, def: d}, nil
}

// plain returns the shape of a type by its kind alone.
func (b *builder) plain(t reflect.Type, where string) (*shape, error) {
	switch k := t.Kind(); k {
	case reflect.Bool:
		return &shape{kind: kindBoolean}, nil
	case reflect.Int64, reflect.Uint64, reflect.Uintptr:
		return &shape{kind: kindNumber, integer: true, unsigned: k != reflect.Int64, format: formatWide}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32:
		return &shape{kind: kindNumber, integer: true}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return &shape{kind: kindNumber, integer: true, unsigned: true}, nil
	case reflect.Float32, reflect.Float64:
		return &shape{kind: kindNumber}, nil
	case reflect.String:
		return &shape{kind: kindString}, nil
	case reflect.Interface:
		if t.Implements(textMarshaler) && !t.Implements(jsonMarshaler) {
			return &shape{kind: kindString, nullable: true}, nil
		}
		return &shape{kind: kindUnknown}, nil
	case reflect.Struct:
		return b.object(t, where)
	case reflect.Pointer:
		s, err := b.shapeOf(t.Elem(), where)
		if err != nil {
			return nil, err
		}
		return s.or(true), nil
	case reflect.Slice, reflect.Array, reflect.Map:
		return b.container(t, where)
	default:
		return nil, fmt.Errorf("%v has no JSON", t)
	}
}

// maxTuple bounds the arrays that are written element by element.
const maxTuple = 8

func (b *builder) container(t reflect.Type, where string) (*shape, error) {
	if isBytes(t) {
		return &shape{kind: kindString, format: formatBase64, nullable: true}, nil
	}
	elem, err := b.shapeOf(t.Elem(), where)
	if err != nil {
		return nil, err
	}
	if t.Kind() == reflect.Slice {
		return &shape{kind: kindArray, elem: elem, nullable: true}, nil
	}
	if t.Kind() == reflect.Array {
		return &shape{kind: kindTuple, elem: elem, length: t.Len()}, nil
	}
	key, err := b.keyOf(t.Key())
	if err != nil {
		return nil, fmt.Errorf("%v: %w", t, err)
	}
	return &shape{kind: kindMap, key: key, elem: elem, nullable: true}, nil
}

// keyOf returns the shape of the keys of a map: encoding/json writes strings as they are, also if they
// have the method MarshalText.
func (b *builder) keyOf(t reflect.Type) (*shape, error) {
	isString := t.Kind() == reflect.String
	if !isString && t.Implements(textMarshaler) {
		return &shape{kind: kindString}, nil
	}
	if !isString && (t.Kind() < reflect.Int || t.Kind() > reflect.Uintptr) {
		return nil, errors.New("JSON has no keys of this type")
	}
	if t.PkgPath() != "" && len(b.settings.source.constantsOf(t)) > 0 && customMethod(t) == "" && !isText(t) {
		if s, err := b.shapeOf(t, ""); err == nil && s.kind == kindRef && s.def.body.kind == kindEnum {
			return s, nil
		}
	}
	if isString {
		return &shape{kind: kindString}, nil
	}
	key := &shape{kind: kindNumber, integer: true}
	if t.Bits() == 64 {
		key.format = formatWide
	}
	return key, nil
}

func (b *builder) object(t reflect.Type, where string) (*shape, error) {
	s := &shape{kind: kindObject}
	for _, jf := range fieldsOf(t) {
		f, err := b.field(jf, t, where)
		if err != nil {
			return nil, fmt.Errorf("field %s of %v: %w", jf.goName, jf.owner, err)
		}
		s.fields = append(s.fields, f)
	}
	return s, nil
}

func (b *builder) field(jf jsonField, t reflect.Type, where string) (f field, err error) {
	if jf.owner != t || where == "" {
		where = typeKey(jf.owner)
	}
	where += "." + jf.goName
	f = field{jsonField: jf, optional: jf.isOptional(), doc: b.settings.source.docOf(where)}
	target, isPointer := jf.typ, false
	if jf.typ.Name() == "" && jf.typ.Kind() == reflect.Pointer {
		target, isPointer = jf.typ.Elem(), true
	}
	if jf.quoted && b.settings.declared[target] == "" {
		f.shape = &shape{kind: kindString, nullable: isPointer}
		if jf.omitsNil() {
			f.shape.nullable = false
		}
		return f, nil
	}
	if f.shape, err = b.shapeOf(jf.typ, where); err != nil || !jf.omitsNil() {
		return f, err
	}
	if !isPointer {
		f.shape = f.shape.or(false)
		return f, nil
	}
	f.shape, err = b.shapeOf(target, where) // null only if the element can be
	return f, err
}
