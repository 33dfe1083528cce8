//go:build linux

package main

import (
	"context"
	"flag"
)

var latencyCommand = command{
	name:  "latency",
	about: "fanout -rate 4, for twice as long: time from publish to delivery",
	help: `Publishes at a fixed rate and measures the time until each member has the message,
from when it was due: a publisher that is late does not make the figures better.`,
	example: "bench latency -conns 10000 -rate 4,10,50",
	procs:   true,
	new:     func() runner { return newLatencyRun() },
}

// latencyRun is fanout at a low rate.
type latencyRun struct{ *fanoutRun }

func newLatencyRun() latencyRun { return latencyRun{newFanoutRun()} }

func (o latencyRun) flags(fs *flag.FlagSet) { o.roomFlags(fs) }

func (o latencyRun) run(ctx context.Context, s *session) ([]*table, error) {
	if o.rates == "" {
		o.rates = "4"
	}
	o.duration *= 2
	tables, err := o.fanoutRun.run(ctx, s)
	for _, t := range tables {
		t.command = "latency" + t.command[len("fanout"):]
	}
	return tables, err
}
