package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// stallTime is a threshold. It is longer than other processes of a busy machine keep the
// processor from a callback, which would be a stall, too.
const stallTime = 500 * time.Millisecond

// stallServer is a server whose handler of the message "block" waits for release.
type stallServer struct {
	*server
	log     *syncBuffer
	stalls  chan engine.Stall
	entered chan struct{}
	release chan struct{}
}

// syncBuffer is a bytes.Buffer that goroutines may share.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// configure makes s a stallServer with that threshold.
func (s *stallServer) configure(threshold time.Duration) func(*engine.Config, *server) {
	s.log, s.stalls = new(syncBuffer), make(chan engine.Stall, 100)
	s.entered, s.release = make(chan struct{}, 1), make(chan struct{})
	return func(cfg *engine.Config, inner *server) {
		cfg.LoopStallThreshold = threshold
		cfg.Logger = slog.New(slog.NewTextHandler(s.log, nil))
		inner.onStall = func(st engine.Stall) { s.stalls <- st }
		inner.onMessage = s.onMessage
	}
}

func (s *stallServer) onMessage(p *peer, op codec.Opcode, payload []byte) {
	switch string(payload) {
	case "block":
		s.entered <- struct{}{}
		holdLoop(s.release)
	case "confuse":
		started := make(chan struct{})
		go func() { // ends with the test
			close(started)
			<-s.release
		}()
		<-started
		pprof.Do(context.Background(), pprof.Labels("handler", "mine"), func(context.Context) { holdLoop(s.release) })
	default:
		_ = p.conn.Send(engine.NewFrame(op, payload, engine.Handling{}))
	}
}

// holdLoop is a function whose name a test finds in a stack.
func holdLoop(release <-chan struct{}) { <-release }

// onBothNetworks runs a test with a client's connection: send sends a message, and echo waits
// for its echo, too.
func onBothNetworks(t *testing.T, threshold time.Duration,
	test func(t *testing.T, s *stallServer, send func(string), echo func()),
) {
	t.Run("gnet", func(t *testing.T) {
		s := new(stallServer)
		s.server = start(t, s.configure(threshold))
		c := s.dial()
		test(t, s, c.send, c.echo)
	})
	t.Run("simnet", func(t *testing.T) {
		s := new(stallServer)
		m := startSimnet(t, s.configure(threshold))
		s.server = m.server
		m.connect(1)
		send := func(payload string) { m.Send(0, []byte(frame(gobwas.OpText, payload))) }
		test(t, s, send, func() {
			send("echo")
			require.Equal(t, []string{"echo"}, m.take(0))
		})
	})
}

// A stall is logged once with the stack of the callback, counted once, and its length is known
// while it lasts and afterwards.
func TestStallIsReportedOnce(t *testing.T) {
	const threshold = stallTime
	onBothNetworks(t, threshold, func(t *testing.T, s *stallServer, send func(string), echo func()) {
		loop := s.peer(0).conn.Shard()
		began := time.Now()
		send("block")
		<-s.entered
		st := receiveStall(t, s)
		assert.Equal(t, loop.Index(), st.Loop)
		assert.GreaterOrEqual(t, st.Held, threshold)
		assert.LessOrEqual(t, st.Held, time.Since(began))
		assert.Contains(t, st.Stack, "holdLoop")
		assert.Contains(t, st.Stack, "watchdog_test.go:")
		assert.NotContains(t, st.Stack, "TestStallIsReportedOnce", "the stack of another goroutine")

		s.eventually(func() bool { return loop.Stats().LongestStall > 4*threshold }, "the length does not grow")
		close(s.release)
		echo()
		s.eventually(func() bool { return loop.Stats().LongestStall < time.Since(began) }, "too long")
		assert.EqualValues(t, 1, loop.Stats().Stalls)
		assert.Greater(t, loop.Stats().Busy, 4*threshold)
		assert.Empty(t, s.stalls)
		assert.Equal(t, 1, strings.Count(s.log.String(), "event loop"), s.log.String())
		assert.Contains(t, s.log.String(), `level=WARN msg="ws: event loop is held" loop=`)
		for _, other := range s.Shards() {
			if other != loop {
				assert.Zero(t, other.Stats().Stalls)
			}
		}
	})
}

