//go:build heavy && linux

package integration_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"runtime/debug"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// aloneEnv is set in the process of a test that runs alone.
const aloneEnv = "WS_SCENARIO_ALONE"

// alone runs the test in a process of its own, since how much memory one
// takes depends on the tests that ran in it before. It reports true there.
func alone(t *testing.T) bool {
	if os.Getenv(aloneEnv) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), aloneEnv+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "it did not run")
	return false
}

// Messages that no two clients share, for 2,000 clients that read nothing: the live heap that they
// take stays within the budget and a tenth, and the memory of the process within the budget and a
// fifth. Dropped memory that the collector has not freed yet comes on top, at the peak, which is
// logged: that is the collector's pace, with a limit as GOMEMLIMIT sets it.
func TestScenarioHeavyQueueBudget(t *testing.T) {
	if !alone(t) {
		return
	}
	const clients, budget, size, each = 2000, 64 << 20, 1024, 150 // 300 MiB on offer
	s := startScenario(t, ws.WithQueueBudget(budget), ws.WithMessageQueueSize(1<<20), ws.WithQueueBytes(1<<30))
	swarm := newSwarm(t)
	var filled atomic.Bool
	var heard atomic.Int64 // messages behind "filled"
	swarm.dial(s.AddrOf(harness.Native), dialOptions{
		query: queryOf(0, 0), onMessage: func(p []byte) {
			if filled.Load() {
				heard.Add(1)
			} else if string(p) == "filled" {
				filled.Store(true)
			}
		},
	})
	hc := serverSide(s, queryOf(0, 0))
	for i := range clients {
		swarm.dial(s.AddrOf(harness.Native), dialOptions{query: queryOf(0, i+1), mute: true, recvBuf: 4096})
	}
	var stalled []*ws.Client
	s.RangeClients(func(c *ws.Client) bool {
		require.NoError(t, c.JoinRoom("all"))
		if c != hc {
			stalled = append(stalled, c)
		}
		return true
	})
	payload := make([]byte, size)
	for n := uint64(0); s.Stats().Total.Blocked < clients; n++ { // fill the sockets
		require.Less(t, n, uint64(20_000), "the sockets do not fill")
		delivery, err := s.Publish("all", payload, ws.ConflateKey("one waits at most"))
		require.NoError(t, err)
		<-delivery.Done()
	}
	require.NoError(t, hc.SendBytes([]byte("filled")))
	harness.Eventually(t, filled.Load, "the healthy client")
	heapBefore := heapInUse()
	debug.FreeOSMemory()
	before := residentBytes(t)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(before + budget)))

	sent, peak := int64(0), before
	for n := range each {
		for i, c := range stalled {
			binary.BigEndian.PutUint64(payload, uint64(n*clients+i))
			_ = c.SendBytes(payload)
			if i%100 == 0 {
				require.NoError(t, hc.SendBytes(payload), "a sender to a healthy client notices")
				sent++
			}
		}
		peak = max(peak, residentBytes(t))
		harness.Eventually(t, func() bool { return heard.Load() == sent }, "the healthy client")
		require.LessOrEqual(t, s.Stats().Total.QueuedMemory, int64(budget+budget/100))
	}
	stats := s.Stats().Total
	heap := int64(heapInUse()) - int64(heapBefore)
	debug.FreeOSMemory()
	after := residentBytes(t)
	t.Logf("budget %d MiB, held %d MiB, dropped %d; the heap grew by %d MiB, RSS by %d MiB, at the peak by %d MiB",
		budget>>20, stats.QueuedMemory>>20, stats.Drops.Budget, heap>>20, (after-before)>>20, (peak-before)>>20)
	assert.Positive(t, stats.Drops.Budget)
	assert.Greater(t, stats.QueuedMemory, int64(budget*3/4), "the budget is used")
	assert.LessOrEqual(t, heap, int64(budget*11/10))
	assert.LessOrEqual(t, after-before, budget*12/10)
}
