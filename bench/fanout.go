//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var fanoutCommand = command{
	name:  "fanout",
	about: "deliveries per second to one room or many, at full speed or at a fixed rate",
	help: `A publisher in the server sends to rooms of many members at full speed: it keeps
some publishes outstanding that not all members have received. It counts
deliveries a second, the server's CPU time and writes for each, and the time to
the last member; nothing may be missing, disordered or dropped.`,
	example: "bench fanout -conns 10000 -sweep -html fanout.html",
	procs:   true,
	new:     func() runner { return newFanoutRun() },
}

// fanoutRun is a run of fanout.
type fanoutRun struct {
	conns, size, rounds int
	rooms, outstanding  int
	rates               string
	stalled, trickle    float64 // percent
	sweep, compare      bool
	timing
}

func newFanoutRun() *fanoutRun {
	return &fanoutRun{size: 512, rounds: 1, rooms: 1, outstanding: 64, timing: defaultTiming()}
}

func (o *fanoutRun) flags(fs *flag.FlagSet) {
	o.roomFlags(fs)
	outstandingFlag(fs, &o.outstanding)
}

// roomFlags declares the flags that latency has, too.
func (o *fanoutRun) roomFlags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
	roomsFlag(fs, &o.rooms)
	ratesFlag(fs, &o.rates)
	slowFlags(fs, &o.stalled, &o.trickle)
	o.timing.flags(fs)
	fs.BoolVar(&o.sweep, "sweep", o.sweep, "fanout: 1, 4, 16 and 64 outstanding")
	fs.BoolVar(&o.compare, "compare", o.compare, "fanout, latency: every round without and with the slow members, and the ratios")
}

func (o *fanoutRun) validate(s *session) error {
	if s.procs > 1 && o.compare {
		return errors.New("bench: -procs works without -compare")
	}
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1), atLeast("-rooms", o.rooms, 1),
		validOutstanding(o.outstanding), validSlow(o.stalled, o.trickle, o.compare), validRates(o.rates))
}

// validOutstanding checks -outstanding.
func validOutstanding(n int) error {
	if n < 1 || n >= seqWindow/2 {
		return fmt.Errorf("bench: -outstanding is %d, must be from 1 to %d", n, seqWindow/2-1)
	}
	return nil
}

// run measures rooms at full speed, or at fixed rates.
func (o *fanoutRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.setDefaults(&o.conns, 10_000)
	if o.rooms > o.conns {
		return nil, fmt.Errorf("%d rooms need as many members, not %d: a smaller -rooms", o.rooms, o.conns)
	}
	t := &roomTest{fanoutRun: o, s: s}
	t.table = &table{command: "fanout", title: "Fan-out at full speed", columns: []column{
		{"path", "path", "%s"},
		{"members", "members", "%d"},
		{"rooms", "rooms", "%d"},
		{"stalled", "stalled", "%d"},
		{"trickling", "trickling", "%d"},
		{"outstanding", "outstanding", "%v"},
		{"size", "bytes", "%d"},
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"client_us", "client µs/dlv", "%.2f"},
		{"writes", "writes/dlv", "%.3f"},
		{"write_calls", "by the kernel", "%.3f"},
		{"p50_ms", "p50 ms", "%.1f"},
		{"p90_ms", "", "%.3f"},
		{"p99_ms", "p99 ms", "%.1f"},
		{"p999_ms", "p99.9 ms", "%.1f"},
		{"p9999_ms", "", "%.3f"},
		{"last_p50_ms", "last member p50 ms", "%.1f"},
		{"last_p99_ms", "p99 ms", "%.1f"},
		{"last_p999_ms", "p99.9 ms", "%.1f"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
		{"dropped", "dropped", "%d"},
		{"rss_growth_bytes", "RSS growth B", "%d"},
	}, charts: []chart{{
		Kind: report.Bars, X: []string{"outstanding", "path", "members", "rooms", "trickling", "size"}, Series: "stalled",
		Y: []string{"per_second", "server_us", "writes"},
	}}}
	if o.rates != "" {
		t.table.title = "Fan-out at a fixed rate"
		t.table.columns[5] = column{"rate", "publishes/s", "%v"}
		t.table.charts[0].X[0] = "rate"
		t.table.charts[0].Y = []string{"server_us"}
		t.table.charts = append([]chart{{
			Kind: report.Percentiles, Title: "From publish to delivery", X: []string{"rate", "path", "members", "rooms", "stalled", "trickling", "size"},
			Y: []string{"p50_ms", "p90_ms", "p99_ms", "p999_ms", "p9999_ms"}, Axis: "ms",
		}}, t.table.charts...)
	}
	if err := o.addLoads(t); err != nil {
		return nil, err
	}
	return t.tables(ctx)
}

// addLoads adds the loads that the flags ask for.
func (o *fanoutRun) addLoads(t *roomTest) error {
	rates, err := rateList(o.rates)
	if err != nil {
		return err
	}
	load := control.Command{Name: "publish", Size: o.size, Rooms: o.rooms}
	for _, load.Rate = range rates {
		t.loads = append(t.loads, roomLoad{load, fmt.Sprintf("%g publishes/s", load.Rate)})
	}
	if rates != nil {
		return nil
	}
	outstanding := []int{o.outstanding}
	if o.sweep {
		outstanding = []int{1, 4, 16, 64}
	}
	for _, load.Outstanding = range outstanding {
		t.loads = append(t.loads, roomLoad{load, fmt.Sprintf("%d outstanding", load.Outstanding)})
	}
	return nil
}

func (o *fanoutRun) row(path string, r *room, c control.Command, w *outcome) []any {
	var load any = c.Outstanding
	if c.Rate > 0 {
		load = c.Rate
	}
	n := float64(max(w.client.messages, 1))
	return []any{
		path, sumOf(o.conns), sumOf(o.rooms), sumOf(r.stalled), sumOf(r.trickling), load, c.Size,
		sumOf(w.perSecond(w.client.messages)), meanOf(w.serverMicros(), n), meanOf(micros(w.client.cpu)/n, n),
		meanOf(w.perMessage(float64(w.server.Writes)), n), meanOf(w.perMessage(float64(w.server.WriteCalls)), n),
		millisOf(w.rtt, 0.5), millisOf(w.rtt, 0.9), millisOf(w.rtt, 0.99), millisOf(w.rtt, 0.999), millisOf(w.rtt, 0.9999),
		millisOf(w.last, 0.5), millisOf(w.last, 0.99), millisOf(w.last, 0.999),
		sumOf(w.missing), sumOf(w.disordered), sumOf(w.dropped), sumOf(w.rssGrowth),
	}
}
