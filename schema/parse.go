package schema

import (
	"cmp"
	"encoding/json"
	"errors"
	"go/ast"
	"go/build"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// readFolder reads the comments and constants of the package pkgPath from the files of dir. A
// folder that does not exist has none.
func (s *source) readFolder(pkgPath, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	positions, mode := token.NewFileSet(), parser.ParseComments|parser.SkipObjectResolution
	var files []*ast.File
	for _, entry := range entries {
		name := entry.Name()
		if matches, err := build.Default.MatchFile(dir, name); err != nil || !matches || !strings.HasSuffix(name, ".go") {
			continue
		}
		file, err := parser.ParseFile(positions, filepath.Join(dir, name), nil, mode)
		if err != nil {
			s.err = cmp.Or(s.err, err)
			continue
		}
		// A folder has up to two packages: one of tests, whose path and name end in _test.
		if strings.HasSuffix(file.Name.Name, "_test") == strings.HasSuffix(pkgPath, "_test") {
			files = append(files, file)
		}
	}
	comments := make(map[string]string) // of constants
	for _, file := range files {
		for _, decl := range file.Decls {
			if decl, ok := decl.(*ast.GenDecl); ok {
				s.readDeclaration(pkgPath, decl, comments)
			}
		}
	}
	s.readConstants(pkgPath, positions, files, comments)
}

// readDeclaration keeps the comments of types, and puts those of constants into constants.
func (s *source) readDeclaration(pkgPath string, decl *ast.GenDecl, constants map[string]string) {
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			key := pkgPath + keySeparator + spec.Name.Name
			s.docs[key] = comment(spec.Doc, spec.Comment)
			if s.docs[key] == "" && !decl.Lparen.IsValid() {
				s.docs[key] = comment(decl.Doc)
			}
			s.readFields(key, spec.Type)
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				constants[name.Name] = comment(spec.Doc, spec.Comment)
			}
		}
	}
}

// readFields keeps the comments of the fields in the structs of a type, under key.
func (s *source) readFields(key string, expr ast.Expr) {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		s.readFields(key, expr.X)
	case *ast.ArrayType:
		s.readFields(key, expr.Elt)
	case *ast.MapType:
		s.readFields(key, expr.Value)
	case *ast.ParenExpr:
		s.readFields(key, expr.X)
	case *ast.StructType:
		for _, f := range expr.Fields.List {
			for _, name := range f.Names {
				s.docs[key+"."+name.Name] = comment(f.Doc, f.Comment)
				s.readFields(key+"."+name.Name, f.Type)
			}
		}
	}
}

// comment returns the text of the first of groups that has one.
func comment(groups ...*ast.CommentGroup) string {
	for _, g := range groups {
		if text := strings.TrimSpace(g.Text()); text != "" {
			return text
		}
	}
	return ""
}

// errNoImport is the answer to all imports: the constants of a package hardly depend on others.
var errNoImport = errors.New("not imported")

// noImporter imports nothing. Immutable.
type noImporter struct{}

func (noImporter) Import(string) (*types.Package, error) { return nil, errNoImport }

// readConstants keeps the constants of named types. The packages that files import are not
// loaded, so go/types reports errors, which have no effect on the other constants.
func (s *source) readConstants(
	pkgPath string, positions *token.FileSet, files []*ast.File, comments map[string]string,
) {
	config := types.Config{Importer: noImporter{}, Error: func(error) {}, IgnoreFuncBodies: true, FakeImportC: true}
	pkg, _ := config.Check(pkgPath, positions, files, nil) // it has errors, see above
	if pkg == nil {
		return
	}
	var constants []*types.Const
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok {
			constants = append(constants, c)
		}
	}
	slices.SortFunc(constants, func(a, b *types.Const) int { return cmp.Compare(a.Pos(), b.Pos()) })
	for _, c := range constants {
		named, ok := c.Type().(*types.Named)
		text, exact := literalOf(c.Val())
		if !ok || named.Obj().Pkg() != pkg || text == "" {
			continue
		}
		key := pkgPath + keySeparator + named.Obj().Name()
		same := func(l literal) bool { return l.json == text }
		if exact && !slices.ContainsFunc(s.values[key], same) {
			s.values[key] = append(s.values[key], literal{c.Name(), comments[c.Name()], text})
		}
	}
	for key, values := range s.values {
		if len(values) == 1 { // a default or a bound, not a list of all values
			delete(s.values, key)
		}
	}
}

// literalOf returns the JSON of a constant. It reports false for a number that JavaScript
// cannot represent.
func literalOf(v constant.Value) (text string, exact bool) {
	switch v.Kind() {
	case constant.String:
		data, err := json.Marshal(constant.StringVal(v))
		return string(data), err == nil
	case constant.Int:
		n, exact := constant.Int64Val(v)
		return v.ExactString(), exact && n <= 1<<53 && n >= -(1<<53)
	case constant.Float:
		f, _ := constant.Float64Val(v)
		data, err := json.Marshal(f)
		return string(data), err == nil
	default:
		return "", false
	}
}
