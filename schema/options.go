package schema

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Option changes the output of TypeScript, AsyncAPI, Go and Golden.
type Option func(*settings)

// settings holds the options of one output.
type settings struct {
	source    source
	declared  map[reflect.Type]string // by As
	title     string
	version   string
	goPackage string
	err       error // of an option
}

func newSettings(opts []Option) (*settings, error) {
	s := &settings{declared: make(map[reflect.Type]string), title: "WebSocket API", version: "1.0.0", goPackage: "api"}
	for _, opt := range opts {
		opt(s)
	}
	return s, s.err
}

// fail keeps the first error of an option.
func (s *settings) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// WithSource reads doc comments and constants from the sources of the module that dir belongs
// to: types, fields and constants get their comments, and a type with constants becomes the union
// of their values. The constants of a type must be declared in its own package. Types
// of other modules, and those declared in functions, have no comments. It may be given several
// times, for several modules.
//
// Types with constants whose values are combined, such as flags, must be declared with As.
func WithSource(dir string) Option {
	return func(s *settings) {
		if err := s.source.add(dir); err != nil {
			s.fail(fmt.Errorf("schema: WithSource(%q): %w", dir, err))
		}
	}
}

// As declares the JSON of T as a type of TypeScript, such as "string" or "[number, number]". It
// is necessary for types with a MarshalJSON or UnmarshalJSON of their own, and takes precedence
// over all else for other types. In AsyncAPI, a text other than "string", "number" and "boolean"
// permits any value.
func As[T any](typescript string) Option {
	return func(s *settings) {
		t := reflect.TypeFor[T]()
		if text := strings.TrimSpace(typescript); text == "" || strings.ContainsAny(text, "\n\r") {
			s.fail(fmt.Errorf("schema: As[%v](%q): it must be one line of TypeScript", t, typescript))
		}
		s.declared[t] = strings.TrimSpace(typescript)
	}
}

// Title sets the title and version of an AsyncAPI document. The default is "WebSocket API",
// "1.0.0".
func Title(title, version string) Option {
	return func(s *settings) { s.title, s.version = title, version }
}

// Package sets the name of the package that Go writes. The default is "api".
func Package(name string) Option {
	return func(s *settings) {
		if !isIdentifier(name) {
			s.fail(errors.New("schema: Package: not a name of a Go package: " + name))
		}
		s.goPackage = name
	}
}
