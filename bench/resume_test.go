//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestResume asserts that clients that come back, and members that have stalled, get all messages
// once and in order, and that the memory of a history is about the formula's.
func TestResume(t *testing.T) {
	results := runBench(t, "resume", "-conns", "120", "-missed", "50", "-bystanders", "5", "-size", "4096",
		"-stall", "1s", "-stall-rate", "300", "-kept-rooms", "100")
	require.Len(t, results, 3)
	for _, table := range results[:2] {
		require.Len(t, table.Rows, 1)
		for _, key := range []string{"missing", "disordered", "gaps"} {
			assert.Zero(t, table.Rows[0][key], "%s: %s", table.Command, key)
		}
		assert.Greater(t, table.Rows[0]["server_us"], 0.0)
	}
	back := results[0].Rows[0]
	assert.InDelta(t, 119, back["conns"], 0)
	for _, key := range []string{"all_ms", "before_p50_us", "before_p99_us", "p50_us", "p99_us", "max_us"} {
		assert.Greater(t, back[key], 0.0, key)
	}
	stall := results[1].Rows[0]
	assert.InDelta(t, 6, stall["stalled"], 0)
	for _, key := range []string{"messages", "replayed", "queued_bytes", "history_bytes", "caught_ms", "catch_us"} {
		assert.Greater(t, stall[key], 0.0, key)
	}
	memory := results[2].Rows[0]
	assert.InEpsilon(t, memory["formula_bytes"], memory["history_bytes"], 0.05)
	assert.InEpsilon(t, memory["history_bytes"], memory["heap_bytes"], 0.25)
}
