//go:build linux

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestProcs runs each command that takes -procs in two processes of each kind, and
// checks the merged rows.
func TestProcs(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		results := runBench(t, "idle", "-procs", "2", "-steps", "11,31", "-quiet", "10ms", "-path", "native")
		require.Len(t, results, 2)
		require.Len(t, results[0].Rows, 2)
		for i, conns := range []float64{11, 31} {
			assert.InDelta(t, conns, results[0].Rows[i]["conns"], 0)
			assert.Greater(t, results[0].Rows[i]["rss_kib"], 0.0)
		}
	})
	for name, args := range map[string][]string{
		"full speed": {"-sweep"},
		"rate":       {"-rate", "100,200"},
	} {
		t.Run("fanout at "+name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append([]string{"fanout", "-procs", "2", "-conns", "41", "-rooms", "4"}, args...)...)
			require.Len(t, results, 1)
			for _, row := range results[0].Rows {
				assertClean(t, row)
				assert.InDelta(t, 41, row["members"], 0)
				assert.InDelta(t, 8, row["rooms"], 0)
				assert.Greater(t, row["p99_ms"], 0.0)
			}
		})
	}
	t.Run("storm", func(t *testing.T) {
		t.Parallel()
		results := runBench(t, "storm", "-procs", "2", "-conns", "101", "-staying", "10", "-rate", "50")
		require.Len(t, results, 2)
		require.Len(t, results[0].Rows, 4)
		for _, row := range results[0].Rows {
			assertClean(t, row)
			assert.InDelta(t, 101, row["conns"], 0)
		}
		assert.InDelta(t, 101, results[1].Rows[49]["conns"], 0)
	})
	t.Run("a part fails", func(t *testing.T) {
		require.ErrorContains(t, bench(t.Context(), []string{"fanout", "-procs", "2", "-conns", "3", "-rooms", "2"},
			new(bytes.Buffer)), "process 2 of 2")
	})
}
