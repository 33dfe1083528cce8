//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestStorm asserts that all clients connect, twice, and that the members that stay
// lose nothing meanwhile.
func TestStorm(t *testing.T) {
	const steps = 50 // of the curve
	for name, args := range map[string][]string{
		"native": {"-opening", "50"},
		"paced":  {"-admit", "400", "-admit-burst", "20", "-opening", "0"},
		"http":   {"-path", "http", "-opening", "0", "-auth-delay", "1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append([]string{"storm", "-conns", "200", "-staying", "20", "-rate", "400"}, args...)...)
			require.Len(t, results, 2)
			require.Len(t, results[0].Rows, 4)
			for i, row := range results[0].Rows {
				assertClean(t, row)
				for _, key := range []string{"half_ms", "server_us", "p50_ms", "peak_rss_bytes"} {
					assert.Greater(t, row[key], 0.0, key)
				}
				assert.GreaterOrEqual(t, row["p99_ms"], row["p90_ms"])
				if name == "paced" {
					assert.GreaterOrEqual(t, row["all_ms"], 1000*(200-20)/400.0)
					assert.Greater(t, row["waiting_most"], 50.0) // one of two loops may begin late
					assert.Greater(t, row["rest_ms"], 0.0)
					assert.Zero(t, row["refused"])
				}
				assert.GreaterOrEqual(t, row["most_ms"], row["half_ms"])
				assert.GreaterOrEqual(t, row["all_ms"], row["most_ms"])
				assert.GreaterOrEqual(t, row["joined_ms"], row["all_ms"])
				assert.Equal(t, i >= 2, row["staying_max_ms"].(float64) > 0, "members stay beside the last two")
			}
			series := results[1].Rows
			require.Len(t, series, 4*steps)
			for i, row := range series {
				if i%steps > 0 {
					assert.GreaterOrEqual(t, row["at_ms"], series[i-1]["at_ms"])
				}
				if i%steps == steps-1 {
					assert.InDelta(t, 200, row["conns"], 0)
				}
			}
		})
	}
}
