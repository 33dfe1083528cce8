//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDrain asserts that a shutdown delivers all queued messages, closes each
// connection with 1001, and leaves nothing.
func TestDrain(t *testing.T) {
	for _, path := range []string{"native", "http"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, "drain", "-conns", "40", "-path", path)
			require.Len(t, results[0].Rows, 1)
			row := results[0].Rows[0]
			assert.Greater(t, row["held"], 100.0, "each had one before")
			assert.InDelta(t, 40, row["going_away"], 0)
			for _, key := range []string{"cut", "missing", "disordered", "dropped"} {
				assert.Zero(t, row[key], key)
			}
			for _, key := range []string{"half_ms", "shutdown_ms", "server_us"} {
				assert.Greater(t, row[key], 0.0, key)
			}
			if path == "native" { // workers of gnet, which took over the others, end when idle for 10 s
				assert.Less(t, row["goroutines"], row["goroutines_before"], "the event loops have ended")
			}
			assert.GreaterOrEqual(t, row["ended_ms"], row["all_ms"])
			assert.Less(t, row["descriptors"], row["descriptors_before"])
		})
	}
}

// TestPacedDrain asserts that a drain moves clients at its pace, and loses nothing.
func TestPacedDrain(t *testing.T) {
	for _, path := range []string{"native", "http"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, "drain", "-conns", "300", "-window", "3s", "-path", path, "-aware", "40", "-room-rate", "20")
			require.Len(t, results[0].Rows, 1)
			row := results[0].Rows[0]
			for _, key := range []string{"missing", "missing_end", "disordered", "unhandled", "forced"} {
				assert.Zero(t, row[key], key)
			}
			assert.InDelta(t, 120, row["moved"], 0)
			assert.InDelta(t, 180, row["closed"], 0)
			assert.Zero(t, row["aware_gap_ms"])
			assert.Greater(t, row["gap_ms"], 0.0)
			assert.Greater(t, row["messages"], 0.0)
			assert.GreaterOrEqual(t, row["requests"], 300.0)
			assert.GreaterOrEqual(t, row["slots_s"], 1.5) // the first may come late, or all
		})
	}
}
