package schema

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// jsonField is a field of a struct as encoding/json sees it.
type jsonField struct {
	name    string // of the member of the JSON object
	goName  string
	typ     reflect.Type
	owner   reflect.Type // the struct that declares it: an embedded one, perhaps
	index   []int
	tagged  bool
	pointer bool // it is embedded by a pointer, and missing if that is nil

	omitEmpty, omitZero, quoted bool // the options of the tag
}

// embedded is a struct whose fields are those of the struct that embeds it.
type embedded struct {
	typ     reflect.Type
	index   []int
	pointer bool
}

// fieldsOf returns the fields of the JSON of the struct t, in order. It follows the rules of
// encoding/json: fields of embedded structs are those of t; for each name the least deep field
// wins, then the one with a tag; if several are left, none wins.
func fieldsOf(t reflect.Type) []jsonField {
	var found []jsonField
	visited := make(map[reflect.Type]bool)
	level := []embedded{{typ: t}}
	counts := map[reflect.Type]int{t: 1}
	for len(level) > 0 {
		var next []embedded
		nextCounts := make(map[reflect.Type]int)
		for _, e := range level {
			if visited[e.typ] {
				continue
			}
			visited[e.typ] = true
			for i := range e.typ.NumField() {
				f, inner, ok := readField(e, i)
				switch {
				case !ok:
				case inner != nil:
					if nextCounts[inner.typ]++; nextCounts[inner.typ] == 1 {
						next = append(next, *inner)
					}
				default:
					found = append(found, f)
					if counts[e.typ] > 1 { // the struct is embedded twice: its fields exclude each other
						found = append(found, f)
					}
				}
			}
		}
		level, counts = next, nextCounts
	}
	return dominant(found)
}

// readField returns the field i of e, or the struct that is embedded there. It reports false
// for a field that JSON leaves out.
func readField(e embedded, i int) (f jsonField, inner *embedded, ok bool) {
	sf := e.typ.Field(i)
	target := sf.Type
	if target.Name() == "" && target.Kind() == reflect.Pointer {
		target = target.Elem()
	}
	if !sf.IsExported() && (!sf.Anonymous || target.Kind() != reflect.Struct) {
		return f, nil, false
	}
	tag := sf.Tag.Get("json")
	if tag == "-" {
		return f, nil, false
	}
	name, options, _ := strings.Cut(tag, ",")
	if !isValidName(name) {
		name = ""
	}
	index := append(slices.Clone(e.index), i)
	if name == "" && sf.Anonymous && target.Kind() == reflect.Struct {
		return f, &embedded{target, index, e.pointer || sf.Type.Kind() == reflect.Pointer}, true
	}
	has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
	f = jsonField{
		name: cmp.Or(name, sf.Name), goName: sf.Name, typ: sf.Type, owner: e.typ, index: index,
		tagged: name != "", pointer: e.pointer,
		omitEmpty: has("omitempty"), omitZero: has("omitzero"),
		quoted: has("string") && isScalar(target.Kind()) && choose(target, true) == byKind,
	}
	return f, nil, true
}

// dominant returns the field that wins for each name, in the order of the struct.
func dominant(found []jsonField) []jsonField {
	byName := make(map[string][]jsonField)
	for _, f := range found {
		byName[f.name] = append(byName[f.name], f)
	}
	var fields []jsonField
	for _, rivals := range byName {
		slices.SortStableFunc(rivals, func(a, b jsonField) int {
			return cmp.Or(cmp.Compare(len(a.index), len(b.index)), cmp.Compare(number(b.tagged), number(a.tagged)))
		})
		if len(rivals) > 1 && len(rivals[0].index) == len(rivals[1].index) && rivals[0].tagged == rivals[1].tagged {
			continue
		}
		fields = append(fields, rivals[0])
	}
	slices.SortFunc(fields, func(a, b jsonField) int { return slices.Compare(a.index, b.index) })
	return fields
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// isValidName reports whether encoding/json takes name from a tag.
func isValidName(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != ""
}

// isScalar reports whether the option ",string" has an effect on values of kind k.
func isScalar(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Float64 || k == reflect.String
}

// zeroer is implemented by types that decide on the option omitzero by themselves.
var zeroer = reflect.TypeFor[interface{ IsZero() bool }]()

// isOptional reports whether the field can be missing.
func (f *jsonField) isOptional() bool {
	if f.omitZero || f.pointer {
		return true
	}
	if !f.omitEmpty {
		return false
	}
	switch k := f.typ.Kind(); k {
	case reflect.Array:
		return f.typ.Len() == 0
	case reflect.Map, reflect.Slice, reflect.Interface, reflect.Pointer:
		return true
	default:
		return isScalar(k)
	}
}

// omitsNil reports whether the field is missing, and not null, if its value is nil.
func (f *jsonField) omitsNil() bool {
	switch f.typ.Kind() {
	case reflect.Pointer:
		return f.omitEmpty || f.omitZero
	case reflect.Map, reflect.Slice:
		decides := f.typ.Implements(zeroer) || reflect.PointerTo(f.typ).Implements(zeroer)
		return f.omitEmpty || f.omitZero && !decides
	default:
		return false
	}
}
