//go:build linux

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestProcs runs what can be shared over two processes of each kind, and looks at
// the merged rows.
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
		assert.InDelta(t, 101, results[1].Rows[stormSteps-1]["conns"], 0)
	})
	t.Run("a part fails", func(t *testing.T) {
		require.ErrorContains(t, bench(t.Context(), []string{"fanout", "-procs", "2", "-conns", "3", "-rooms", "2"}, new(bytes.Buffer)), "process 2 of 2")
	})
}

// TestMerge asserts what becomes of the cells of two processes.
func TestMerge(t *testing.T) {
	a, b := newHistogram(), newHistogram()
	for i := range int64(100) {
		a.record((i + 1) * int64(time.Millisecond))
		b.record((i + 101) * int64(time.Millisecond))
	}
	for name, test := range map[string]struct {
		a, b mergeable
		want any
	}{
		"sum of ints":   {sumOf(3), sumOf(4), int64(7)},
		"sum of floats": {sumOf(0.5), sumOf(0.25), 0.75},
		"highest":       {maxOf(3), maxOf(2), int64(3)},
		"mean":          {meanOf(10, 1), meanOf(20, 3), 17.5},
		"of nothing":    {meanOf(10, 0), meanOf(20, 0), 0.0},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, test.a.merge([]mergeable{test.b}))
			assert.Equal(t, test.want, test.a.value())
		})
	}
	median, highest := millisOf(a, 0.5), millisOf(b, 1)
	assert.InDelta(t, 50, median.value(), 0.1)
	require.NoError(t, median.merge([]mergeable{millisOf(b, 0.5)}))
	assert.InDelta(t, 100, median.value(), 0.2)
	require.NoError(t, highest.merge([]mergeable{millisOf(a, 1)}))
	assert.InDelta(t, 200, highest.value(), 0.2)
}
