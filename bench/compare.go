//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// compareLimit is how long one run may take beyond the time that is measured.
// A server that hangs is killed then.
const compareLimit = 2 * time.Minute

// compareLoad is a load that all libraries are given. run is a command's
// function: it runs it once, on a fresh server, with the options that set has
// changed. Its last table's last row has the figures.
type compareLoad struct {
	name, about string
	measures    []measure // two or more
	set         func(o *options)
	run         func(context.Context, *options) ([]*table, error)
	only        string  // the one peer that has it, or "" for all
	due         float64 // messages a second for each connection at a fixed rate, or 0
}

// measure is a figure by which libraries are compared.
type measure struct {
	key, name string // of the row, and for people
	more      bool   // is better
}

var (
	byRate   = measure{"per_second", "messages/s", true}
	byCPU    = measure{"server_us", "server µs/message", false}
	byP99    = measure{"p99_us", "p99 µs", false}
	byRSS    = measure{"rss_bytes", "RSS B/connection", false}
	byHeap   = measure{"heap_bytes", "heap B/connection", false}
	byAccept = measure{"accept_us", "accept and upgrade µs", false}
	byGrowth = measure{"growth_mib", "RSS growth MiB", false}
)

// compareLoads are in the order in which they run. The load's table has
// the spread of the first measure, and the ratios of the first two.
var compareLoads = []compareLoad{
	{
		"idle", "idle connections: memory of each, CPU to accept and upgrade it",
		[]measure{byRSS, byHeap, byAccept},
		func(o *options) {
			last := conns(o, 10_000)
			o.steps = fmt.Sprintf("%d,%d", max(1, last/5), last)
		}, runIdle, "", 0,
	},
	{
		"echo1", "echo, 1 message in flight on each connection",
		[]measure{byCPU, byRate},
		func(o *options) { o.inflights = "1" }, runEcho, "", 0,
	},
	{
		"echo16", "echo, 16 messages in flight on each connection",
		[]measure{byCPU, byRate},
		func(o *options) { o.inflights = "16" }, runEcho, "", 0,
	},
	{
		"echo-rate", "echo, 10 messages a second from each connection, at a fixed rate",
		[]measure{byCPU, byP99},
		func(o *options) { o.rates = fmt.Sprint(10 * conns(o, 1000)) }, runEcho, "", 10,
	},
	{
		"json1", "JSON requests to a typed handler, 1 in flight on each connection",
		[]measure{byCPU, byRate},
		func(o *options) { o.inflights, o.modes = "1", "json" }, runEcho, "gorilla", 0,
	},
	{
		"json16", "JSON requests to a typed handler, 16 in flight on each connection",
		[]measure{byCPU, byRate},
		func(o *options) { o.inflights, o.modes = "16", "json" }, runEcho, "gorilla", 0,
	},
	{
		"fanout-8", "one room at full speed, 8 publishes outstanding",
		[]measure{byCPU, byRate},
		func(o *options) { o.outstanding = 8 }, runFanout, "", 0,
	},
	{
		"fanout-64", "one room at full speed, 64 publishes outstanding",
		[]measure{byCPU, byRate},
		func(o *options) { o.outstanding = 64 }, runFanout, "", 0,
	},
	{
		"fanout-rate", "one room, 4 publishes a second",
		[]measure{byCPU, byP99},
		func(o *options) { o.rates = "4" }, runLatency, "", 4,
	},
	{
		"rooms", "rooms of 10 members, 5 publishes a second to each",
		[]measure{byCPU, byP99},
		func(o *options) {
			o.rooms = max(1, conns(o, 10_000)/10)
			o.rates = fmt.Sprint(5 * o.rooms)
		}, runFanout, "", 5,
	},
	{
		"slow", "the same with 5 % of the members stalled, each behind a backlog",
		[]measure{byCPU, byP99, byGrowth},
		func(o *options) { o.stalled = 5 }, runStalled, "", 4 * 0.95,
	},
}

// contenders are those of libraries that have the load.
func (l *compareLoad) contenders(libraries []contender) []contender {
	if l.only == "" {
		return libraries
	}
	return slices.DeleteFunc(slices.Clone(libraries), func(c contender) bool { return c.name != ourName && c.name != l.only })
}

