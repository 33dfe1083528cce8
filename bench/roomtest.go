//go:build linux

package main

import (
	"context"
	"slices"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

// roomTest runs the loads of a fanout on rooms. Not safe for concurrent use.
type roomTest struct {
	*fanoutRun
	s     *session
	table *table
	loads []roomLoad
	steps int // begun
}

// roomLoad is one load, and what to call it.
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
		t.s.progress.expect(t.rounds*perRound, t.warmup+t.duration)
	}
	t.s.progress.step("%s %s, round %d of %d", t.table.command, load, t.steps/perRound+1, t.rounds)
	t.steps++
}

// run opens a room and runs all loads on it, some rounds; each is a row.
func (t *roomTest) run(ctx context.Context, stalled, trickling float64, rounds int) ([]*outcome, error) {
	r, err := openRoom(ctx, t.s, roomSetup{
		conns: t.conns, rooms: t.rooms, size: t.size, outstanding: t.outstanding,
		ack: t.rates == "", stalled: stalled, trickling: trickling,
	})
	if err != nil {
		return nil, err
	}
	defer r.stop()
	var outs []*outcome
	for range rounds {
		for _, load := range t.loads {
			if err := t.s.part.together(); err != nil {
				return nil, err
			}
			t.step(load.name)
			w, err := r.publish(ctx, &t.timing, load.Command)
			if err != nil {
				return nil, err
			}
			t.table.add(t.row(t.s.path, r, load.Command, w)...)
			outs = append(outs, w)
		}
	}
	return outs, nil
}

// tables runs the test, or with -compare both sides of it.
func (t *roomTest) tables(ctx context.Context) ([]*table, error) {
	if t.compare {
		return t.compareSides(ctx)
	}
	if _, err := t.run(ctx, t.stalled, t.trickle, t.rounds); err != nil {
		return nil, err
	}
	return []*table{t.table}, nil
}

// compareSides runs the test without and with slow members in turns, so that what
// else the machine does falls on both, each time on a fresh server.
func (t *roomTest) compareSides(ctx context.Context) ([]*table, error) {
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
			ratios[i].add(stalled[i].window, none[i].window)
		}
	}
	c := &table{
		command: t.table.command + "-compare",
		title:   "With slow members / without: the median of each round's ratio",
		columns: []column{
			{"load", "load", "%s"},
			{"stalled_percent", "stalled %", "%.1f"},
			{"trickling_percent", "trickling %", "%.1f"},
			{"rounds", "rounds", "%d"},
			{"server_us", "server µs/dlv", "%.3f"},
			{"per_second", "deliveries/s", "%.3f"},
			{"last_p50", "last member p50", "%.3f"},
			{"last_p99", "p99", "%.3f"},
		},
		charts: []chart{{
			Kind: report.Bars, Title: "Ratio, 1 is no difference", X: []string{"load"},
			Y: []string{"server_us", "per_second", "last_p50", "last_p99"}, Axis: "with / without",
		}},
	}
	for i, load := range t.loads {
		r := &ratios[i]
		c.add(load.name, t.stalled, t.trickle, t.rounds, median(r.cpu), median(r.rate), median(r.lastP50), median(r.lastP99))
	}
	return []*table{t.table, c}, nil
}

// ratios are those of one load, one for each round.
type ratios struct{ cpu, rate, lastP50, lastP99 []float64 }

// add takes one round's ratios a / b.
func (r *ratios) add(a, b *window) {
	last := func(w *window, q float64) float64 { return micros(w.last.quantile(q)) }
	r.cpu = append(r.cpu, ratio(a.serverMicros(), b.serverMicros()))
	r.rate = append(r.rate, ratio(a.perSecond(a.client.messages), b.perSecond(b.client.messages)))
	r.lastP50 = append(r.lastP50, ratio(last(a, 0.5), last(b, 0.5)))
	r.lastP99 = append(r.lastP99, ratio(last(a, 0.99), last(b, 0.99)))
}

// ratio is a / b, or 0 if there is none.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// median returns the middle value, or the mean of the middle two.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
