package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGeneratedCodeIsUpToDate asserts that the generated files agree with the structs.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	t.Chdir("../..")
	dir := t.TempDir()
	require.NoError(t, run(filepath.Join(dir, "config_engine.go"), filepath.Join(dir, "options_plain.go")))
	for _, name := range []string{"config_engine.go", "options_plain.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s is old: run go generate", name)
	}
}

// TestUnknownSetting asserts that a setting of the engine without a field in Config is an error.
func TestUnknownSetting(t *testing.T) {
	_, err := copySettings(map[string][]field{"Config": {{"Loops", "int"}}}, []field{{"Loop", "int"}})
	require.ErrorContains(t, err, "engine.Config.Loop")
}
