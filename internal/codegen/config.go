// Command configgen derives code from the fields of the two Config structs: Config.engine, which copies the
// settings of the engine, and the With function of each field that options.go does not set. Run it with
// `go generate` in the root.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
)

// engineOnly are the settings of the engine that Config does not have.
var engineOnly = []string{"MaxDescriptors", "Now", "NoReadiness"}

// parameters are the names of parameters by their types.
var parameters = map[string]string{"int": "n", "int64": "n", "time.Duration": "d", "bool": "on", "float64": "share"}

// field is one field of a struct.
type field struct {
	name, kind string
}

func main() {
	if err := run("config_engine.go", "options_plain.go"); err != nil {
		fmt.Fprintln(os.Stderr, "configgen:", err)
		os.Exit(1)
	}
}

// run writes Config.engine to the file named engine, and the With functions to the one named options.
func run(engine, options string) error {
	root, err := structs("config.go", "compression.go")
	if err != nil {
		return err
	}
	inner, err := structs("engine/config.go")
	if err != nil {
		return err
	}
	copies, err := copySettings(root, inner["Config"])
	if err != nil {
		return err
	}
	written, err := os.ReadFile("options.go")
	if err != nil {
		return err
	}
	if err := write(engine, copies); err != nil {
		return err
	}
	return write(options, plainOptions(root["Config"], string(written)))
}

func write(name, code string) error {
	text, err := format.Source([]byte("// Code generated from the fields of Config by configgen; DO NOT EDIT.\n\n" + code))
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, code)
	}
	return os.WriteFile(name, text, 0o644)
}

// structs returns the fields of the structs in files, by the name of the struct.
func structs(files ...string) (map[string][]field, error) {
	found := make(map[string][]field)
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					for _, name := range f.Names {
						kind := string(source[f.Type.Pos()-1 : f.Type.End()-1])
						found[spec.Name.Name] = append(found[spec.Name.Name], field{name.Name, kind})
					}
				}
			}
			return false
		})
	}
	return found, nil
}

// copySettings returns the code of Config.engine. A field of the engine has the name of a field of Config, or
// the name of a nested field without the dot.
func copySettings(root map[string][]field, inner []field) (string, error) {
	paths := make(map[string]string)
	for _, f := range root["Config"] {
		paths[f.name] = f.name
		for _, nested := range root[f.kind] {
			paths[f.name+nested.name] = f.name + "." + nested.name
		}
	}
	var c bytes.Buffer
	c.WriteString("package ws\n\nimport \"github.com/qi-realtime/ws/engine\"\n\n" +
		"// engine returns the part of the configuration that the engine needs.\n" +
		"func (c *Config) engine() engine.Config {\n\treturn engine.Config{\n")
	for _, f := range inner {
		path, ok := paths[f.name]
		switch pointer := strings.TrimPrefix(f.kind, "*"); {
		case slices.Contains(engineOnly, f.name):
		case !ok:
			return "", fmt.Errorf("engine.Config.%s: Config has no field of this name", f.name)
		case !ast.IsExported(pointer): // a type that both packages name alike
			fmt.Fprintf(&c, "%s: c.%s,\n", f.name, path)
		case pointer != f.kind:
			fmt.Fprintf(&c, "%s: c.%s.engine(),\n", f.name, path)
		default:
			fmt.Fprintf(&c, "%s: engine.%s(c.%s),\n", f.name, f.kind, path)
		}
	}
	c.WriteString("}\n}\n")
	return c.String(), nil
}

// plainOptions returns the code of the options that set one field and need no more words. written is the text
// of options.go.
func plainOptions(fields []field, written string) string {
	var c, imports bytes.Buffer
	for _, path := range []string{"crypto/tls", "io/fs", "log/slog", "net/http", "time"} {
		name := path[strings.LastIndex(path, "/")+1:]
		for _, f := range fields {
			if strings.Contains(f.kind, name+".") && !sets(written, f.name) {
				fmt.Fprintf(&imports, "%q\n", path)
				break
			}
		}
	}
	fmt.Fprintf(&c, "package ws\n\nimport (\n%s)\n\n", &imports)
	for _, f := range fields {
		if !sets(written, f.name) {
			fmt.Fprintf(&c, "// With%[1]s sets Config.%[1]s.\nfunc With%[1]s(%[3]s %[2]s) Option {\n"+
				"return func(c *Config) { c.%[1]s = %[3]s }\n}\n\n", f.name, f.kind, cmp.Or(parameters[f.kind], "v"))
		}
	}
	return c.String()
}

// sets reports whether the text of options.go sets the field.
func sets(written, field string) bool {
	return regexp.MustCompile(`\bc\.` + field + `\b[^=\n]* = `).MatchString(written)
}
