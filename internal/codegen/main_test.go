package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGeneratedCodeIsUpToDate asserts that the generated files agree with stats.go.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	t.Chdir("../..")
	dir := t.TempDir()
	root, engine := filepath.Join(dir, "figures.go"), filepath.Join(dir, "counters.go")
	require.NoError(t, run("stats.go", root, engine))
	for written, generated := range map[string]string{"figures.go": root, "engine/counters.go": engine} {
		want, err := os.ReadFile(generated)
		require.NoError(t, err)
		got, err := os.ReadFile(written)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s is old: run go generate", written)
	}
}
