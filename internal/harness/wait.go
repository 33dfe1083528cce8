package harness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience is the longest time that a test waits for one condition.
const Patience = time.Minute

// Holds waits until the condition holds, and reports whether it does.
func Holds(condition func() bool) bool {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(Patience); !condition(); <-poll.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// Eventually waits until the condition holds.
func Eventually(t testing.TB, condition func() bool, format string, args ...any) {
	t.Helper()
	if !Holds(condition) {
		require.Failf(t, "the condition never held", format, args...)
	}
}

// Receive takes one value from ch.
func Receive[T any](t testing.TB, ch <-chan T, format string, args ...any) T {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		require.Failf(t, "nothing received", format, args...)
		panic("not reached")
	}
}
