package integration_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

const (
	// neighborChild is the environment variable that makes a test the server: the
	// address of an echo server.
	neighborChild = "WS_TEST_NEIGHBOR"
	// roundTrips is the number of round trips of one measurement.
	roundTrips = 100
	// quick is a time within which 9 of 10 round trips end, on a busy machine now and then:
	// a quiet one takes 0.1 ms. If waiting loops keep all of Go's processors, they take 8 ms.
	quick = 5 * time.Millisecond
)

// A goroutine of the application that asks another server gets its answer at once, while
// the event loops have a few messages each millisecond.
func TestOtherGoroutinesDoNotWaitForTheLoops(t *testing.T) {
	answers := echoServer(t)
	in, from := startChild(t, "TestNeighborServer", &scarceLog{}, neighborChild+"="+answers, "GOMAXPROCS=")
	var addr string
	_, err := fmt.Fscan(from, &addr)
	require.NoError(t, err)
	chat(t, addr, 20, 100)

	var took time.Duration
	var messages int
	for deadline := time.Now().Add(harness.Patience); ; {
		_, err = fmt.Fprintln(in)
		require.NoError(t, err)
		_, err = fmt.Fscan(from, &took, &messages)
		require.NoError(t, err)
		if took < quick && messages > roundTrips {
			return
		}
		require.True(t, time.Now().Before(deadline),
			"one of ten round trips takes more than %v, beside %d messages", took, messages)
	}
}

// TestNeighborServer is the server process: for each line of its input it measures round
// trips to the echo server beside its clients, and counts their messages meanwhile.
func TestNeighborServer(t *testing.T) {
	answers := os.Getenv(neighborChild)
	if answers == "" {
		t.Skip("is started by other tests")
	}
	m, err := ws.NewManager(ws.WithListenAddr("127.0.0.1:0"), ws.WithAllowAllOrigins(), ws.WithHandlerMode(ws.Inline))
	require.NoError(t, err)
	m.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload) })
	ran := make(chan error, 1)
	go func() { ran <- m.Run() }()
	fmt.Println(m.Addr()) // waits for the start
	c, err := net.Dial("tcp", answers)
	require.NoError(t, err)
	b := make([]byte, 64)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		before := m.Stats().Total.MessagesIn
		took := make([]time.Duration, roundTrips)
		for i := range took {
			began := time.Now()
			_, err = c.Write(b)
			require.NoError(t, err)
			_, err = io.ReadFull(c, b)
			require.NoError(t, err)
			took[i] = time.Since(began)
			<-time.After(2 * time.Millisecond)
		}
		slices.Sort(took)
		fmt.Println(took[roundTrips*9/10].Nanoseconds(), m.Stats().Total.MessagesIn-before)
	}
	require.NoError(t, m.Shutdown(t.Context()))
	require.NoError(t, <-ran)
}

// echoServer serves one connection after the other, and returns its address.
func echoServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// chat connects clients that send rate messages a second each, and read the answers,
// until the test ends.
func chat(t *testing.T, addr string, clients, rate int) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	t.Cleanup(func() {
		close(stop)
		all.Wait()
	})
	for range clients {
		c, _, _, err := gobwas.Dial(t.Context(), "ws://"+addr+"/ws")
		require.NoError(t, err)
		all.Go(func() { _, _ = io.Copy(io.Discard, c) })
		all.Go(func() {
			defer c.Close()
			tick := time.NewTicker(time.Second / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					_ = wsutil.WriteClientText(c, []byte("hello"))
				}
			}
		})
	}
}

// Run raises GOMAXPROCS by one, unless the process has decided otherwise, and takes it back.
func TestRunKeepsAProcessorForOthers(t *testing.T) {
	for name, test := range map[string]struct {
		env   string
		keep  bool
		loops int
		more  int
	}{
		"default":             {more: 1},
		"more loops":          {loops: 64, more: 1},
		"kept":                {keep: true},
		"kept by environment": {env: fmt.Sprint(runtime.GOMAXPROCS(0))},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestProcessorServer$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%t %d", processorChild, test.keep, test.loops),
				"GOMAXPROCS="+test.env)
			out, err := cmd.Output()
			require.NoError(t, err)
			var before, during, beside, loops, after, set int
			_, err = fmt.Sscan(string(out), &before, &during, &loops, &beside, &after, &set)
			require.NoError(t, err, "%s", out)
			assert.Equal(t, before+test.more, during, "while a manager runs")
			assert.Equal(t, before+test.more, beside, "while two run")
			assert.Equal(t, before, loops, "loops of another manager")
			assert.Equal(t, before, after, "in the end")
			assert.Equal(t, before+5, set, "in the end, if the process has set it meanwhile")
		})
	}
}

// processorChild is the environment variable that makes a test the process of
// TestProcessorServer: KeepGOMAXPROCS and Loops.
const processorChild = "WS_TEST_PROCESSORS"

// TestProcessorServer prints GOMAXPROCS before, while and after a manager runs, with the
// default number of loops meanwhile, and GOMAXPROCS while two managers run. Then it sets
// GOMAXPROCS while one runs, and prints it after that.
func TestProcessorServer(t *testing.T) {
	setting := os.Getenv(processorChild)
	if setting == "" {
		t.Skip("is started by other tests")
	}
	var keep bool
	var loops int
	_, err := fmt.Sscan(setting, &keep, &loops)
	require.NoError(t, err)
	start := func(loops int) (*ws.Manager, func()) {
		m, err := ws.NewManager(ws.WithListenAddr("127.0.0.1:0"), ws.WithKeepGOMAXPROCS(keep), ws.WithLoops(loops))
		require.NoError(t, err)
		ran := make(chan error, 1)
		go func() { ran <- m.Run() }()
		m.Addr() // waits for the start
		return m, func() {
			require.NoError(t, m.Shutdown(t.Context()))
			require.NoError(t, <-ran)
		}
	}
	before := runtime.GOMAXPROCS(0)
	_, stop := start(loops)
	during := runtime.GOMAXPROCS(0)
	other, stopOther := start(0)
	fmt.Println(before, during, len(other.Stats().Loops), runtime.GOMAXPROCS(0))
	stop()
	stopOther()
	fmt.Println(runtime.GOMAXPROCS(0))
	_, stop = start(loops)
	runtime.GOMAXPROCS(before + 5)
	stop()
	fmt.Println(runtime.GOMAXPROCS(0))
}
