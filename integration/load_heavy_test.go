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
		t.Run(string(way), func(t *testing.T) { scenarioFanOut(t, way, scenarioConnections(t, 7000), 100) })
	}
}

func TestScenarioHeavyReconnectStorm(t *testing.T) {
	for _, way := range []harness.Way{harness.Native, harness.NetHTTP} {
		t.Run("the server closes, "+string(way), func(t *testing.T) { scenarioStorm(t, way, 2000, scenarioServerCloses) })
		t.Run("the clients reset, "+string(way), func(t *testing.T) { scenarioStorm(t, way, 2000, scenarioClientsReset) })
	}
}

func TestScenarioHeavyHostileClients(t *testing.T) { scenarioHostility(t, 100) }

func TestScenarioHeavyQuickCycles(t *testing.T) { scenarioCycles(t, 200) }

// Random operations for a minute, in runs with seeds of their own.
func TestScenarioHeavyRandomOperations(t *testing.T) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for _, queueBytes := range scenarioRandomBounds {
			scenarioRandomOnce(t, scenarioRandomPlan{
				seed: rand.Uint64(), workers: 8, clients: 64, operations: 5000, queueBytes: 2 * queueBytes,
			})
		}
		if t.Failed() {
			return
		}
	}
}

func scenarioRandomOnce(t *testing.T, plan scenarioRandomPlan) {
	t.Run(strconv.FormatUint(plan.seed, 10), func(t *testing.T) { scenarioRandom(t, plan) })
}

// scenarioClientEnv makes the test binary a client process: it holds the
// address of the server.
const scenarioClientEnv = "WS_SCENARIO_CLIENT"

// Not a test of its own: what the client process of TestScenarioHeavyMemory
// runs. It reads from its standard input how many connections to have, opens
// them, says so, and ends with its input.
func TestScenarioClientProcess(t *testing.T) {
	addr := os.Getenv(scenarioClientEnv)
	if addr == "" {
		t.Skip("run by TestScenarioHeavyMemory")
	}
	scenarioRaiseLimit(t)
	swarm := scenarioNewSwarm(t)
	have := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		require.NoError(t, err)
		for ; have < n; have++ {
			swarm.dial(addr, scenarioDial{})
		}
		_, _ = fmt.Fprintln(os.Stdout, "connected", have)
	}
}

// An idle connection costs little: the slope of heap and of resident memory
// between 2,000 and 14,000 connections, with the clients in another process.
func TestScenarioHeavyMemory(t *testing.T) {
	const few, many, heapBudget = 2000, 14_000, 800 // bytes: 700 and a margin
	s := scenarioStart(t, func(c *ws.Config) { c.Authenticate = nil })
	client := exec.Command(os.Args[0], "-test.run=^TestScenarioClientProcess$")
	client.Env = append(os.Environ(), scenarioClientEnv+"="+s.AddrOf(harness.Native))
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
		heap = float64(scenarioHeap())
		debug.FreeOSMemory()
		return heap, float64(scenarioRSS(t))
	}
	measure(few / 2) // what is made once exists now
	heap0, rss0 := measure(few)
	heap1, rss1 := measure(many)
	heap, rss := (heap1-heap0)/(many-few), (rss1-rss0)/(many-few)
	t.Logf("for each idle connection: %.0f B of heap, %.0f B of RSS", heap, rss)
	assert.LessOrEqual(t, heap, float64(heapBudget))
}

// scenarioRSS returns the resident memory of the process in bytes.
func scenarioRSS(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc")
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	require.NoError(t, err)
	return pages * os.Getpagesize()
}
