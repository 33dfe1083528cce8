//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompare compares with two small peers, built from bench/peers.
func TestCompare(t *testing.T) {
	t.Parallel()
	results := runBench(t, "compare", "-peers", "gorilla,gobwas", "-conns", "60", "-rounds", "1", "-quiet", "10ms")
	require.Len(t, results, len(compareLoads)+1)
	for i, load := range compareLoads {
		got := results[i]
		assert.Equal(t, "compare-"+load.name, got.Command)
		names := []string{ourName, "gorilla", "gobwas"}
		if load.only != "" {
			names = []string{ourName, load.only}
		}
		require.Len(t, got.Rows, len(names))
		for j, name := range names {
			row := got.Rows[j]
			assert.Equal(t, name, row["library"])
			assert.NotEmpty(t, row["version"])
			assert.Equal(t, "ok", row["status"], "%s %s", load.name, name)
			if load.name == "idle" {
				assert.Greater(t, row["accept_us"], 0.0)
				continue
			}
			for _, key := range []string{"per_second", "server_us", "write_calls", "p99_us", "ratio", "min"} {
				assert.Greater(t, row[key], 0.0, "%s %s: %s", load.name, name, key)
			}
			assert.LessOrEqual(t, row["min"], row["max"])
		}
		assert.InDelta(t, 1, got.Rows[0]["ratio"], 1e-9)
	}
	measures := 0
	for _, load := range compareLoads {
		measures += len(load.measures)
	}
	require.Len(t, results[len(compareLoads)].Rows, measures)
}

// TestComparePeerFails has a peer that starts no server.
func TestComparePeerFails(t *testing.T) {
	t.Parallel()
	peer := filepath.Join(t.TempDir(), "peers")
	script := "#!/bin/sh\nif [ \"$1\" = list ]; then printf 'broken\\tv1.2.3\\n'; fi\n"
	require.NoError(t, os.WriteFile(peer, []byte(script), 0o700))
	results := runBench(t, "compare", "-peers-binary", peer, "-load", "echo16", "-conns", "20", "-rounds", "2")
	require.Len(t, results, 2)
	require.Len(t, results[0].Rows, 2)
	assert.Equal(t, "ok", results[0].Rows[0]["status"])
	broken := results[0].Rows[1]
	assert.Equal(t, "v1.2.3", broken["version"])
	assert.Contains(t, broken["status"], "failed in 2 of 2 rounds: ")
	for _, row := range results[1].Rows {
		assert.Equal(t, ourName, row["best"])
		assert.Equal(t, "none", row["second"])
	}
}

// TestCompareSummary has libraries that win, lose, and lose messages.
func TestCompareSummary(t *testing.T) {
	load := compareLoad{name: "x", measures: []measure{byCPU, byRate}}
	c := newComparison(load, []contender{{name: ourName}, {name: "fast"}, {name: "lossy"}, {name: "broken"}})
	run := func(cpu, rate, missing float64) *libraryRun {
		return &libraryRun{row: map[string]float64{"server_us": cpu, "per_second": rate, "missing": missing}}
	}
	c.runs = [][]*libraryRun{
		{run(2, 100, 0), run(4, 200, 0), run(3, 150, 0)},
		{run(1, 150, 0), run(3, 100, 0), run(2, 120, 0)},
		{run(0.1, 900, 0), run(0.1, 900, 7), run(0.1, 900, 0)},
		{run(1, 1, 0), {err: errors.New("gone\nat once")}, run(1, 1, 0)},
	}
	rows := c.table().rows
	statuses := make([]any, 0, len(rows))
	for _, row := range rows {
		statuses = append(statuses, row[len(row)-1])
	}
	assert.Equal(t, []any{"ok", "ok", "lost 7 messages", "failed in 1 of 3 rounds: gone"}, statuses)
	// The median of 1/2, 3/4 and 2/3.
	assert.InDelta(t, 2.0/3, c.ratio(1, "server_us"), 1e-9)
	assert.InDelta(t, 0.8, c.ratio(1, "per_second"), 1e-9, "1.5, 0.5, 0.8")
	assert.InDelta(t, (0.5+1.0/3)/2, c.ratio(3, "server_us"), 1e-9, "1/2 and 1/3: only rounds that both got through")
	low, high := c.spread(0, "server_us")
	assert.Equal(t, [2]float64{2, 4}, [2]float64{low, high})
	s := newSummary()
	c.summarize(s)
	require.Len(t, s.rows, 2)
	assert.Equal(t, []any{"x", byCPU.name, "fast", 2.0, ourName, 3.0, 1.5, 3.0, "ws is number 2 of 2: fast is 1.50x better"}, s.rows[0])
	assert.Equal(t, []any{"x", byRate.name, ourName, 150.0, "fast", 120.0, 1.25, 150.0, "ws is best"}, s.rows[1])
}
