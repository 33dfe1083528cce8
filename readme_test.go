package ws_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestREADMEProgramIsTheExample keeps the README's program one that compiles.
func TestREADMEProgramIsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	program, err := os.ReadFile("examples/say/main.go")
	require.NoError(t, err)
	_, body, ok := strings.Cut(string(program), "\n") // without the package comment
	require.True(t, ok)
	assert.Contains(t, string(readme), "```go\n"+body+"```")
}
