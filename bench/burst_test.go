//go:build linux

package main

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBurst asserts that all is answered in order, that a slow handler pauses its
// client, and that gws has its turn.
func TestBurst(t *testing.T) {
	args := []string{
		"burst", "-requests", "3000", "-slow-requests", "300", "-handler-time", "100us",
		"-upload", "4", "-chunk", "4096",
	}
	for name, test := range map[string]struct {
		args []string
		rows []string
	}{
		"native": {[]string{"-rounds", "2"}, []string{
			"requests ws", "requests gws", "slow requests ws", "upload ws",
			"requests gws", "requests ws", "slow requests ws", "upload ws",
		}},
		"http": {[]string{"-path", "http", "-peers", "none"}, []string{"requests ws", "slow requests ws", "upload ws"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, slices.Concat(args, test.args)...)
			require.Len(t, results, 1)
			var rows []string
			for _, row := range results[0].Rows {
				rows = append(rows, row["load"].(string)+" "+row["library"].(string))
				assertClean(t, row)
				assert.Greater(t, row["all_ms"], 0.0)
				assert.Greater(t, row["server_us"], 0.0)
				if row["load"] == "slow requests" {
					assert.Greater(t, row["pauses"], 0.0, "the client is too fast")
				}
			}
			assert.Equal(t, test.rows, rows)
		})
	}
	require.ErrorContains(t, bench(t.Context(), []string{"burst", "-chunk", "3"}, nil), "-chunk")
}
