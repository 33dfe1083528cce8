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

// long are the files that are too long still.
var long = []string{
	"conformance/deflate_test.go", "engine/engine.go", "engine/gnet_facts_test.go", "engine/inbound.go",
	"engine/shard.go", "integration/harness_test.go", "integration/slow_test.go",
}

// TestLengthOfFiles holds Go files to a length that a reader can keep in mind.
func TestLengthOfFiles(t *testing.T) {
	eachFile(t, ".go", func(path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		most := maxFileLines
		switch {
		case slices.Contains(long, path), bytes.HasPrefix(text, []byte("// Code generated")):
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
var concepts = []string{"config", "engine/accept", "engine/listen", "engine/memory", "engine/tls"}

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

// TestListOfPackages asserts that ARCHITECTURE.md lists all packages of the module.
func TestListOfPackages(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	for folder := range folders(t) {
		if folder != "." {
			listed := regexp.MustCompile(`(?m)^    .*\b` + folder + `\b`).Match(text)
			assert.True(t, listed, "the list of packages lacks %s", folder)
		}
	}
}
