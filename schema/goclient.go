package schema

import (
	"bytes"
	"fmt"
	"go/format"
	"io"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws"
)

// Go writes a file of Go for clients to w: constants with the names of requests and events
// and the codes of errors, and copies of the types, so that a client need not import the
// server's packages. The fields of embedded structs are fields of the struct itself. The values
// of a type with a MarshalJSON or MarshalText keep their type if its package can be imported,
// and are a json.RawMessage or string if not. The package of the file is named by Package. It
// returns the same errors as TypeScript.
func Go(w io.Writer, s ws.Schema, opts ...Option) error {
	m, err := newModel(s, opts)
	if err != nil {
		return err
	}
	g := &goFile{
		names: make(map[reflect.Type]string), imports: make(map[string]string), taken: make(map[string]bool),
	}
	for _, d := range m.definitions {
		g.names[d.typ] = unique(d.name, g.taken)
	}
	g.constants(m)
	for _, u := range g.unnamed {
		g.printf("\n// %s is the data of a message.\ntype %s %s\n", u.name, u.name, g.underlying(u.typ))
	}
	for _, d := range m.definitions {
		g.definition(d)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s\npackage %s\n", generatedBy, m.settings.goPackage)
	for _, imported := range slices.Sorted(maps.Keys(g.imports)) {
		name := g.imports[imported]
		if name == path.Base(imported) {
			name = ""
		}
		fmt.Fprintf(&head, "import %s %q\n", name, imported)
	}
	text, err := format.Source(append(head.Bytes(), g.Bytes()...))
	if err != nil {
		return fmt.Errorf("schema: format: %w", err)
	}
	_, err = w.Write(text)
	return err
}

// goFile is a printer. Not safe for concurrent use.
type goFile struct {
	bytes.Buffer
	names   map[reflect.Type]string // of copied types
	imports map[string]string       // names by path
	taken   map[string]bool         // names of the file
	unnamed []unnamed
}

// unnamed is a type that gets a name in the file only. Immutable.
type unnamed struct {
	name string
	typ  reflect.Type
}

func (g *goFile) printf(format string, args ...any) { fmt.Fprintf(&g.Buffer, format, args...) }

// comment prints the paragraphs as a comment.
func (g *goFile) comment(paragraphs ...string) {
	if text := strings.TrimSpace(strings.Join(paragraphs, "\n")); text != "" {
		g.printf("// %s\n", strings.ReplaceAll(text, "\n", "\n// "))
	}
}

// constants prints the names of requests and events and the codes of errors.
func (g *goFile) constants(m *model) {
	group := func(title string, n int, members func()) {
		if n > 0 {
			g.printf("\n// %s\nconst (\n", title)
			members()
			g.printf(")\n")
		}
	}
	group("The requests that the server answers.", len(m.routes), func() {
		for _, r := range m.routes {
			name := unique("Request"+words(r.name), g.taken)
			g.comment(r.doc, fmt.Sprintf("Request: %s; response: %s.",
				g.dataOf(r.request, r.requestType, name+"Data"), g.dataOf(r.response, r.responseType, name+"Response")))
			g.printf("%s = %q\n", name, r.name)
		}
	})
	group("The events that the server sends.", len(m.events), func() {
		for _, e := range m.events {
			name := unique("Event"+words(e.name), g.taken)
			g.comment(fmt.Sprintf("Data: %s.", g.dataOf(e.data, e.typ, name+"Data")))
			g.printf("%s = %q\n", name, e.name)
		}
	})
	group("The codes of the application's errors.", len(m.errors), func() {
		for _, e := range m.errors {
			g.printf("%s = %d\n", unique("Error"+words(e.Name), g.taken), e.Code)
		}
	})
}

// dataOf returns the type of the data of a message, for a comment. A composite type without
// a name becomes a type of the file, of the given name.
func (g *goFile) dataOf(s *shape, t reflect.Type, name string) string {
	switch {
	case s == nil:
		return "none"
	case t == nil:
		return "any"
	case t.Name() != "":
		return g.typ(t)
	}
	name = unique(name, g.taken)
	g.unnamed = append(g.unnamed, unnamed{name, t})
	return name
}

func (g *goFile) definition(d *definition) {
	g.printf("\n")
	g.comment(d.doc)
	name := g.names[d.typ]
	if imported := g.imported(d.typ); imported != "" {
		g.printf("type %s = %s\n", name, imported)
		return
	}
	switch d.body.kind {
	case kindDeclared:
		g.printf("type %s = %s\n", name, g.from("encoding/json", "RawMessage"))
	case kindString:
		g.printf("type %s string\n", name)
	case kindEnum:
		g.printf("type %s %s\n\n// The values of %s.\nconst (\n", name, d.typ.Kind(), name)
		for _, v := range d.body.values {
			g.comment(v.doc)
			g.printf("%s %s = %s\n", unique(words(v.name), g.taken), name, v.json)
		}
		g.printf(")\n")
	default:
		g.printf("type %s %s\n", name, g.underlying(d.typ))
	}
}

// from returns the name of another package, and imports that.
func (g *goFile) from(pkgPath, name string) string {
	if g.imports[pkgPath] == "" {
		base := strings.ToLower(packageName(pkgPath))
		taken := make(map[string]bool)
		for _, other := range g.imports {
			taken[other] = true
		}
		g.imports[pkgPath] = unique(base, taken)
	}
	return g.imports[pkgPath] + "." + name
}

// imported returns the name of a type that is better imported than copied, because it has
// methods for JSON, or "".
func (g *goFile) imported(t reflect.Type) string {
	if _, ok := standard[t]; !ok && customMethod(t) == "" && !isText(t) {
		return ""
	}
	for elem := range strings.SplitSeq(t.PkgPath(), "/") {
		if elem == "internal" || elem == "main" || strings.HasSuffix(elem, "_test") {
			return ""
		}
	}
	if t.PkgPath() == "" || strings.ContainsAny(t.Name(), "[·") || words(t.Name()) != t.Name() {
		return ""
	}
	return g.from(t.PkgPath(), t.Name())
}

// typ returns the Go type of the file for t.
func (g *goFile) typ(t reflect.Type) string {
	if name, ok := g.names[t]; ok {
		return name
	}
	if _, ok := standard[t]; ok {
		return g.imported(t)
	}
	if t.Kind() == reflect.Interface {
		return "any"
	}
	if t.PkgPath() == "" && t.Name() != "" { // int, string
		return t.Name()
	}
	return g.underlying(t)
}

// underlying returns the type of the file for t without its name.
func (g *goFile) underlying(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + g.typ(t.Elem())
	case reflect.Slice:
		return "[]" + g.typ(t.Elem())
	case reflect.Array:
		return "[" + strconv.Itoa(t.Len()) + "]" + g.typ(t.Elem())
	case reflect.Map:
		return "map[" + g.keyOf(t.Key()) + "]" + g.typ(t.Elem())
	case reflect.Struct:
		return g.structOf(t)
	default:
		return t.Kind().String()
	}
}

