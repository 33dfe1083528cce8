//go:build linux && heavy

package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/attack"
)

// attackBounds are the costs that an attack may have in TestAttacks, beside the
// bounds that hold for all.
var attackBounds = map[string]struct {
	duration string             // longer than usual, if the attack needs it
	below    map[string]float64 // figures by their keys
}{
	"authstuck":  {duration: "3s"},
	"tlstrickle": {duration: "2s", below: map[string]float64{"newcomer_p50_ms": 500}},
	"requestid":  {below: map[string]float64{"heap_peak_mib": 64}},
	"logflood":   {below: map[string]float64{"log_lines": 1000}},
	"violator":   {below: map[string]float64{"sent_mib": 500}},
	"pings":      {below: map[string]float64{"sent_mib": 500}},
	"fragments":  {below: map[string]float64{"sent_mib": 500}},
}

// generalBounds are the costs that every attack may have.
var generalBounds = map[string]float64{
	"p99_ms":            2000, // but for saturating
	"p99_after_ms":      5000,
	"recovered_ms":      15_000, // the clients are gone and all is answered
	"heap_grown_mib":    8,
	"rss_grown_mib":     64,
	"descriptors_grown": 6,
}

// saturating are the attacks that take both cores of a small machine at their full
// size.
var saturating = []string{
	"hangup", "inflate-blocks", "inflate-ratio", "roomnames", "rooms", "manyrooms", "requestid",
	"violator", "logflood", "json-slices", "flood", "pings", "fragments",
}

// TestAttacks runs each attack, small and short, in about 40 s. Healthy clients
// lose nothing, and the server then holds as much as before. The bounds are
// wide: a library that lets an attacker cost others something exceeds them
// several times.
func TestAttacks(t *testing.T) {
	for _, name := range attack.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bounds := attackBounds[name]
			args := []string{"attack", "-only", name, "-share", "0.2", "-duration", "1s"}
			if bounds.duration != "" {
				args[len(args)-1] = bounds.duration
			}
			below := maps.Clone(generalBounds)
			if slices.Contains(saturating, name) {
				delete(below, "p99_ms")
			}
			maps.Copy(below, bounds.below)
			var row map[string]any
			for range 4 { // until no pause of the machine has added to a figure
				row = attackOnce(t, args)
				assertUnharmed(t, name, row)
				if within(row, below) {
					return
				}
			}
			for key, bound := range below {
				assert.Less(t, row[key], bound, key)
			}
		})
	}
}

// attackOnce runs one attack, and returns the figures of all tables.
func attackOnce(t *testing.T, args []string) map[string]any {
	t.Helper()
	row := make(map[string]any)
	for _, result := range runBench(t, args...) {
		require.Len(t, result.Rows, 1)
		maps.Copy(row, result.Rows[0])
	}
	grown := func(after, before string) float64 { return row[after].(float64) - row[before].(float64) }
	row["heap_grown_mib"] = grown("heap_after_mib", "heap_before_mib")
	row["rss_grown_mib"] = grown("rss_after_mib", "rss_before_mib")
	row["descriptors_grown"] = grown("descriptors", "descriptors_before")
	return row
}

// within reports whether the figures are below their bounds.
func within(row map[string]any, below map[string]float64) bool {
	for key, bound := range below {
		if v, ok := row[key].(float64); !ok || v >= bound {
			return false
		}
	}
	return true
}

// assertUnharmed asserts what holds for every attack, also if the machine pauses.
func assertUnharmed(t *testing.T, name string, row map[string]any) {
	t.Helper()
	assert.Greater(t, row["answered"], 0.0)
	assert.Zero(t, row["lost"], "requests without an answer")
	assert.Zero(t, row["closed"], "healthy clients: %s", row["reasons"])
	assert.Zero(t, row["disordered"])
	refused := 0.0
	if name == "authstuck" { // those that come while no slot is free may wait in vain
		refused = row["newcomers"].(float64) / 2
	}
	assert.LessOrEqual(t, row["refused"], refused, "newcomers: %s", row["reasons"])
}
