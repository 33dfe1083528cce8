//go:build heavy && linux

package integration_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// As many in-process connections as a process of 20,000 descriptors holds.
func TestScenarioHeavyFanOut(t *testing.T) {
	for _, way := range []harness.Way{harness.Native, harness.NetHTTP} {
		t.Run(string(way), func(t *testing.T) { fanOut(t, way, connections(t, 7000), 100) })
	}
}

func TestScenarioHeavyReconnectStorm(t *testing.T) {
	for _, way := range []harness.Way{harness.Native, harness.NetHTTP} {
		t.Run("the server closes, "+string(way), func(t *testing.T) { reconnectStorm(t, way, 2000, serverCloses) })
		t.Run("the clients reset, "+string(way), func(t *testing.T) { reconnectStorm(t, way, 2000, clientsReset) })
	}
}

func TestScenarioHeavyHostileClients(t *testing.T) { hostility(t, 100) }

func TestScenarioHeavyQuickCycles(t *testing.T) { quickCycles(t, 200) }

// Random operations for half a minute, in runs with seeds of their own.
func TestScenarioHeavyRandomOperations(t *testing.T) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		for _, queueBytes := range randomBounds {
			randomOperationsOnce(t, randomPlan{
				seed: rand.Uint64(), workers: 8, clients: 64, operations: 5000, queueBytes: 2 * queueBytes,
			})
		}
		if t.Failed() {
			return
		}
	}
}

func randomOperationsOnce(t *testing.T, plan randomPlan) {
	t.Run(strconv.FormatUint(plan.seed, 10), func(t *testing.T) { randomOperations(t, plan) })
}

// clientEnv makes the test binary a client process: it holds the
// address of the server.
const clientEnv = "WS_SCENARIO_CLIENT"

// Not a test of its own: the client process of TestScenarioHeavyMemory. It reads from its standard
// input how many connections to have, opens them, says so, and ends with its input.
func TestScenarioClientProcess(t *testing.T) {
	addr := os.Getenv(clientEnv)
	if addr == "" {
		t.Skip("run by TestScenarioHeavyMemory")
	}
	raiseLimit(t)
	swarm := newSwarm(t)
	have := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		require.NoError(t, err)
		for ; have < n; have++ {
			swarm.dial(addr, dialOptions{})
		}
		_, _ = fmt.Fprintln(os.Stdout, "connected", have)
	}
}

// An idle connection costs little: the slope of heap and of resident memory
// between 2,000 and 14,000 connections, with the clients in another process.
func TestScenarioHeavyMemory(t *testing.T) {
	const few, many, heapBudget = 2000, 14_000, 800 // bytes: 700 and a margin
	s := startScenario(t, func(c *ws.Config) { c.Authenticate = nil })
	client := exec.Command(os.Args[0], "-test.run=^TestScenarioClientProcess$")
	client.Env = append(os.Environ(), clientEnv+"="+s.AddrOf(harness.Native))
	in, err := client.StdinPipe()
	require.NoError(t, err)
	out, err := client.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, client.Start())
	t.Cleanup(func() {
		_ = in.Close()
		assert.NoError(t, client.Wait())
	})
	answers := bufio.NewScanner(out)
	measure := func(n int) (heap, rss float64) {
		_, err := fmt.Fprintln(in, n)
		require.NoError(t, err)
		require.True(t, answers.Scan(), "the client process has ended")
		require.Equal(t, fmt.Sprint("connected ", n), answers.Text())
		harness.Eventually(t, func() bool { return s.GetClientCount() == n }, "%d clients", n)
		heap = float64(heapInUse())
		debug.FreeOSMemory()
		return heap, float64(residentBytes(t))
	}
	measure(few / 2) // objects that are made once exist now
	heap0, rss0 := measure(few)
	heap1, rss1 := measure(many)
	heap, rss := (heap1-heap0)/(many-few), (rss1-rss0)/(many-few)
	t.Logf("for each idle connection: %.0f B of heap, %.0f B of RSS", heap, rss)
	assert.LessOrEqual(t, heap, float64(heapBudget))
}

// residentBytes returns the resident memory of the process in bytes.
func residentBytes(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc")
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	require.NoError(t, err)
	return pages * os.Getpagesize()
}
