package ws_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// logEntry is a message of the log: its levels and its attributes, sorted.
type logEntry struct{ levels, attrs []string }

// merge adds another call with the same message.
func (e logEntry) merge(levels, attrs []string) logEntry {
	return logEntry{sortedUnique(append(e.levels, levels...)), sortedUnique(append(e.attrs, attrs...))}
}

func sortedUnique(list []string) []string { slices.Sort(list); return slices.Compact(list) }

// logFolders are the folders whose code logs.
var logFolders = []string{".", "engine", "codec", "pool", "room", "router", "inspect", "internal/loglimit"}

// TestLogsAreDocumented asserts that docs/logs.md has a row for each call of the code that logs,
// with its level and attributes, and no other row.
func TestLogsAreDocumented(t *testing.T) {
	found := make(map[string]logEntry)
	for _, folder := range logFolders {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				findLogCalls(t, file, found)
			}
		}
	}
	require.Greater(t, len(found), 20)
	rows := logTable(t)
	for message, entry := range found {
		row, ok := rows[message]
		assert.True(t, ok, "docs/logs.md has no row for %q", message)
		assert.Equal(t, entry, row, "the row of %q in docs/logs.md", message)
	}
	for message := range rows {
		_, ok := found[message]
		assert.True(t, ok, "docs/logs.md has a row for %q, which nothing logs", message)
	}
}

var logRow = regexp.MustCompile("(?m)^\\| `((?:ws|gnet): [^`]+)` \\| ([A-Za-z, ]+) \\|([^|]*)\\|")

// logTable returns the table of docs/logs.md.
func logTable(t *testing.T) map[string]logEntry {
	text, err := os.ReadFile("docs/logs.md")
	require.NoError(t, err)
	rows := make(map[string]logEntry)
	for _, row := range logRow.FindAllStringSubmatch(string(text), -1) {
		var attrs []string
		for _, name := range strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' || r == ' ' }) {
			attrs = append(attrs, strings.Trim(name, "`"))
		}
		rows[row[1]] = logEntry{}.merge(strings.Split(row[2], ", "), attrs)
	}
	return rows
}

// findLogCalls adds the log calls of a file.
func findLogCalls(t *testing.T, path string, found map[string]logEntry) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || slices.Contains(logHelpers, fn.Name.Name) {
			continue
		}
		var calls []logCall
		ast.Inspect(fn, func(n ast.Node) bool {
			if call, ok := asLogCall(n); ok {
				calls = append(calls, call)
			}
			return true
		})
		for _, call := range calls {
			message, ok := literal(call.message)
			assert.True(t, ok, "%s: the message of a log call is no literal", fset.Position(call.Pos()))
			attrs := append(attrsIn(call.CallExpr), call.attrs...)
			if call.Ellipsis.IsValid() {
				attrs = append(attrs, attrsIn(fn, calls...)...)
			}
			found[message] = found[message].merge(call.levels(fn), attrs)
		}
	}
}

// logHelpers are functions that pass a record on.
var logHelpers = []string{"log", "logLocked", "unlock", "flush"}

// logCall is a call that logs.
type logCall struct {
	*ast.CallExpr
	level   string   // by the name of the method, or ""
	byArg   ast.Expr // the level, if level is ""
	message ast.Expr
	attrs   []string // that the method adds
}

var logger = regexp.MustCompile(`(?i)(logger|\bg)$`)

func asLogCall(n ast.Node) (c logCall, ok bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return c, false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !logger.MatchString(lastName(method.X)) {
		return c, false
	}
	switch name := method.Sel.Name; name {
	case "Debug", "Info", "Warn", "Error":
		return logCall{call, name, nil, call.Args[0], nil}, true
	case "Log", "LogAttrs":
		return logCall{call, "", call.Args[1], call.Args[2], nil}, true
	case "logLocked":
		return logCall{call, "", call.Args[0], call.Args[1], nil}, true
	case "log": // gnet's
		return logCall{call, "", call.Args[0], call.Args[1], []string{"text"}}, true
	}
	return c, false
}

// lastName returns the last name of an expression such as s.eng.cfg.Logger.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// levels returns the level of the call, or all levels that the function names if a variable has it.
func (c *logCall) levels(fn *ast.FuncDecl) (levels []string) {
	if c.level != "" {
		return []string{c.level}
	}
	if name, ok := strings.CutPrefix(lastName(c.byArg), "Level"); ok {
		return []string{name}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if name, ok := strings.CutPrefix(s.Sel.Name, "Level"); ok {
				levels = append(levels, name)
			}
		}
		return true
	})
	return levels
}

// attrsIn returns the names of the slog attributes in n, without those in calls.
func attrsIn(n ast.Node, calls ...logCall) (names []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if slices.ContainsFunc(calls, func(c logCall) bool { return c.CallExpr == call }) {
			return false
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); ok && len(call.Args) == 2 && lastName(s.X) == "slog" {
			if name, ok := literal(call.Args[0]); ok {
				names = append(names, name)
			}
		} else if ok && lastName(s.X) == "loglimit" && s.Sel.Name == "Stack" {
			names = append(names, "stack")
		}
		return true
	})
	return names
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}
