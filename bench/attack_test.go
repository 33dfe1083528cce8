//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAttack asserts that an attack, its healthy clients and its newcomers are
// measured, on each path.
func TestAttack(t *testing.T) {
	for name, args := range map[string][]string{
		"native":   {"-only", "garbage,ratelimit"},
		"http":     {"-only", "garbage,closers", "-path", "http"},
		"TLS":      {"-only", "garbage,flood", "-tls"},
		"TLS http": {"-only", "tlstrickle,fragments", "-path", "http"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := runBench(t, append([]string{"attack", "-share", "0.1", "-duration", "1s"}, args...)...)
			require.Len(t, results, 3)
			for i := range 2 {
				clients, server, attackers := results[0].Rows[i], results[1].Rows[i], results[2].Rows[i]
				assert.Zero(t, clients["lost"])
				assert.Zero(t, clients["closed"], clients["reasons"])
				for _, key := range []string{"answered", "newcomers", "p50_before_ms", "p99_ms", "p50_after_ms"} {
					assert.Greater(t, clients[key], 0.0, key)
				}
				assert.GreaterOrEqual(t, server["rss_peak_mib"], server["rss_before_mib"])
				assert.GreaterOrEqual(t, server["descriptors_before"], 20.0)
				assert.Greater(t, attackers["connects"], 0.0)
				assert.Greater(t, attackers["sent_mib"], 0.0)
			}
		})
	}
}

func TestAttackArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no such attack": {"-only", "hangup,hug"},
		"no clients":     {"-share", "0"},
		"too many":       {"-share", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, bench(t.Context(), append([]string{"attack"}, args...), nil), "bench: "+args[0])
		})
	}
}
