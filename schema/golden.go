package schema

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qi-realtime/ws"
)

const updateFlag = "update"

// init declares the flag -update in a test that is run with it, if no other package has done
// so. In other runs and programs the flag stays free for others.
func init() {
	given := func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		return strings.HasPrefix(arg, "-") && name == updateFlag
	}
	if testing.Testing() && flag.Lookup(updateFlag) == nil && slices.ContainsFunc(os.Args[1:], given) {
		flag.Bool(updateFlag, false, "write the files that schema.Golden checks")
	}
}

// Golden fails t if the file at path is not the description of m, with the first line that
// differs. The end of the name gives the format: .ts is TypeScript, .json AsyncAPI, .go Go. With
// the flag -update the test writes the file in place of that:
//
//	go test -run TestAPI -update .
//
// A test package with a flag "update" of its own shares it with Golden, but must declare it only
// if flag.Lookup does not find it.
func Golden(t testing.TB, m *ws.Manager, path string, opts ...Option) {
	t.Helper()
	update := false
	if f := flag.Lookup(updateFlag); f != nil {
		update = f.Value.String() == "true"
	}
	if err := golden(ws.Describe(m), path, update, opts); err != nil {
		t.Fatal(err)
	}
}

// golden writes the file at path, or compares it.
func golden(s ws.Schema, path string, update bool, opts []Option) error {
	writers := map[string]func(io.Writer, ws.Schema, ...Option) error{".ts": TypeScript, ".json": AsyncAPI, ".go": Go}
	write := writers[filepath.Ext(path)]
	if write == nil {
		return fmt.Errorf("schema: Golden(%q): the name must end in .ts, .json or .go", path)
	}
	var want bytes.Buffer
	if err := write(&want, s, opts...); err != nil {
		return err
	}
	got, err := os.ReadFile(path)
	got = bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")) // of git on Windows
	switch {
	case err == nil && bytes.Equal(got, want.Bytes()):
		return nil
	case update:
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("schema: Golden: %w", err)
		}
		return os.WriteFile(path, want.Bytes(), 0o644)
	case err != nil:
		return fmt.Errorf("schema: Golden: %w; run the test with -update to write it", err)
	}
	return fmt.Errorf("schema: %s is out of date: %s; run the test with -update to write it", path,
		difference(string(got), want.String()))
}

// difference names the first line in which two texts differ.
func difference(got, want string) string {
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i, line := range wantLines {
		if i == len(gotLines) {
			break
		}
		if gotLines[i] != line {
			return fmt.Sprintf("line %d is %q, not %q", i+1, gotLines[i], line)
		}
	}
	return fmt.Sprintf("it has %d lines, not %d", len(gotLines), len(wantLines))
}
