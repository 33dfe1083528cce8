//go:build linux

package main

import (
	"context"
	"slices"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

// roomTest is what differs between the commands that load a room.
type roomTest struct {
	ack   bool // the members acknowledge
	table *table
	loads []roomLoad
	row   func(r *room, c control.Command, w *outcome) []any
	steps int // begun
}

// roomLoad is one load, and what to call it.
type roomLoad struct {
	control.Command
	name string
}

// step says which load begins: the rounds of -compare have two sides.
func (t *roomTest) step(o *options, load string) {
	sides := 1
	if o.compare {
		sides = 2
	}
	perRound := sides * len(t.loads)
	if t.steps == 0 {
		o.progress.expect(o.rounds*perRound, o.warmup+o.duration)
	}
	o.progress.step("%s %s, round %d of %d", t.table.command, load, t.steps/perRound+1, o.rounds)
	t.steps++
}

// run opens a room and runs all loads on it, some rounds; each is a row.
func (t *roomTest) run(ctx context.Context, o *options, setup roomSetup, rounds int) ([]*outcome, error) {
	setup.ack = t.ack
	r, err := openRoom(ctx, o, setup)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	var outs []*outcome
	for range rounds {
		for _, load := range t.loads {
			if err := o.part.together(); err != nil {
				return nil, err
			}
			t.step(o, load.name)
			w, err := r.publish(ctx, o, load.Command)
			if err != nil {
				return nil, err
			}
			t.table.add(t.row(r, load.Command, w)...)
			outs = append(outs, w)
		}
	}
	return outs, nil
}

// tables runs the test, or with -compare both sides of it.
func (t *roomTest) tables(ctx context.Context, o *options) ([]*table, error) {
	if o.compare {
		return t.compare(ctx, o)
	}
	if _, err := t.run(ctx, o, o.slowMembers(), o.rounds); err != nil {
		return nil, err
	}
	return []*table{t.table}, nil
}

// slowMembers are those that the flags ask for.
func (o *options) slowMembers() roomSetup { return roomSetup{stalled: o.stalled, trickling: o.trickle} }

// compare runs the test without and with slow members in turns, so that what
// else the machine does falls on both, each time on a fresh server.
func (t *roomTest) compare(ctx context.Context, o *options) ([]*table, error) {
	ratios := make([]ratios, len(t.loads))
	for range o.rounds {
		none, err := t.run(ctx, o, roomSetup{}, 1)
		if err != nil {
			return nil, err
		}
		stalled, err := t.run(ctx, o, o.slowMembers(), 1)
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
		c.add(load.name, o.stalled, o.trickle, o.rounds, median(r.cpu), median(r.rate), median(r.lastP50), median(r.lastP99))
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
