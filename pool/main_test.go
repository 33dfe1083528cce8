package pool_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/qi-realtime/ws/pool"
)

// TestMain fails if the tests left goroutines or buffers.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 && !eventually(func() bool { return runtime.NumGoroutine() <= before }) {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		fmt.Fprintln(os.Stderr, "goroutines leaked")
		code = 1
	}
	if code == 0 && pool.Live() > 0 {
		fmt.Fprintln(os.Stderr, pool.Live(), "buffers leaked")
		code = 1
	}
	os.Exit(code)
}

// eventually waits for a condition, and gives up after a minute.
func eventually(condition func() bool) bool {
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		runtime.Gosched()
	}
	return true
}
