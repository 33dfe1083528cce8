//go:build linux

package integration_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// The trouble of a random run disturbs the server beside the operations of the
// model: it holds event loops, ends the goroutines of handlers, opens
// connections that vanish, and takes descriptors.

// holds is the longest time for which a handler holds an event loop.
const holds = 10 * time.Millisecond

// registerTrouble adds the handlers that disturb.
func (r *randomRun) registerTrouble() {
	require.NoError(r.T, r.Register("hold", func(_ *ws.Client, msg *ws.Message) error {
		time.Sleep(holds * time.Duration(len(msg.Data)%8) / 8) //nolint:forbidigo // to hold a loop is the purpose
		return nil
	}, ws.RunInline()))
	require.NoError(r.T, r.Register("exit", func(*ws.Client, *ws.Message) error {
		runtime.Goexit()
		return nil
	}))
}

// trouble disturbs the server in one of several ways.
func (w *worker) trouble() {
	switch w.rnd.IntN(5) {
	case 0, 1:
		w.ask("hold", w.rnd.IntN(8))
	case 2:
		w.ask("exit", 0)
	case 3:
		w.vanish()
	default:
		w.takeDescriptors()
	}
}

// ask makes a witness send a request. Nobody reads the answer.
func (w *worker) ask(event string, n int) {
	witness := w.witnesses[w.rnd.IntN(len(w.witnesses))]
	_ = witness.send(gobwas.OpText, fmt.Appendf(nil, `{"type":"request","event":"%s","request_id":"1","data":"%0*d"}`,
		event, n, 0))
}

// vanish opens a connection and resets it: before, within or behind its upgrade
// request, or within a message.
func (w *worker) vanish() {
	fd, err := connectTCP(w.AddrOf(w.anyWay(w.rnd)), 0)
	if err != nil {
		return // no descriptors
	}
	defer func() {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Close(fd)
	}()
	request := harness.UpgradeRequest("/ws?"+queryOf(0, -1000), "")
	switch w.rnd.IntN(4) {
	case 0:
	case 1:
		_, _ = unix.Write(fd, []byte(request[:len(request)/2]))
	case 2:
		_, _ = unix.Write(fd, []byte(request))
	default:
		if _, err := handshake(fd, queryOf(0, -1000)); err == nil {
			frame := maskedFrame(gobwas.OpText, []byte(`{"type":"request","event":"exit"}`))
			_, _ = unix.Write(fd, append(frame, frame[:len(frame)/2]...))
		}
	}
}

// anyWay returns one of the ways to connect. HandleUpgrade refuses while
// descriptors are scarce.
func (r *randomRun) anyWay(rnd *rand.Rand) harness.Way {
	if r.scarce || rnd.IntN(2) == 0 {
		return harness.Native
	}
	return harness.NetHTTP
}

// takeDescriptors opens silent connections until the server has no descriptors for a moment, the
// first time for as long as it takes the server to see it. One worker at a time does so.
func (w *worker) takeDescriptors() {
	if !w.scarce || !w.crowd.TryLock() {
		return
	}
	defer w.crowd.Unlock()
	var crowd []int
	for range crowdSize {
		if fd, err := connectTCP(w.AddrOf(harness.Native), 0); err == nil {
			crowd = append(crowd, fd)
		}
	}
	soon(w.T, func() bool { return w.Stats().Accept.Descriptors.Times > 0 },
		"seed %d: descriptors do not run out", w.seed)
	time.Sleep(holds) //nolint:forbidigo // the server is to find no descriptor for a while
	for _, fd := range crowd {
		_ = unix.Close(fd)
	}
}

const (
	// few is the limit of descriptors of the run in which they are scarce:
	// the server's part of it is enough for the clients, and not for a crowd.
	few       = 240
	crowdSize = 50
	// fewChild is the environment variable that makes the test the process
	// with that limit.
	fewChild = "WS_TEST_RANDOM_FEW_DESCRIPTORS"
)

// The random operations again, in a process in which descriptors run out at
// times: connections wait then, and nothing is lost.
func TestScenarioRandomFewDescriptors(t *testing.T) {
	if os.Getenv(fewChild) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestScenarioRandomFewDescriptors$", "-test.v")
		cmd.Env = append(os.Environ(), fewChild+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS")
		t.Logf("%s", out)
		return
	}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: few}))
	randomOperations(t, randomPlan{
		seed: rand.Uint64(), workers: 6, clients: 36, operations: 1000, scarce: true,
	})
}
