package control

import (
	"time"

	"golang.org/x/sys/unix"
)

// The clock that server and load generator share: CLOCK_MONOTONIC, which Go
// reads without a system call, and its value at our start.
var (
	clockStart = time.Now()
	clockBase  = func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic(err)
		}
		return ts.Nano()
	}()
)

// Now returns CLOCK_MONOTONIC in nanoseconds, the same in every process of the
// machine.
func Now() int64 { return clockBase + int64(time.Since(clockStart)) }

// CPUTime is the CPU time of this process, user and system.
func CPUTime() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
