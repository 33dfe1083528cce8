//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/command"
)

// runSoak runs a short soak, and returns its tables by their names.
func runSoak(t *testing.T, args ...string) (tables map[string][]map[string]any, err error) {
	t.Helper()
	args = append([]string{
		"-json", "soak", "-d", "16s", "-cycle", "2s", "-sample", "200ms", "-conns", "200", "-healthy", "40",
		"-chat-rooms", "5", "-path", "native", "-strength", "0.05", "-attacks", "garbage,slowhead,oversized,pings",
	}, args...)
	var out bytes.Buffer
	err = bench(t.Context(), args, &out)
	var got struct{ Results []resultTable }
	require.NoError(t, json.Unmarshal(out.Bytes(), &got), "%v", err)
	tables = make(map[string][]map[string]any)
	for _, r := range got.Results {
		tables[r.Command] = r.Rows
	}
	return tables, err
}

// TestSoak asserts that a short soak runs all loads, loses nothing and is flat.
func TestSoak(t *testing.T) {
	t.Parallel()
	tables, err := runSoak(t)
	assertSoaked(t, tables)
	if errors.As(err, new(*command.VerdictError)) { // on a busy machine, what a cycle leaves varies
		tables, err = runSoak(t)
		assertSoaked(t, tables)
	}
	require.NoError(t, err)
}

// assertSoaked asserts that all loads ran, and nothing was lost.
func assertSoaked(t *testing.T, tables map[string][]map[string]any) {
	t.Helper()
	require.NotEmpty(t, tables["soak"])
	row := tables["soak"][0]
	for _, key := range []string{"missing", "disordered", "lost", "closed"} {
		assert.Zero(t, row[key], key)
	}
	for _, key := range []string{"messages", "spoken", "moves", "reconnects", "requests", "churned", "attackers"} {
		assert.Greater(t, row[key], 0.0, key)
	}
	assert.GreaterOrEqual(t, row["drains"], 4.0)
	read := tables["soak-readers"][0]
	for _, key := range []string{"missing", "disordered", "closed", "gaps"} {
		assert.Zero(t, read[key], key)
	}
	assert.InDelta(t, 20*row["drains"].(float64), read["epochs"], 0)
	assert.Greater(t, read["reconnects"], 0.0)
	assert.Greater(t, read["messages"], 0.0)
	require.GreaterOrEqual(t, len(tables["soak-cycles"]), 8)
	for _, cycle := range tables["soak-cycles"] {
		assert.InDelta(t, 40+20, cycle["clients"], 0)
	}
	require.Len(t, tables["soak-verdict"], 2*5)
	assert.NotEmpty(t, tables["soak-series"])
}

// TestSoakFindsLeaks asserts that the verdict on a server that loses a resource with
// each connection is bad, with one manager and with many.
func TestSoakFindsLeaks(t *testing.T) {
	for leak, resource := range map[string]string{
		"goroutines": "goroutines", "descriptors": "descriptors", "heap": "heap MiB",
	} {
		t.Run(leak, func(t *testing.T) {
			t.Parallel()
			tables, err := runSoak(t, "-leak", leak, "-d", "8s", "-cycle", "1s", "-readers", "0")
			require.ErrorAs(t, err, new(*command.VerdictError))
			found := 0
			for _, row := range tables["soak-verdict"] {
				if row["resource"] == resource && row["flat"] == "NO" {
					found++
				}
			}
			assert.Equal(t, 2, found, "%v", tables["soak-verdict"])
		})
	}
}
