package inspect_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/inspect"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/internal/race"
)

// With 100,000 clients in 100,000 rooms, no step of a walk takes a millisecond of CPU. A loop can
// wait for a step only: between two steps the walk holds no lock, and lets other goroutines run.
func TestStepsAreShort(t *testing.T) {
	conns := harness.FewerUnderRace(100_000)
	n := ws.NewSimnet()
	m := simulate(t, n, conns)
	joinRooms(t, m)
	h := inspect.Handler(m)
	limit := time.Millisecond
	if race.Enabled {
		limit *= 20 // as much slower is the code
	}
	var longest, total time.Duration
	runtime.LockOSThread() // so that the thread's time is the walk's
	defer runtime.UnlockOSThread()
	for _, target := range []string{
		"/api/clients", "/api/rooms", "/api/stats", "/api/history", "/api/client?address=192.0.2.1",
	} {
		// The collector may interrupt a step, and the host of a virtual machine the thread:
		// of several polls, the one with the shortest time counts.
		shortest := time.Hour
		for polls := 0; polls < 10 || shortest >= limit && polls < 200; polls++ {
			began, steps, last := cpuTime(t), time.Duration(0), cpuTime(t)
			inspect.OnStep(h, func() {
				now := cpuTime(t)
				steps, last = max(steps, now-last), now
			})
			get(t, h, target)
			end := cpuTime(t)
			shortest = min(shortest, max(steps, end-last))
			total = end - began
		}
		t.Logf("%-32s longest step %8v, in all %v", target, shortest, total)
		longest = max(longest, shortest)
	}
	assert.Less(t, longest, limit)
}

// Loops go on while a viewer polls without a pause: they answer messages, and clients connect and
// leave. The test reports times; TestStepsAreShort asserts CPU times, which do not depend on the
// other processes of the machine.
func TestLoopsGoOnWhileViewersPoll(t *testing.T) {
	conns := harness.FewerUnderRace(100_000)
	n := ws.NewSimnet()
	answered := make(chan time.Time, 1)
	n.OnFrame = func(peer int, frame []byte) {
		if peer == 0 && string(frame) == "\x81\x01x" {
			answered <- time.Now()
		}
	}
	m := simulate(t, n, conns)
	joinRooms(t, m)
	h := inspect.Handler(m)

	waited := lockWaits()
	stop := make(chan struct{})
	var viewers sync.WaitGroup
	var polls atomic.Int64
	viewers.Go(func() { // a page that asks without a pause
		for ; ; polls.Add(1) {
			select {
			case <-stop:
				return
			default:
				poll(h, "/api/stats", "/api/clients", "/api/rooms")
			}
		}
	})
	message := []byte(harness.Frame(1, "x"))
	request := []byte(harness.UpgradeRequest("/ws", ""))
	var slowest time.Duration
	for round := 0; round < 200 || polls.Load() < 20; round++ {
		began := time.Now()
		n.Send(0, message)
		slowest = max(slowest, harness.Receive(t, answered, "round %d is not answered", round).Sub(began))
		n.HangUp(n.Connect(1, request))
		n.Wait()
	}
	close(stop)
	viewers.Wait()
	waited = (lockWaits() - waited) / time.Duration(polls.Load())
	t.Logf("%d polls of %d clients, slowest answer of a loop %v, %v of waits for locks for each poll",
		polls.Load(), conns, slowest, waited)
	assert.GreaterOrEqual(t, m.GetClientCount(), conns)
}

// BenchmarkPoll measures one poll of each list at 100,000 clients in 100,000 rooms.
func BenchmarkPoll(b *testing.B) {
	n := ws.NewSimnet()
	m := simulate(b, n, 100_000)
	joinRooms(b, m)
	h := inspect.Handler(m)
	for _, target := range []string{"/api/stats", "/api/clients", "/api/rooms"} {
		b.Run("target="+target, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				poll(h, target)
			}
		})
	}
}

// poll asks for fresh results.
func poll(h http.Handler, targets ...string) {
	inspect.Expire(h)
	for _, target := range targets {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://localhost"+target, nil))
	}
}

// lockWaits returns the time that goroutines of the process have waited for mutexes.
func lockWaits() time.Duration {
	sample := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(sample)
	return time.Duration(sample[0].Value.Float64() * float64(time.Second))
}

// simulate runs a manager with clients on n.
func simulate(t testing.TB, n *ws.Simnet, conns int) *ws.Manager {
	t.Helper()
	m := harness.NewManager(t, ws.WithSimnet(n), func(c *ws.Config) { c.ListenAddr = "" },
		ws.WithHandlerMode(ws.Inline), ws.WithMaxConnections(2*conns), ws.WithCompression(ws.CompressionConfig{}),
		ws.WithHeartbeatInterval(time.Second), ws.WithHeartbeatTimeout(time.Hour))
	m.HandleRaw(harness.Echo)
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }()
	t.Cleanup(func() {
		harness.Shutdown(t, m)
		require.NoError(t, harness.Receive(t, ran, "Run did not return"))
	})
	n.Connect(conns, []byte(harness.UpgradeRequest("/ws", "")))
	n.Wait()
	require.Equal(t, conns, m.GetClientCount())
	for range 8 { // pings and pongs
		n.Advance(250 * time.Millisecond)
		n.Wait()
	}
	return m
}

// joinRooms puts each client into a room of its own, and publishes to some.
func joinRooms(t testing.TB, m *ws.Manager) {
	t.Helper()
	i := 0
	m.RangeClients(func(c *ws.Client) bool {
		require.NoError(t, c.JoinRoom(fmt.Sprint(i)))
		i++
		return true
	})
	for room := range 100 {
		require.NoError(t, m.BroadcastToRoom(fmt.Sprint(room), []byte("tick"), nil))
	}
}

// cpuTime returns the CPU time of the thread.
func cpuTime(t testing.TB) time.Duration {
	var ts unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts))
	return time.Duration(ts.Nano())
}
