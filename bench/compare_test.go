//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompare compares with two small peers, built from bench/peers.
func TestCompare(t *testing.T) {
	t.Parallel()
	args := []string{"compare", "-peers", "gorilla,gobwas", "-conns", "60", "-rounds", "1", "-quiet", "10ms"}
	results := runBench(t, args...)
	loads := []string{
		"idle", "echo1", "echo16", "echo-rate", "json1", "json16", "fanout-8", "fanout-64", "fanout-rate", "rooms", "slow",
	}
	require.Len(t, results, len(loads)+1)
	for i, load := range loads {
		got := results[i]
		for d := time.Second; d < 20*time.Second && behind(got.Rows); d *= 2 { // the machine was busy
			got = runBench(t, append(args, "-load", load, "-duration", d.String())...)[0]
		}
		assert.Equal(t, "compare-"+load, got.Command)
		names := []string{"ws", "gorilla", "gobwas"}
		if strings.HasPrefix(load, "json") {
			names = names[:2]
		}
		if i >= slices.Index(loads, "fanout-8") {
			names = slices.Insert(names, 1, "ws, single writes")
		}
		require.Len(t, got.Rows, len(names))
		for j, name := range names {
			row := got.Rows[j]
			assert.Equal(t, name, row["library"])
			assert.NotEmpty(t, row["version"])
			assert.Equal(t, "ok", row["status"], "%s %s", load, name)
			if load == "idle" {
				assert.Greater(t, row["accept_us"], 0.0)
				continue
			}
			for _, key := range []string{"per_second", "server_us", "write_calls", "p99_us", "ratio", "min"} {
				assert.Greater(t, row[key], 0.0, "%s %s: %s", load, name, key)
			}
			assert.LessOrEqual(t, row["min"], row["max"])
		}
		assert.InDelta(t, 1, got.Rows[0]["ratio"], 1e-9)
	}
	require.Len(t, results[len(loads)].Rows, 2*len(loads)+2) // idle and slow have three measures
}

// TestCompareByClient lets a client publish to members beside others that stall.
func TestCompareByClient(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "peers")
	require.NoError(t, os.WriteFile(none, []byte("#!/bin/sh\n"), 0o700))
	args := []string{"compare", "-peers-binary", none, "-load", "slow", "-conns", "60", "-rounds", "1", "-by-client"}
	got := runBench(t, args...)[0]
	for d := time.Second; d < 20*time.Second && behind(got.Rows); d *= 2 { // the machine was busy
		got = runBench(t, append(args, "-duration", d.String())...)[0]
	}
	require.Len(t, got.Rows, 2)
	for _, row := range got.Rows {
		assert.Equal(t, "ok", row["status"], row["library"])
		assertClean(t, row)
		assert.Greater(t, row["p99_us"], 0.0, row["library"])
		assert.Zero(t, row["ended"], row["library"])
	}
}

// behind reports whether a library did not get the rate that was due.
func behind(rows []map[string]any) bool {
	return slices.ContainsFunc(rows, func(row map[string]any) bool {
		return strings.HasSuffix(row["status"].(string), " that were due")
	})
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
		assert.Equal(t, "ws", row["best"])
		assert.Equal(t, "none", row["second"])
	}
}