func conns(o *options, n int) int {
	if o.conns > 0 {
		return o.conns
	}
	return n
}

// loadList reads -load.
func (o *options) loadList() ([]compareLoad, error) {
	if o.loads == "all" {
		return compareLoads, nil
	}
	var chosen []compareLoad
	for name := range strings.SplitSeq(o.loads, ",") {
		i := slices.IndexFunc(compareLoads, func(l compareLoad) bool { return l.name == name })
		if i < 0 {
			names := make([]string, 0, len(compareLoads))
			for _, l := range compareLoads {
				names = append(names, l.name)
			}
			return nil, fmt.Errorf("-load: there is no %q, but %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, compareLoads[i])
	}
	return chosen, nil
}

// runCompare runs each load against each library in turn.
func runCompare(ctx context.Context, o *options) ([]*table, error) {
	o.rounds = o.compareRounds
	loads, err := o.loadList()
	if err != nil {
		return nil, err
	}
	binary, remove, err := o.peersProgram(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	libraries, err := o.contenders(ctx, binary)
	if err != nil {
		return nil, err
	}
	var tables []*table
	summary := newSummary()
	for _, load := range loads {
		o.progress.expect(o.rounds*len(load.contenders(libraries)), o.warmup+o.duration+3*time.Second)
	}
	for _, load := range loads {
		c := newComparison(load, load.contenders(libraries))
		if err := c.run(ctx, o); err != nil {
			return nil, err
		}
		tables = append(tables, c.table())
		c.summarize(summary)
	}
	return append(tables, summary), nil
}

// comparison is one load and what each library did with it.
type comparison struct {
	load      compareLoad
	libraries []contender
	runs      [][]*compareRun // of each library, one for each round
}

// compareRun is one library's run of one round.
type compareRun struct {
	row map[string]float64 // of the command's table
	err error
}

func newComparison(load compareLoad, libraries []contender) *comparison {
	return &comparison{load: load, libraries: libraries, runs: make([][]*compareRun, len(libraries))}
}

// run runs all rounds. In each every library has its turn once, and another one
// begins, so that what else the machine does falls on all alike. A library that
// fails does not end it.
func (c *comparison) run(ctx context.Context, o *options) error {
	for round := range o.rounds {
		for i := range c.libraries {
			n := (round + i) % len(c.libraries)
			o.progress.step("compare %s, round %d of %d: %s", c.load.name, round+1, o.rounds, c.libraries[n].name)
			r := c.runOnce(ctx, o, c.libraries[n])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.runs[n] = append(c.runs[n], r)
		}
	}
	return nil
}

func (c *comparison) runOnce(ctx context.Context, o *options, lib contender) *compareRun {
	opts := *o
	opts.rounds, opts.serve, opts.path, opts.progress = 1, lib.serve, "native", nil
	if lib.serve == nil && o.path != "" {
		opts.path = o.path
	}
	c.load.set(&opts)
	ctx, cancel := context.WithTimeout(ctx, compareLimit+2*opts.duration+opts.warmup)
	defer cancel()
	tables, err := c.load.run(ctx, &opts)
	if err != nil {
		return &compareRun{err: err}
	}
	r := &compareRun{row: lastRow(tables[len(tables)-1])}
	due := c.load.due * float64(opts.conns)
	if atEnds := float64(opts.conns) / opts.duration.Seconds(); r.row["per_second"] < 0.97*due-atEnds { // a window cuts a publish off
		r.err = fmt.Errorf("%.0f messages/s of %.0f that were due", r.row["per_second"], due)
	}
	return r
}

// lastRow returns the numbers of a table's last row by their keys; milliseconds
// also as microseconds.
func lastRow(t *table) map[string]float64 {
	row := make(map[string]float64)
	for i, cell := range t.rows[len(t.rows)-1] {
		key := t.columns[i].key
		switch v := cell.(type) {
		case float64:
			row[key] = v
		case int:
			row[key] = float64(v)
		case int64:
			row[key] = float64(v)
		case uint64:
			row[key] = float64(v)
		}
		if name, ok := strings.CutSuffix(key, "_ms"); ok {
			row[name+"_us"] = row[key] * 1000
		}
	}
	return row
}