// keyOf returns the type of the keys of a map. The definition of a key type may be missing.
func (g *goFile) keyOf(t reflect.Type) string {
	if name, ok := g.names[t]; ok {
		return name
	}
	if imported := g.imported(t); imported != "" {
		return imported
	}
	if t.Kind() != reflect.String && t.Implements(textMarshaler) {
		return "string"
	}
	return t.Kind().String()
}

func (g *goFile) structOf(t reflect.Type) string {
	var b strings.Builder
	b.WriteString("struct {\n")
	taken := make(map[string]bool)
	for _, f := range fieldsOf(t) {
		tag, typ := f.name, g.typ(f.typ)
		missing := f.pointer && !f.omitEmpty && !f.omitZero // or there, with any value
		if missing {
			typ = "*" + typ
		}
		if f.omitEmpty || missing {
			tag += ",omitempty"
		}
		if f.omitZero {
			tag += ",omitzero"
		}
		if f.quoted {
			tag += ",string"
		}
		if tag == "-" {
			tag += ","
		}
		fmt.Fprintf(&b, "%s %s %s\n", unique(words(f.goName), taken), typ, quoteTag("json:"+strconv.Quote(tag)))
	}
	return b.String() + "}"
}

// quoteTag returns a tag as a literal.
func quoteTag(tag string) string {
	if strconv.CanBackquote(tag) {
		return "`" + tag + "`"
	}
	return strconv.Quote(tag)
}
