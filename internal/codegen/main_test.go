package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGeneratedCodeIsUpToDate asserts that the derived files agree with the structs.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	t.Chdir("../..")
	files, err := generate()
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for name, want := range files {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got), "%s is old: run go generate", name)
	}
}

// TestUnknownSetting asserts that a setting of the engine without a field in Config is an error.
func TestUnknownSetting(t *testing.T) {
	_, err := copySettings(structs{"Config": {{name: "Loops", kind: "int"}}}, []field{{name: "Loop", kind: "int"}})
	require.ErrorContains(t, err, "engine.Config.Loop")
}
