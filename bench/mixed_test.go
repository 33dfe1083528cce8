//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMixed asserts that members receive exactly the messages that were sent while
// they were in a room, though they come and go.
func TestMixed(t *testing.T) {
	for name, args := range map[string][]string{
		"native": {"-loops", "3"},
		"http":   {"-path", "http", "-client-loops", "3"},
		// more than the ring holds
		"all at once": {"-conns", "1500", "-loops", "1", "-rate", "50", "-moving", "20", "-reconnecting", "20"},
		"one room":    {"-conns", "9", "-rate", "2000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args = append([]string{
				"mixed", "-conns", "60", "-rate", "500", "-moving", "200", "-reconnecting", "100",
				"-duration", "400ms",
			}, args...)
			results := runBench(t, args...)
			require.Len(t, results[0].Rows, 1)
			row := results[0].Rows[0]
			assertClean(t, row)
			for _, key := range []string{"each", "server_us", "p50_ms", "moves", "reconnects"} {
				assert.Greater(t, row[key], 0.0, key)
			}
			assert.Zero(t, row["refused"])
		})
	}
}
