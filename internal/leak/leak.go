// Package leak fails the tests of a package if they leave goroutines or descriptors behind.
// Only tests use it.
package leak

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is the longest time that goroutines and descriptors may take to end.
const patience = time.Minute

// Main runs the tests and exits. Call it from TestMain.
func Main(m *testing.M) {
	// The runtime's network poller opens descriptors of its own with the first socket.
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
	}
	goroutines, descriptors := len(Goroutines()), Descriptors()
	code := m.Run()
	if code == 0 && !nothingLeft(goroutines, descriptors) {
		code = 1
	}
	os.Exit(code)
}

// nothingLeft waits until there are no more goroutines and descriptors than before. If they do
// not end, it prints the surplus and returns false.
func nothingLeft(goroutines, descriptors int) bool {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		if t, ok := http.DefaultTransport.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
		left, open := Goroutines(), Descriptors()
		if len(left) <= goroutines && open <= descriptors {
			return true
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "left over: %d goroutines (%d before), %d descriptors (%d before)\n%s\n",
				len(left), goroutines, open, descriptors, strings.Join(left, "\n\n"))
			return false
		}
	}
}

// Goroutines returns the stacks of all goroutines with two exceptions: the idle goroutines of
// gnet's worker pool, which may stay for the life of the process, and the goroutine that waits
// for signals, which never ends once a fuzz run has started it.
func Goroutines() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var ours []string
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		idle := strings.Contains(stack, "panjf2000/ants") &&
			!strings.Contains(stack, "qi-realtime/ws") && !strings.Contains(stack, "panjf2000/gnet/v2.(")
		if !idle && !strings.Contains(stack, "os/signal.loop") {
			ours = append(ours, stack)
		}
	}
	return ours
}

// Descriptors returns the number of open descriptors, 0 on systems where it is unknown.
func Descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