func receiveStall(t *testing.T, s *stallServer) engine.Stall {
	t.Helper()
	select {
	case st := <-s.stalls:
		return st
	case <-time.After(patience):
		require.Fail(t, "no stall is reported")
		return engine.Stall{}
	}
}

// The stack is found although the handler has replaced the labels of the goroutine, and a
// goroutine with the same labels, which the handler has started, waits in the same way.
func TestStackOfTheRightGoroutine(t *testing.T) {
	onBothNetworks(t, stallTime, func(t *testing.T, s *stallServer, send func(string), _ func()) {
		defer close(s.release)
		send("confuse")
		st := receiveStall(t, s)
		assert.Contains(t, st.Stack, "holdLoop")
		assert.Contains(t, st.Stack, "pprof.Do")
	})
}

// Neither an idle loop nor one with much short work is a stall.
func TestNoStall(t *testing.T) {
	onBothNetworks(t, time.Second, func(t *testing.T, s *stallServer, _ func(string), echo func()) {
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			echo()
		}
		<-time.After(2 * time.Second) // an idle time is the subject of this test
		assert.Zero(t, s.sum().Stalls)
		assert.Zero(t, s.sum().LongestStall)
		assert.Empty(t, s.log.String())
	})
}

// sum returns the sum of the counters of all loops.
func (s *server) sum() (sum engine.ShardStats) {
	for _, sh := range s.Shards() {
		st := sh.Stats()
		sum.Add(&st)
	}
	return sum
}

// Without a threshold nobody looks.
func TestNoWatchdog(t *testing.T) {
	onBothNetworks(t, 0, func(t *testing.T, s *stallServer, send func(string), echo func()) {
		send("block")
		<-s.entered
		<-time.After(300 * time.Millisecond) // more than a tick
		close(s.release)
		echo()
		assert.Zero(t, s.sum().Stalls)
		assert.Greater(t, s.sum().Busy, 300*time.Millisecond, "time that a callback waits is time of the loop")
	})
}

// look is a step of TestJudgement: at a time in milliseconds, a callback of loop 0 begins or
// ends, or the watchdog looks.
type look struct {
	at   int
	what string
}

// The watchdog finds callbacks that run and those that have returned before it looked, and does
// not count time in which it could not look itself.
func TestJudgement(t *testing.T) {
	for _, test := range []struct {
		name    string
		looks   []look
		stalls  uint64
		longest int // ms
	}{
		{"short", steps("look 1000, begin 1001, look 1050, end 1099, look 1100, look 1150"), 0, 0},
		{"seen while it runs", steps("look 1000, begin 1001, look 1050, look 1100, look 1150, look 1200"), 1, 199},
		{"one look late at most", steps("look 1000, begin 1049, look 1050, look 1100, look 1150"), 1, 101},
		{"returned before the look", steps("look 1000, begin 1010, look 1050, look 1100, end 1140, look 1150"), 1, 130},
		{
			"counted once, with its whole length",
			steps("look 1000, begin 1001, look 1050, look 1100, look 1150, end 1190, look 1200, look 1250"), 1, 189,
		},
		{
			"twice in a row",
			steps("look 1000, begin 1000, look 1050, look 1100, end 1110, begin 1110, look 1150, look 1200, look 1250"),
			2, 140,
		},
		{"stopped in a short callback", steps("look 1000, begin 1001, look 9000, end 9001, look 9050"), 0, 0},
		{"stopped before it began", steps("look 1000, begin 8950, look 9000, end 9001, look 9050"), 0, 0},
		{"stopped again and again", steps("look 1000, begin 1001, look 2000, look 3000, end 3001, look 3050"), 0, 0},
		{
			"stopped in a stall",
			steps("look 1000, begin 1001, look 1050, look 9050, look 9100, look 9150, end 9151, look 9200"), 1, 150,
		},
		{"stopped, then a stall", steps("look 1000, begin 8950, look 9000, look 9050, look 9100, look 9150"), 1, 150},
		{"late looks of a busy process", steps("look 1000, begin 1001, look 1090, look 1180"), 1, 124},
		{"idle", steps("look 1000, look 1050, look 9000"), 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.LoopStallThreshold = 100 * time.Millisecond
			h := &server{t: t}
			s := engine.NewStalls(cfg, h, h)
			require.Equal(t, 50*time.Millisecond, s.Interval())
			for _, step := range test.looks {
				at := time.Duration(step.at) * time.Millisecond
				switch step.what {
				case "begin":
					s.Begin(0, at)
				case "end":
					s.End(0, at)
				default:
					s.Look(at)
				}
			}
			s.Wait()
			assert.Equal(t, test.stalls, s.Stats(0).Stalls)
			assert.Equal(t, time.Duration(test.longest)*time.Millisecond, s.Stats(0).LongestStall.Truncate(time.Millisecond))
			assert.Zero(t, s.Stats(1).Stalls)
		})
	}
}

