package ws_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	markdownLink = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	namedFile    = regexp.MustCompile("`([a-z_/]+[*]?\\.go)`")
)

// documents returns the paths of all Markdown files but those of results.
func documents(t *testing.T) []string {
	t.Helper()
	var documents []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md", "*/README.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		documents = append(documents, found...)
	}
	require.Greater(t, len(documents), 10)
	return documents
}

// TestLinksOfDocuments asserts that each relative link leads to a file.
func TestLinksOfDocuments(t *testing.T) {
	for _, document := range documents(t) {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		text = code.ReplaceAll(codeBlock.ReplaceAll(text, nil), nil) // F[T](x) is no link there
		for _, link := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(document), link[1]))
			assert.NoError(t, err, "%s links to %s", document, link[1])
		}
	}
}

// TestMapIsWhole asserts that the map in ARCHITECTURE.md names existing files.
func TestMapIsWhole(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	assert.LessOrEqual(t, strings.Count(string(text), "\n"), 150, "lines of the map")
	for _, name := range namedFile.FindAllStringSubmatch(string(text), -1) {
		found, err := filepath.Glob(name[1])
		require.NoError(t, err)
		assert.NotEmpty(t, found, "%s does not exist", name[1])
	}
}
