//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/result"
)

// TestMain is also the other processes of the end-to-end tests, which are this
// program with other arguments.
func TestMain(m *testing.M) {
	hidden()
	os.Exit(m.Run())
}

// resultTable is one table of a run.
type resultTable struct {
	Command string
	Rows    []map[string]any
}

// runBench runs one command line, shortly, and again if the machine was too busy to do anything in
// that time.
func runBench(t *testing.T, args ...string) []resultTable {
	t.Helper()
	results := runOnce(t, args...)
	for range 4 {
		if !idle(results) {
			break
		}
		results = runOnce(t, args...)
	}
	return results
}

// idle reports whether nothing was measured for a row.
func idle(results []resultTable) bool {
	for _, table := range results {
		for _, row := range table.Rows {
			if status, ok := row["status"]; ok && status != "ok" {
				continue
			}
			for _, key := range []string{"per_second", "per_second_least", "echoes_per_second"} {
				if row[key] == 0.0 {
					return true
				}
			}
		}
	}
	return false
}

// runOnce runs one command line.
func runOnce(t *testing.T, args ...string) []resultTable {
	t.Helper()
	args = append([]string{"-json", "-duration", "200ms", "-warmup", "20ms"}, args...)
	var out bytes.Buffer
	require.NoError(t, bench(t.Context(), args, &out))
	var got struct {
		Machine result.Machine
		Results []resultTable
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.NotEmpty(t, got.Results)
	return got.Results
}

// TestCommands runs every command, small, against a real server process.
func TestCommands(t *testing.T) {
	for name, args := range map[string][]string{
		"idle":        {"-steps", "10,50", "-quiet", "10ms", "idle", "-join"},
		"echo":        {"echo", "-conns", "50", "-inflight", "4"},
		"echo http":   {"echo", "-conns", "50", "-path", "http", "-size", "70000"},
		"echo rate":   {"echo", "-conns", "50", "-rate", "2000,4000", "-client-loops", "3"},
		"echo modes":  {"echo", "-conns", "30", "-mode", "raw,pooled,json,json-inline"},
		"echo JSON":   {"echo", "-conns", "50", "-mode", "json,json-inline", "-rate", "400", "-size", "5000"},
		"fanout":      {"fanout", "-conns", "50", "-sweep"},
		"latency":     {"latency", "-conns", "50", "-rate", "200"},
		"rates":       {"latency", "-conns", "50", "-rate", "100,200,400"},
		"tls":         {"tls", "-conns", "10", "-sizes", "16,70000"},
		"rooms":       {"fanout", "-conns", "55", "-rooms", "10", "-sweep", "-rounds", "2"},
		"rooms, rate": {"fanout", "-conns", "55", "-rooms", "10", "-rate", "300,500"},
		"one member":  {"fanout", "-conns", "1"},
		"by client":   {"fanout", "-conns", "55", "-rooms", "10", "-sweep", "-by-client", "-client-loops", "3"},
		"its rate":    {"latency", "-conns", "55", "-rooms", "10", "-rate", "300,500", "-by-client"},
		"three loops": {"fanout", "-conns", "50", "-client-loops", "3", "-loops", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, result := range runBench(t, args...) {
				require.NotEmpty(t, result.Rows)
				for _, row := range result.Rows {
					if _, ok := row["per_second"]; !ok {
						continue
					}
					assertClean(t, row)
				}
			}
		})
	}
}

// assertClean asserts that nothing was lost that should have come.
func assertClean(t *testing.T, row map[string]any) {
	t.Helper()
	assert.Greater(t, row["per_second"], 0.0)
	wrong := []string{"missing", "disordered", "dropped"}
	if stalled, ok := row["stalled"]; ok && stalled.(float64) > 0 {
		wrong = wrong[:2]
		assert.Greater(t, row["dropped"], 0.0, "stalled members drop messages")
	}
	for _, key := range wrong {
		if n, ok := row[key]; ok {
			assert.Zero(t, n, key)
		}
	}
}

// TestEchoRate asserts that messages are sent at the rate, and when they are due.
func TestEchoRate(t *testing.T) {
	t.Parallel()
	const rate, within = 3000.0, 0.2
	var row map[string]any
	// A pause of the machine moves messages into the measured time or out of it.
	for d := 500 * time.Millisecond; d < 20*time.Second; d *= 2 {
		row = runBench(t, "echo", "-conns", "100", "-rate", "3000", "-duration", d.String())[0].Rows[0]
		assert.Zero(t, row["missing"])
		if math.Abs(row["per_second"].(float64)-rate) < within*rate {
			break
		}
	}
	assert.InEpsilon(t, rate, row["per_second"], within)
	for _, key := range []string{"server_us", "write_calls", "read_calls", "p50_us", "late_p99_us"} {
		assert.Greater(t, row[key], 0.0, key)
	}
	assert.GreaterOrEqual(t, row["max_us"], row["p999_us"])
	assert.GreaterOrEqual(t, row["p999_us"], row["p50_us"])
}

// TestStalled compares a room without and with stalled members: four rows, and
// two of their ratios.
func TestStalled(t *testing.T) {
	for name, args := range map[string][]string{
		"fanout":  {"fanout", "-sweep=false"},
		"latency": {"latency", "-rate", "300"},
		"rooms":   {"fanout", "-rooms", "4", "-rate", "400", "-by-client"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append(args, "-conns", "41", "-stalled", "12.5", "-compare", "-rounds", "2",
				"-queue", "32")...)
			require.Len(t, results, 2)
			var stalled []any
			for _, row := range results[0].Rows {
				assertClean(t, row)
				stalled = append(stalled, row["stalled"])
			}
			assert.Equal(t, []any{0.0, 5.0, 0.0, 5.0}, stalled)
			require.Len(t, results[1].Rows, 1)
			for _, key := range []string{"server_us", "per_second", "last_p50", "last_p99"} {
				assert.Greater(t, results[1].Rows[0][key], 0.0, key)
			}
		})
	}
}

