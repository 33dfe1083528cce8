package schema

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// source reads the sources of modules, package by package, when a type asks for them. Not
// safe for concurrent use.
type source struct {
	modules  []module
	packages map[string]bool // that were read, or looked for
	docs     map[string]string
	values   map[string][]literal
	err      error // of a file that does not parse
}

// module is a module whose sources are there. Immutable.
type module struct {
	path string
	root string // its folder
	dir  string // the folder that WithSource named
}

// literal is a constant of a named type. Immutable.
type literal struct {
	name, doc string
	json      string
}

// add adds the module that dir belongs to.
func (s *source) add(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for root := dir; ; root = filepath.Dir(root) {
		text, err := os.ReadFile(filepath.Join(root, "go.mod"))
		if err == nil {
			path := modulePath(string(text))
			if path == "" {
				return errors.New("go.mod names no module")
			}
			s.modules = append(s.modules, module{path, root, dir})
			return nil
		}
		if root == filepath.Dir(root) {
			return errors.New("no go.mod in it or above it")
		}
	}
}

func modulePath(text string) string {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == "module" {
			if path, err := strconv.Unquote(words[1]); err == nil {
				return path
			}
			return words[1]
		}
	}
	return ""
}

// keySeparator stands between the path of a package and the name of a type in a key.
const keySeparator = "#"

// typeKey returns the key of the comment of t: path and name, without the arguments of a generic
// type.
func typeKey(t reflect.Type) string {
	if t.Name() == "" {
		return ""
	}
	name, _, _ := strings.Cut(t.Name(), "[")
	return t.PkgPath() + keySeparator + name
}

// docOf returns the comment of the type or field of that key, or "".
func (s *source) docOf(key string) string {
	if len(s.modules) == 0 || key == "" {
		return ""
	}
	pkgPath, _, _ := strings.Cut(key, keySeparator)
	s.read(pkgPath)
	return s.docs[key]
}

// constantsOf returns the constants of t with different values, in the order of the sources,
// or none if t is better described by its kind.
func (s *source) constantsOf(t reflect.Type) []literal {
	if len(s.modules) == 0 || !isScalar(t.Kind()) || t.Kind() == reflect.Bool {
		return nil
	}
	s.read(t.PkgPath())
	return s.values[typeKey(t)]
}

// read reads the package of that path, unless it was read before.
func (s *source) read(pkgPath string) {
	if s.packages[pkgPath] || pkgPath == "" {
		return
	}
	if s.packages == nil {
		s.packages, s.docs, s.values = make(map[string]bool), make(map[string]string), make(map[string][]literal)
	}
	s.packages[pkgPath] = true
	for _, m := range s.modules {
		for _, dir := range m.folders(pkgPath) {
			s.readFolder(pkgPath, dir)
		}
	}
}

// folders returns the folders in which the package of that path can be.
func (m *module) folders(pkgPath string) []string {
	if pkgPath == "main" { // of a program: its path is not known
		return []string{m.dir}
	}
	var dirs []string
	for _, path := range []string{pkgPath, strings.TrimSuffix(pkgPath, "_test")} {
		below, ok := strings.CutPrefix(path, m.path)
		if ok && (below == "" || below[0] == '/') && (len(dirs) == 0 || path != pkgPath) {
			dirs = append(dirs, filepath.Join(m.root, filepath.FromSlash(below)))
		}
	}
	return dirs
}
