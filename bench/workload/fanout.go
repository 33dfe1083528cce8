//go:build linux

package workload

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// FanoutCommand is the command fanout.
var FanoutCommand = command.Command{
	Name:  "fanout",
	About: "deliveries per second to one room or many, at full speed or at a fixed rate",
	Help: `A publisher in the server, or a client with -by-client, sends to rooms of many
members at full speed: it keeps some publishes outstanding that not all members have
received. It counts deliveries a second, the server's CPU time and writes for each, and
the time to the last member; nothing may be missing, disordered or dropped.`,
	Example: "bench fanout -conns 10000 -sweep -html fanout.html",
	Procs:   true,
	New:     func() command.Runner { return NewFanoutRun() },
}

// FanoutRun is a run of fanout.
type FanoutRun struct {
	Conns, Size, rounds int
	Rooms, Outstanding  int
	Rates               string
	stalled, trickle    float64 // percent
	sweep, compare      bool
	placed              bool
	ByClient            bool
	load.Timing
}

// NewFanoutRun returns a run with the defaults of the flags.
func NewFanoutRun() *FanoutRun {
	return &FanoutRun{Size: 512, rounds: 1, Rooms: 1, Outstanding: 64, Timing: load.DefaultTiming()}
}

// Flags implements command.Runner.
func (o *FanoutRun) Flags(fs *flag.FlagSet) {
	o.roomFlags(fs)
	command.OutstandingFlag(fs, &o.Outstanding)
}

// roomFlags declares the flags that latency has, too.
func (o *FanoutRun) roomFlags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.Conns)
	command.SizeFlag(fs, &o.Size)
	command.RoundsFlag(fs, &o.rounds)
	command.RoomsFlag(fs, &o.Rooms)
	command.RatesFlag(fs, &o.Rates)
	command.SlowFlags(fs, &o.stalled, &o.trickle)
	command.ByClientFlag(fs, &o.ByClient)
	o.Timing.Flags(fs)
	fs.BoolVar(&o.sweep, "sweep", o.sweep, "fanout: 1, 4, 16 and 64 outstanding")
	fs.BoolVar(&o.placed, "placed", o.placed, "fanout, latency: the members of a room share an event loop (WithPlacement)")
	fs.BoolVar(&o.compare, "compare", o.compare,
		"fanout, latency: every round without and with the slow members, and the ratios")
}

// Validate implements command.Runner.
func (o *FanoutRun) Validate(s *command.Session) error {
	if s.Procs > 1 && o.compare {
		return errors.New("bench: -procs works without -compare")
	}
	if o.ByClient && o.trickle > 0 {
		return errors.New("bench: -by-client works without -trickle")
	}
	return cmp.Or(command.ValidSize(o.Size), command.AtLeast("-rounds", o.rounds, 1),
		command.AtLeast("-rooms", o.Rooms, 1),
		ValidOutstanding(o.Outstanding), command.ValidSlow(o.stalled, o.trickle, o.compare), command.ValidRates(o.Rates))
}

// ValidOutstanding checks -outstanding.
func ValidOutstanding(n int) error {
	if n < 1 || n >= seqWindow/2 {
		return fmt.Errorf("bench: -outstanding is %d, must be from 1 to %d", n, seqWindow/2-1)
	}
	return nil
}

// Run measures rooms at full speed, or at fixed rates.
func (o *FanoutRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.Conns, 10_000)
	if o.Rooms > o.Conns {
		return nil, fmt.Errorf("%d rooms need as many members, not %d: a smaller -rooms", o.Rooms, o.Conns)
	}
	t := &roomTest{FanoutRun: o, s: s}
	t.table = &result.Table{Command: "fanout", Title: "Fan-out at full speed", Columns: []result.Column{
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
	}, Charts: []result.Chart{{
		Kind: report.Bars, X: []string{"outstanding", "path", "members", "rooms", "trickling", "size"}, Series: "stalled",
		Y: []string{"per_second", "server_us", "writes"},
	}}}
	if o.Rates != "" {
		t.table.Title = "Fan-out at a fixed rate"
		t.table.Columns[5] = result.Column{"rate", "publishes/s", "%v"}
		t.table.Charts[0].X[0] = "rate"
		t.table.Charts[0].Y = []string{"server_us"}
		t.table.Charts = append([]result.Chart{{
			Kind: report.Percentiles, Title: "From publish to delivery",
			X: []string{"rate", "path", "members", "rooms", "stalled", "trickling", "size"},
			Y: []string{"p50_ms", "p90_ms", "p99_ms", "p999_ms", "p9999_ms"}, Axis: "ms",
		}}, t.table.Charts...)
	}
	o.nameClient(t.table)
	if err := o.addLoads(t); err != nil {
		return nil, err
	}
	return t.tables(ctx)
}

// nameClient says in the table that a client publishes, and how late it sends.
func (o *FanoutRun) nameClient(t *result.Table) {
	if !o.ByClient {
		return
	}
	t.Title += ", published by a client"
	if o.Rates != "" {
		t.Columns = append(t.Columns, result.Column{"late_p99_ms", "sent late p99 ms", "%.2f"})
	}
}

// addLoads adds the loads that the flags ask for.
func (o *FanoutRun) addLoads(t *roomTest) error {
	rates, err := command.RateList(o.Rates)
	if err != nil {
		return err
	}
	load := control.Command{Name: "publish", Size: o.Size, Rooms: o.Rooms}
	for _, load.Rate = range rates {
		t.loads = append(t.loads, roomLoad{load, fmt.Sprintf("%g publishes/s", load.Rate)})
	}
	if rates != nil {
		return nil
	}
	outstanding := []int{o.Outstanding}
	if o.sweep {
		outstanding = []int{1, 4, 16, 64}
	}
	for _, load.Outstanding = range outstanding {
		t.loads = append(t.loads, roomLoad{load, fmt.Sprintf("%d outstanding", load.Outstanding)})
	}
	return nil
}

func (o *FanoutRun) row(path string, r *room, c control.Command, w *outcome) []any {
	var load any = c.Outstanding
	if c.Rate > 0 {
		load = c.Rate
	}
	n := float64(max(w.Client.Messages, 1))
	row := []any{
		path, result.SumOf(o.Conns), result.SumOf(o.Rooms), result.SumOf(r.stalled), result.SumOf(r.trickling), load, c.Size,
		result.SumOf(w.PerSecond(w.Client.Messages)), result.MeanOf(w.ServerMicros(), n),
		result.MeanOf(result.Micros(w.Client.CPU)/n, n),
		result.MeanOf(w.PerMessage(float64(w.Server.Writes)), n),
		result.MeanOf(w.PerMessage(float64(w.Server.WriteCalls)), n),
		result.MillisOf(w.RTT, 0.5), result.MillisOf(w.RTT, 0.9), result.MillisOf(w.RTT, 0.99),
		result.MillisOf(w.RTT, 0.999), result.MillisOf(w.RTT, 0.9999),
		result.MillisOf(w.Last, 0.5), result.MillisOf(w.Last, 0.99), result.MillisOf(w.Last, 0.999),
		result.SumOf(w.missing), result.SumOf(w.disordered), result.SumOf(w.dropped), result.SumOf(w.rssGrowth),
	}
	if o.ByClient && c.Rate > 0 {
		row = append(row, result.MillisOf(w.Late, 0.99))
	}
	return row
}