// serverHeader is the length of the header of a server's frame.
func serverHeader(size int) int {
	if size < 1<<16 {
		return 4
	}
	return 10
}

// TestSlow asserts that every client holds the published messages once, and
// that slow members cost the others nothing.
func TestSlow(t *testing.T) {
	for name, size := range map[string]int{"small frames": 1000, "frames beyond a socket's buffer": 200_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, "slow", "-conns", "40", "-size", strconv.Itoa(size), "-stalled", "5",
				"-trickle", "10", "-rate", "100")
			require.Len(t, results[0].Rows, 2)
			all, last := results[0].Rows[0], results[0].Rows[1]
			assert.GreaterOrEqual(t, all["held"], float64(101), "each had one before")
			assert.InDelta(t, 100, last["held"], 0)
			assert.InDelta(t, (size+serverHeader(size))*100, last["copies_bytes"], 0)
			assert.Less(t, last["heap_bytes"], last["copies_bytes"])
			if size > 1000 {
				return // healthy members need not keep up with this
			}
			require.Len(t, results, 3)
			require.Equal(t, "slow-beside", results[1].Command)
			require.Len(t, results[1].Rows, 2)
			for i, row := range results[1].Rows {
				assertClean(t, row)
				assert.InDelta(t, 2*i, row["stalled"], 0)
				assert.InDelta(t, 4*i, row["trickling"], 0)
			}
			require.Len(t, results[2].Rows, 1)
		})
	}
}

func TestFair(t *testing.T) {
	t.Parallel()
	results := runBench(t, "fair", "-conns", "30")
	require.Len(t, results[0].Rows, 1)
	row := results[0].Rows[0]
	assert.InDelta(t, 1, row["loops"], 0)
	assert.Zero(t, row["missing"]) // members that get no processor may drop
	for _, key := range []string{"per_second", "echoes_per_second", "p50_us", "max_us"} {
		assert.Greater(t, row[key], 0.0, key)
	}
}

// TestSim asserts that all that is simulated arrives, and nothing else.
func TestSim(t *testing.T) {
	t.Parallel()
	results := runBench(t, "sim", "-steps", "200,1000", "-rooms", "3", "-loops", "2")
	require.Len(t, results, 3)
	memory, work, ratios := results[0].Rows, results[1].Rows, results[2].Rows
	require.Len(t, memory, 2)
	const stalledShare, batch, least = 20, 64, 200_000 // of the simulation
	for i, conns := range []float64{200, 1000} {
		assert.InDelta(t, conns, memory[i]["conns"], 0)
		assert.InDelta(t, conns/stalledShare, memory[i]["stalled"], 0)
		assert.Greater(t, memory[i]["heap_bytes_rooms"], memory[i]["heap_bytes_room"])
		assert.Greater(t, memory[i]["heap_bytes_room"], memory[i]["heap_bytes"])
		n := float64(max(1, least/int(conns)))
		// All of 2x3 publishes to one room one by one, of batches, of rooms of 1,000
		// and twice of 10; and the messages that the stalled clients held.
		batches := float64(batch * max(1, least/batch/int(conns)))
		queued := conns / stalledShare * float64(ws.DefaultConfig().MessageQueueSize)
		assert.InDelta(t, conns*(6*n+batches+3*n)+queued, work[i]["deliveries"], 0)
		assert.InDelta(t, conns*n, work[i]["pings"], 0)
		assert.Zero(t, work[i]["dropped"])
		for key, value := range work[i] {
			if key != "dropped" {
				assert.Greater(t, value, 0.0, key)
			}
		}
	}
	require.Len(t, ratios, 8+16)
	for _, row := range ratios {
		assert.Greater(t, row["ratio"], 0.0, row["metric"])
	}
}

func TestArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no such command":    {"frobnicate"},
		"short payload":      {"echo", "-size", "15"},
		"falling steps":      {"idle", "-steps", "10,5"},
		"unknown mode":       {"echo", "-mode", "raw,xml"},
		"short request":      {"echo", "-mode", "json", "-size", "100"},
		"none in flight":     {"echo", "-inflight", "1,0"},
		"unknown path":       {"echo", "-path", "tls"},
		"rate of nothing":    {"latency", "-rate", "4,"},
		"all slow":           {"slow", "-stalled", "50", "-trickle", "50"},
		"no room":            {"sim", "-steps", "10", "-rooms", "0"},
		"falling loops":      {"sim", "-steps", "10", "-loops", "4,1"},
		"all stalled":        {"fanout", "-stalled", "100"},
		"nothing to compare": {"latency", "-compare"},
		"empty rooms":        {"fanout", "-conns", "5", "-rooms", "6"},
		"parts of echo":      {"echo", "-procs", "2"},
		"no such load":       {"compare", "-load", "echo16,tango"},
		"no peers":           {"compare", "-peers-binary", "/nowhere/peers"},
		"no rooms":           {"fanout", "-rooms", "0"},
		"two uses of a tick": {"fanout", "-by-client", "-trickle", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, bench(t.Context(), args, new(bytes.Buffer)))
		})
	}
}
