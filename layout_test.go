package ws_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	maxFileLines = 400
	maxTestLines = 600
)

// TestLengthOfFiles holds Go files to a length that a reader can keep in mind.
func TestLengthOfFiles(t *testing.T) {
	eachFile(t, ".go", func(path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		most := maxFileLines
		switch {
		case bytes.HasPrefix(text, []byte("// Code generated")):
			return
		case strings.HasSuffix(path, "_test.go"):
			most = maxTestLines
		}
		assert.LessOrEqual(t, bytes.Count(text, []byte("\n")), most, "lines of %s", path)
	})
}

// folders returns the files of each folder of Go files in this module, without tests.
func folders(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	eachFile(t, ".go", func(path string) {
		folder := filepath.Dir(path)
		for module := folder; module != "."; module = filepath.Dir(module) {
			if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
				return
			}
		}
		found[folder] = append(found[folder], filepath.Base(path))
	})
	return found
}

// concepts are prefixes that three or more files of a folder may share.
var concepts = []string{"config", "engine/tls"}

// systems are suffixes of files for some systems or build tags only.
var systems = regexp.MustCompile(`(_(test|linux|bsd|libc|other|amd64|arm64|on|off|heavy|light|asm|fuzz))+$`)

// TestPrefixesOfFiles asserts that files with a common prefix are a concept, or else a
// folder of their own.
func TestPrefixesOfFiles(t *testing.T) {
	for folder, files := range folders(t) {
		var names []string
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				names = append(names, systems.ReplaceAllString(strings.TrimSuffix(file, ".go"), ""))
			}
		}
		slices.Sort(names)
		names = slices.Compact(names)
		for _, name := range names {
			prefix, _, _ := strings.Cut(name, "_")
			var alike []string
			for _, other := range names {
				if strings.HasPrefix(other, prefix) {
					alike = append(alike, other)
				}
			}
			if len(alike) >= 3 && !slices.Contains(concepts, filepath.Join(folder, prefix)) {
				assert.Fail(t, "files share a prefix", "%s: %s", folder, alike)
			}
		}
	}
}

// packageLine is a line of the list of packages: names, two spaces, and their job.
var packageLine = regexp.MustCompile(`(?m)^    [ │├└─]*([a-z/]+(?:, [a-z/]+)*)  +\S`)

// TestListOfPackages asserts that ARCHITECTURE.md lists all packages of the module, and
// none that does not exist.
func TestListOfPackages(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	_, list, _ := strings.Cut(string(text), "\n## Packages\n")
	list, _, _ = strings.Cut(list, "\n## ")
	var listed []string
	for _, line := range packageLine.FindAllStringSubmatch(list, -1) {
		listed = append(listed, strings.Split(line[1], ", ")...)
	}
	require.Greater(t, len(listed), 10)
	for folder := range folders(t) {
		if folder != "." {
			assert.Contains(t, listed, folder, "the list of packages")
		}
	}
	for _, folder := range listed {
		_, err := os.Stat(folder)
		_, errBench := os.Stat(filepath.Join("bench", folder))
		assert.True(t, err == nil || errBench == nil, "%s is listed, but does not exist", folder)
	}
}

// ownTests are the test files of the root package that have no source file of their name.
var ownTests = []string{
	"docs", "example", "example_guide", "export", "guide", "language", "layout", "logs", "main", "readme",
}

// TestTestsHaveASource asserts that each test file of the root package is named after
// the file that it tests. Others belong to integration/.
func TestTestsHaveASource(t *testing.T) {
	files := folders(t)["."]
	for _, file := range files {
		name, isTest := strings.CutSuffix(file, "_test.go")
		name = systems.ReplaceAllString(name, "")
		if isTest && !slices.Contains(ownTests, name) {
			assert.Contains(t, files, name+".go", "%s tests no file", file)
		}
	}
}

// TestMapOfTheEngine asserts that the package comment of engine names each of its files.
func TestMapOfTheEngine(t *testing.T) {
	text, err := os.ReadFile("engine/doc.go")
	require.NoError(t, err)
	named := regexp.MustCompile(`[a-z_*]+\.go`).FindAllString(string(text), -1)
	for _, file := range folders(t)["engine"] {
		if strings.HasSuffix(file, "_test.go") || file == "doc.go" {
			continue
		}
		assert.True(t, slices.ContainsFunc(named, func(pattern string) bool {
			matches, err := filepath.Match(pattern, file)
			return err == nil && matches
		}), "the map lacks %s", file)
	}
	for _, pattern := range named {
		found, err := filepath.Glob(filepath.Join("engine", pattern))
		require.NoError(t, err)
		assert.NotEmpty(t, found, "%s does not exist", pattern)
	}
}
