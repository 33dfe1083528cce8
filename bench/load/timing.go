//go:build linux

package load

import (
	"flag"
	"time"
)

// Timing says when a load is measured.
type Timing struct {
	Warmup, Duration time.Duration
	cpuprofile       string // file
}

// DefaultTiming returns the defaults of the flags.
func DefaultTiming() Timing { return Timing{Warmup: time.Second, Duration: DefaultDuration} }

// Flags declares -duration, -warmup and -cpuprofile.
func (t *Timing) Flags(fs *flag.FlagSet) {
	DurationFlag(fs, &t.Duration)
	WarmupFlag(fs, &t.Warmup)
	CPUProfileFlag(fs, &t.cpuprofile)
}

// DefaultDuration is the default of -duration.
const DefaultDuration = 5 * time.Second

// DurationFlag declares -duration.
func DurationFlag(fs *flag.FlagSet, duration *time.Duration) {
	fs.DurationVar(duration, "duration", *duration,
		"time to measure for, or to attack; latency and fair take twice as long")
}

// WarmupFlag declares -warmup.
func WarmupFlag(fs *flag.FlagSet, warmup *time.Duration) {
	fs.DurationVar(warmup, "warmup", *warmup, "time to run before measuring")
}

// CPUProfileFlag declares -cpuprofile.
func CPUProfileFlag(fs *flag.FlagSet, file *string) {
	fs.StringVar(file, "cpuprofile", *file, "write the server's CPU profile of the last row to `file`")
}
