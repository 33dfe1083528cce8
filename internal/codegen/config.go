package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// engineOnly are the settings of the engine that Config does not have.
var engineOnly = []string{"MaxDescriptors", "Now", "NoReadiness", "Retirement"}

// parameters are the names of parameters by their types.
var parameters = map[string]string{"int": "n", "int64": "n", "time.Duration": "d", "bool": "on", "float64": "share"}

// copySettings returns the code of Config.engine. A field of the engine has the name of a field of Config, or
// the name of a nested field without the dot.
func copySettings(root structs, inner []field) (string, error) {
	paths := make(map[string]string)
	for _, f := range root["Config"] {
		paths[f.name] = f.name
		for _, nested := range root[f.kind] {
			paths[f.name+nested.name] = f.name + "." + nested.name
		}
	}
	var c code
	c.line("package ws\n\nimport \"github.com/qi-realtime/ws/engine\"\n")
	c.line("// engine returns the part of the configuration that the engine needs.")
	c.line("func (c *Config) engine() engine.Config {\n\treturn engine.Config{")
	for _, f := range inner {
		path, ok := paths[f.name]
		switch pointer := strings.TrimPrefix(f.kind, "*"); {
		case slices.Contains(engineOnly, f.name):
		case !ok:
			return "", fmt.Errorf("engine.Config.%s: Config has no field of this name", f.name)
		case !ast.IsExported(pointer): // a type that both packages name alike
			c.line("%s: c.%s,", f.name, path)
		case pointer != f.kind:
			c.line("%s: c.%s.engine(),", f.name, path)
		default:
			c.line("%s: engine.%s(c.%s),", f.name, f.kind, path)
		}
	}
	c.line("}\n}")
	return c.String(), nil
}

// plainOptions returns the code of the options that set one field and have no words of their own: their
// comments are those of the fields. written is the text of options.go.
func plainOptions(fields []field, written string) string {
	plain := slices.DeleteFunc(slices.Clone(fields), func(f field) bool { return sets(written, f.name) })
	var c code
	c.line("package ws\n\nimport (")
	for _, path := range []string{"crypto/tls", "io/fs", "log/slog", "net/http", "runtime/trace", "time"} {
		name := path[strings.LastIndex(path, "/")+1:]
		if slices.ContainsFunc(plain, func(f field) bool { return strings.Contains(f.kind, name+".") }) {
			c.line("%q", path)
		}
	}
	c.line(")")
	for _, f := range plain {
		c.line("\n// With%[1]s sets Config.%[1]s.\n//", f.name)
		for line := range strings.Lines(f.doc) {
			c.line("// %s", strings.TrimSuffix(line, "\n"))
		}
		c.line("func With%[1]s(%[3]s %[2]s) Option {\n\treturn func(c *Config) { c.%[1]s = %[3]s }\n}",
			f.name, f.kind, cmp.Or(parameters[f.kind], "v"))
	}
	return c.String()
}

// sets reports whether the text of options.go sets the field.
func sets(written, field string) bool {
	return regexp.MustCompile(`\bc\.` + field + `\b[^=\n]* = `).MatchString(written)
}
