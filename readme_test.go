package ws_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestREADMEProgramIsTheExample asserts that the program in both READMEs is the one that compiles.
func TestREADMEProgramIsTheExample(t *testing.T) {
	program, err := os.ReadFile("examples/say/main.go")
	require.NoError(t, err)
	_, body, ok := strings.Cut(string(program), "\n") // without the package comment
	require.True(t, ok)
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		readme, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Contains(t, string(readme), "```go\n"+body+"```", name)
	}
}

// TestREADMEPublishIsTheExample does the same for the call of Publish.
func TestREADMEPublishIsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	const call = "d, err := m.Publish("
	_, rest, ok := strings.Cut(string(readme), call)
	require.True(t, ok)
	arguments, _, _ := strings.Cut(rest, "\n")
	assert.Contains(t, string(example), call+arguments+"\n")
}
