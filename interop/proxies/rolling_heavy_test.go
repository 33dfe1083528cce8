//go:build heavy

package proxies_test

import (
	"testing"
	"time"
)

// TestRollingRestartHeavy is TestRollingRestart with 5,000 clients, and a window that gives the first
// server's half of them a pace of 83 a second, and the second server's 5,000 one of 167.
func TestRollingRestartHeavy(t *testing.T) {
	r := rollout{
		clients: 5000, grace: 2 * time.Second, window: 30 * time.Second, settle: 3 * time.Second,
		every: 5 * time.Second, tolerance: 0.2,
	}
	program := buildService(t)
	for _, p := range products {
		t.Run(p.name, func(t *testing.T) { r.run(t, program, p) })
	}
}
