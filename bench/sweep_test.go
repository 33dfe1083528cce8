//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSweep runs every combination on servers of their own, and finds the least.
func TestSweep(t *testing.T) {
	tests := map[string]struct {
		args []string
		want []string // loops, room shards, batch, ring
	}{
		"fanout": {
			[]string{"-load", "fanout", "-outstanding", "8", "-loops", "1,2", "-batch", "16,512"},
			[]string{"1 4 16 1024", "1 4 512 1024", "2 8 16 1024", "2 8 512 1024"},
		},
		"echo": {
			[]string{"-load", "echo", "-loops", "1", "-room-shards", "2,16", "-ring", "64,256"},
			[]string{"1 2 64 64", "1 2 64 256", "1 16 64 64", "1 16 64 256"},
		},
		"latency": {[]string{"-load", "latency", "-rate", "200", "-loops", "1", "-batch", "1"}, []string{"1 4 1 1024"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append([]string{"-duration", "60ms", "sweep", "-conns", "20", "-rounds", "2"}, tt.args...)...)
			require.Len(t, results, 1)
			rows := results[0].Rows
			var got []string
			highest := 0.0
			for i, row := range rows {
				got = append(got, fmt.Sprint(row["loops"], row["room_shards"], row["batch"], row["ring"]))
				assert.Zero(t, row["lost"])
				assert.LessOrEqual(t, row["server_us_least"], row["server_us"])
				assert.LessOrEqual(t, row["server_us"], row["server_us_most"])
				assert.Greater(t, row["per_second_least"], 0.0)
				assert.Greater(t, row["p99_ms"], 0.0)
				highest = max(highest, row["per_second"].(float64))
				if i > 0 {
					assert.GreaterOrEqual(t, row["server_us"], rows[i-1]["server_us"])
				}
			}
			assert.ElementsMatch(t, tt.want, got)
			assert.Contains(t, rows[0]["mark"], "least CPU")
			i := slices.IndexFunc(rows, func(row map[string]any) bool {
				return strings.Contains(row["mark"].(string), "highest rate")
			})
			require.GreaterOrEqual(t, i, 0)
			assert.InDelta(t, highest, rows[i]["per_second"], 0)
		})
	}
}

func TestSweepArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no such load":      {"sweep", "-load", "idle"},
		"a loop of nothing": {"sweep", "-loops", "1,0"},
		"the same twice":    {"sweep", "-batch", "16,16"},
		"no list":           {"sweep", "-ring", "64,"},
		"too large":         {"sweep", "-batch", "4097"},
		"no rounds":         {"sweep", "-rounds", "0"},
		"two rates": {
			"sweep", "-load", "latency", "-rate", "50,100", "-conns", "5", "-duration", "10ms",
			"-warmup", "0",
		},
		"shards no power of 2": {"sweep", "-load", "echo", "-room-shards", "3", "-conns", "5"},
		"rooms of nobody":      {"tune", "-conns", "5", "-rooms", "6"},
		"two rates of a load":  {"tune", "-rate", "5", "-deliveries", "50"},
		"backwards":            {"tune", "-rate", "-5"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, bench(t.Context(), args, new(bytes.Buffer)))
		})
	}
}

// TestTune runs it whole on a tiny load: every variation is there, none lost
// anything, and the recommendation agrees with the verdicts.
func TestTune(t *testing.T) {
	for name, args := range map[string][]string{
		"one room":   {"-conns", "20", "-rate", "200", "-rounds", "5"},
		"echo":       {"-conns", "20", "-messages", "200", "-rounds", "1"},
		"many rooms": {"-conns", "33", "-rooms", "10", "-deliveries", "3300", "-rounds", "1", "-size", "64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			args := append([]string{"-json", "tune", "-duration", "40ms", "-warmup", "10ms", "-maxprocs", "2"}, args...)
			require.NoError(t, bench(t.Context(), args, &out))
			var got struct {
				Results []struct {
					Rows  []map[string]any
					Notes []string
				}
			}
			require.NoError(t, json.Unmarshal(out.Bytes(), &got))
			rows, notes := got.Results[0].Rows, strings.Join(got.Results[0].Notes, "\n")
			var options []string
			gains := false
			for _, row := range rows {
				options = append(options, fmt.Sprint(row["option"], row["loops"], row["room_shards"], row["batch"], row["ring"]))
				assert.Zero(t, row["lost"])
				assert.Greater(t, row["server_us"], 0.0)
				gains = gains || row["verdict"] == "gain"
			}
			want := []string{
				"-2 8 64 1024", "batch2 8 16 1024", "batch2 8 256 1024",
				"gomaxprocs2 8 64 1024",
				"loops1 8 64 1024", "ring2 8 64 256", "ring2 8 64 4096",
			}
			if strings.Contains(name, "many") {
				want = append(want, "room-shards2 32 64 1024")
			}
			if !strings.Contains(name, "one") {
				assert.Contains(t, notes, "Fewer than 5 rounds")
			}
			assert.Equal(t, want, options[:len(want)])
			assert.Equal(t, gains, len(rows) > len(want), "options that gain are measured again")
			last := rows[len(rows)-1]
			recommends := strings.Contains(notes, "ws.WithLoops") || strings.Contains(notes, "c.Broadcast.")
			assert.Equal(t, len(rows) > len(want) && last["verdict"] == "gain",
				recommends || strings.Contains(notes, "Run with GOMAXPROCS"))
			assert.Equal(t, !recommends, strings.Contains(notes, "m, err := ws.NewManager()"))
		})
	}
}

// TestBatchSetting asserts that settings reach the server.
func TestBatchSetting(t *testing.T) {
	row := runBench(t, "fanout", "-conns", "30", "-batch", "1", "-single-writes")[0].Rows[0]
	assert.Greater(t, row["writes"], 0.4, "two batches of one message are the most that a write takes")
}
