//go:build linux

package workload

import (
	"context"
	"flag"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/result"
)

// LatencyCommand is the command latency.
var LatencyCommand = command.Command{
	Name:  "latency",
	About: "fanout -rate 4, for twice as long: time from publish to delivery",
	Help: `Publishes at a fixed rate and measures the time until each member has the message,
from when it was due: a publisher that is late does not make the figures better.`,
	Example: "bench latency -conns 10000 -rate 4,10,50",
	Procs:   true,
	New:     func() command.Runner { return newLatencyRun() },
}

// LatencyRun is fanout at a low rate.
type LatencyRun struct{ *FanoutRun }

func newLatencyRun() LatencyRun { return LatencyRun{NewFanoutRun()} }

// Flags implements command.Runner.
func (o LatencyRun) Flags(fs *flag.FlagSet) { o.roomFlags(fs) }

// Run implements command.Runner.
func (o LatencyRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	if o.Rates == "" {
		o.Rates = "4"
	}
	o.Duration *= 2
	tables, err := o.FanoutRun.Run(ctx, s)
	for _, t := range tables {
		t.Command = "latency" + t.Command[len("fanout"):]
	}
	return tables, err
}