func steps(text string) (looks []look) {
	for step := range strings.SplitSeq(text, ", ") {
		var l look
		if _, err := fmt.Sscanf(step, "%s %d", &l.what, &l.at); err != nil {
			panic(err)
		}
		looks = append(looks, l)
	}
	return looks
}

// TestStoppedProcessIsNoStall starts a process of its own with this test, whose loop is always in a
// short callback, and stops it several times for longer than the threshold.
func TestStoppedProcessIsNoStall(t *testing.T) {
	const child = "WS_TEST_STOPPED_SERVER"
	if os.Getenv(child) != "" {
		s := new(stallServer)
		s.server = start(t, s.configure(1500*time.Millisecond))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has done
		}()
		fmt.Println("listening", s.Addr())
		for !isClosed(ended) {
			onLoop(s.Shards()[0], func(*engine.Shard) { spin(20 * time.Millisecond) })
		}
		assert.Zero(t, s.sum().Stalls, s.log)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	readAddress(t, out)
	for range 3 {
		must(t, cmd.Process.Signal(unix.SIGSTOP))
		<-time.After(2 * time.Second)
		must(t, cmd.Process.Signal(unix.SIGCONT))
		<-time.After(200 * time.Millisecond)
	}
	must(t, in.Close())
	require.NoError(t, cmd.Wait(), "the child has counted stalls")
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// BenchmarkStack measures the profile and the search, with the longest pause of another
// goroutine meanwhile, beside runtime.Stack.
func BenchmarkStack(b *testing.B) {
	for _, goroutines := range []int{100, 10_000} {
		for _, way := range []struct {
			name string
			take func() int
		}{
			{"profile", func() int { return len(engine.GoroutineProfile()) }},
			{"runtime.Stack", func() int { return runtime.Stack(make([]byte, 16<<20), true) }},
		} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", way.name, goroutines), func(b *testing.B) {
				release := make(chan struct{})
				var waiting sync.WaitGroup
				for range goroutines {
					waiting.Go(func() { holdLoop(release) })
				}
				pauses := watchPauses()
				for b.Loop() {
					require.Positive(b, way.take())
				}
				b.ReportMetric(float64(pauses())/1e6, "longest-pause-ms")
				close(release)
				waiting.Wait()
			})
		}
	}
}

// watchPauses returns a function that returns the longest time in which a running goroutine did
// not run since.
func watchPauses() (longest func() time.Duration) {
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last := engine.Monotonic(); !isClosed(done); {
			now := engine.Monotonic()
			most, last = max(most, now-last), now
		}
		result <- most
	}()
	return func() time.Duration { close(done); return <-result }
}
