package engine_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/engine"
)

// cpuTime returns the CPU time of the process.
func cpuTime(b *testing.B) time.Duration {
	var ru unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &ru))
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// Loops whose connections block at the same time do not wait for each other: each
// has a poller of its own. The other figure is the cost with one for all.
func BenchmarkArm(b *testing.B) {
	const loops = 16
	for _, pollers := range []int{1, loops} {
		b.Run(fmt.Sprintf("loops=%d/pollers=%d", loops, pollers), func(b *testing.B) {
			p, err := engine.NewPollers(pollers, loops)
			require.NoError(b, err)
			defer p.Close()
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(loops) // for each CPU
			began := cpuTime(b)
			b.RunParallel(func(pb *testing.PB) {
				for n := int(next.Add(1)) % loops; pb.Next(); {
					if err := p.Arm(n); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
}
