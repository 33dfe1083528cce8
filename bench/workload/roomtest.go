//go:build linux

package workload

import (
	"context"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// roomTest runs the loads of a fanout on rooms. Not safe for concurrent use.
type roomTest struct {
	*FanoutRun
	s     *command.Session
	table *result.Table
	loads []roomLoad
	steps int // begun
}

// roomLoad is one load and its name.
type roomLoad struct {
	control.Command
	name string
}

// step says which load begins: the rounds of -compare have two sides.
func (t *roomTest) step(load string) {
	sides := 1
	if t.compare {
		sides = 2
	}
	perRound := sides * len(t.loads)
	if t.steps == 0 {
		t.s.Progress.Expect(t.rounds*perRound, t.Warmup+t.Duration)
	}
	t.s.Progress.Step("%s %s, round %d of %d", t.table.Command, load, t.steps/perRound+1, t.rounds)
	t.steps++
}

// run opens a room and runs all loads on it, some rounds; each is a row.
func (t *roomTest) run(ctx context.Context, stalled, trickling float64, rounds int) ([]*outcome, error) {
	r, err := openRoom(ctx, t.s, roomSetup{
		conns: t.Conns, rooms: t.Rooms, size: t.Size, outstanding: t.Outstanding,
		ack: t.Rates == "", placed: t.placed, byClient: t.ByClient, stalled: stalled, trickling: trickling,
	})
	if err != nil {
		return nil, err
	}
	defer r.stop()
	var outs []*outcome
	for range rounds {
		for _, load := range t.loads {
			if err := t.s.Part.Together(); err != nil {
				return nil, err
			}
			t.step(load.name)
			w, err := r.publish(ctx, &t.Timing, load.Command)
			if err != nil {
				return nil, err
			}
			t.table.Add(t.row(t.s.Path, r, load.Command, w)...)
			outs = append(outs, w)
		}
	}
	return outs, nil
}

// tables runs the test, or with -compare both sides of it.
func (t *roomTest) tables(ctx context.Context) ([]*result.Table, error) {
	if t.compare {
		return t.compareSides(ctx)
	}
	if _, err := t.run(ctx, t.stalled, t.trickle, t.rounds); err != nil {
		return nil, err
	}
	return []*result.Table{t.table}, nil
}

// compareSides runs the test without and with slow members in turns, so that other
// work of the machine affects both, each time on a fresh server.
func (t *roomTest) compareSides(ctx context.Context) ([]*result.Table, error) {
	ratios := make([]ratios, len(t.loads))
	for range t.rounds {
		none, err := t.run(ctx, 0, 0, 1)
		if err != nil {
			return nil, err
		}
		stalled, err := t.run(ctx, t.stalled, t.trickle, 1)
		if err != nil {
			return nil, err
		}
		for i := range ratios {
			ratios[i].add(stalled[i].Window, none[i].Window)
		}
	}
	c := &result.Table{
		Command: t.table.Command + "-compare",
		Title:   "With slow members / without: the median of each round's ratio",
		Columns: []result.Column{
			{"load", "load", "%s"},
			{"stalled_percent", "stalled %", "%.1f"},
			{"trickling_percent", "trickling %", "%.1f"},
			{"rounds", "rounds", "%d"},
			{"server_us", "server µs/dlv", "%.3f"},
			{"per_second", "deliveries/s", "%.3f"},
			{"last_p50", "last member p50", "%.3f"},
			{"last_p99", "p99", "%.3f"},
		},
		Charts: []result.Chart{{
			Kind: report.Bars, Title: "Ratio, 1 is no difference", X: []string{"load"},
			Y: []string{"server_us", "per_second", "last_p50", "last_p99"}, Axis: "with / without",
		}},
	}
	for i, load := range t.loads {
		r := &ratios[i]
		c.Add(load.name, t.stalled, t.trickle, t.rounds, result.Median(r.cpu), result.Median(r.rate),
			result.Median(r.lastP50), result.Median(r.lastP99))
	}
	return []*result.Table{t.table, c}, nil
}

// ratios hold the ratios of one load, one for each round.
type ratios struct{ cpu, rate, lastP50, lastP99 []float64 }

// add takes one round's ratios a / b.
func (r *ratios) add(a, b *load.Window) {
	last := func(w *load.Window, q float64) float64 { return result.Micros(w.Last.Quantile(q)) }
	r.cpu = append(r.cpu, result.Ratio(a.ServerMicros(), b.ServerMicros()))
	r.rate = append(r.rate, result.Ratio(a.PerSecond(a.Client.Messages), b.PerSecond(b.Client.Messages)))
	r.lastP50 = append(r.lastP50, result.Ratio(last(a, 0.5), last(b, 0.5)))
	r.lastP99 = append(r.lastP99, result.Ratio(last(a, 0.99), last(b, 0.99)))
}
