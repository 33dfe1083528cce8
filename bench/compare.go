//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

var compareCommand = command{
	name:  "compare",
	about: "the same loads against this library and its peers in turn",
	help: `Gives the same loads to this library and to its peers in one session, in turns, each
on a fresh server process: gorilla, gws, nbio, greatws, gobwas, coder, melody and
centrifuge, written as their documentation says. Medians over the rounds with their
spread, and who is best at what.`,
	example:  "bench compare -load echo16,fanout-64 -peers gws,gobwas -rounds 5 -html compare.html",
	notInAll: true,
	new:      func() runner { return newCompareRun() },
}

// compareLimit is how long one run may take beyond the time that is measured.
// A server that hangs is killed then.
const compareLimit = 2 * time.Minute

// compareRun is a run of compare.
type compareRun struct {
	conns, size, rounds int
	loads               string
	quiet               time.Duration
	join                bool
	timing
	peerOptions
}

func newCompareRun() *compareRun {
	return &compareRun{
		size: 512, rounds: 3, loads: "all", quiet: time.Second,
		timing: defaultTiming(), peerOptions: defaultPeers(),
	}
}

func (o *compareRun) flags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
	idleFlags(fs, &o.quiet, &o.join)
	o.timing.flags(fs)
	o.peerOptions.flags(fs)
	fs.StringVar(&o.loads, "load", o.loads, "compare: `loads` such as echo16,fanout-8, or all")
}

func (o *compareRun) validate(*session) error {
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1))
}

// idle, echo and fanout return the commands that a load is made of, once.
func (o *compareRun) idle(conns int) *idleRun {
	r := newIdleRun()
	r.quiet, r.join = o.quiet, o.join
	r.steps = fmt.Sprintf("%d,%d", max(1, conns/5), conns)
	return r
}

func (o *compareRun) echo(conns int, inflights, modes, rates string) *echoRun {
	r := newEchoRun()
	r.conns, r.size, r.timing = conns, o.size, o.timing
	r.inflights, r.modes, r.rates = inflights, modes, rates
	return r
}

func (o *compareRun) fanout(conns, rooms, outstanding int, rates string) *fanoutRun {
	r := newFanoutRun()
	r.conns, r.size, r.timing = conns, o.size, o.timing
	r.rooms, r.outstanding, r.rates = rooms, outstanding, rates
	return r
}

// commandFunc runs a command.
type commandFunc func(context.Context, *session) ([]*table, error)

// compareLoad is a load that all libraries are given. command returns the command
// that runs it once, on a fresh server. Its last table's last row has the figures.
type compareLoad struct {
	name, about string
	measures    []measure // two or more
	conns       int       // unless -conns is set
	command     func(o *compareRun, conns int) commandFunc
	only        string  // the one peer that has it, or "" for all
	due         float64 // messages a second for each connection at a fixed rate, or 0
	times       int     // the duration, for which it measures; 0 is 1
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
		name: "idle", about: "idle connections: memory of each, CPU to accept and upgrade it",
		measures: []measure{byRSS, byHeap, byAccept}, conns: 10_000,
		command: func(o *compareRun, conns int) commandFunc { return o.idle(conns).run },
	},
	{
		name: "echo1", about: "echo, 1 message in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000,
		command: func(o *compareRun, conns int) commandFunc { return o.echo(conns, "1", "raw", "").run },
	},
	{
		name: "echo16", about: "echo, 16 messages in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000,
		command: func(o *compareRun, conns int) commandFunc { return o.echo(conns, "16", "raw", "").run },
	},
	{
		name: "echo-rate", about: "echo, 10 messages a second from each connection, at a fixed rate",
		measures: []measure{byCPU, byP99}, conns: 1000, due: 10,
		command: func(o *compareRun, conns int) commandFunc {
			return o.echo(conns, "1", "raw", fmt.Sprint(10*conns)).run
		},
	},
	{
		name: "json1", about: "JSON requests to a typed handler, 1 in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000, only: "gorilla",
		command: func(o *compareRun, conns int) commandFunc { return o.echo(conns, "1", "json", "").run },
	},
	{
		name: "json16", about: "JSON requests to a typed handler, 16 in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000, only: "gorilla",
		command: func(o *compareRun, conns int) commandFunc { return o.echo(conns, "16", "json", "").run },
	},
	{
		name: "fanout-8", about: "one room at full speed, 8 publishes outstanding",
		measures: []measure{byCPU, byRate}, conns: 10_000,
		command: func(o *compareRun, conns int) commandFunc { return o.fanout(conns, 1, 8, "").run },
	},
	{
		name: "fanout-64", about: "one room at full speed, 64 publishes outstanding",
		measures: []measure{byCPU, byRate}, conns: 10_000,
		command: func(o *compareRun, conns int) commandFunc { return o.fanout(conns, 1, 64, "").run },
	},
	{
		name: "fanout-rate", about: "one room, 4 publishes a second",
		measures: []measure{byCPU, byP99}, conns: 10_000, due: 4, times: 2,
		command: func(o *compareRun, conns int) commandFunc {
			return latencyRun{o.fanout(conns, 1, 64, "4")}.run
		},
	},
	{
		name: "rooms", about: "rooms of 10 members, 5 publishes a second to each",
		measures: []measure{byCPU, byP99}, conns: 10_000, due: 5,
		command: func(o *compareRun, conns int) commandFunc {
			rooms := max(1, conns/10)
			return o.fanout(conns, rooms, 64, fmt.Sprint(5*rooms)).run
		},
	},
	{
		name: "slow", about: "the same with 5 % of the members stalled, each behind a backlog",
		measures: []measure{byCPU, byP99, byGrowth}, conns: 10_000, due: 4 * (100 - stalledPercent) / 100., times: 2,
		command: func(o *compareRun, conns int) commandFunc {
			timing := o.timing
			timing.duration *= 2 // as latency does
			return (&stalledRun{conns, o.size, timing}).run
		},
	},
}

// contenders are those of libraries that have the load.
func (l *compareLoad) contenders(libraries []contender) []contender {
	if l.only == "" {
		return libraries
	}
	return slices.DeleteFunc(slices.Clone(libraries), func(c contender) bool { return c.name != ourName && c.name != l.only })
}

// loadList reads -load.
func (o *compareRun) loadList() ([]compareLoad, error) {
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

// run runs each load against each library in turn.
func (o *compareRun) run(ctx context.Context, s *session) ([]*table, error) {
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
		s.progress.expect(o.rounds*len(load.contenders(libraries)), o.warmup+o.duration+3*time.Second)
	}
	for _, load := range loads {
		c := newComparison(load, load.contenders(libraries))
		if err := c.run(ctx, s, o); err != nil {
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
	runs      [][]*libraryRun // of each library, one for each round
}

// libraryRun is one library's run of one round.
type libraryRun struct {
	row map[string]float64 // of the command's table
	err error
}

func newComparison(load compareLoad, libraries []contender) *comparison {
	return &comparison{load: load, libraries: libraries, runs: make([][]*libraryRun, len(libraries))}
}

// run runs all rounds. In each every library has its turn once, and another one
// begins, so that what else the machine does falls on all alike. A library that
// fails does not end it.
func (c *comparison) run(ctx context.Context, s *session, o *compareRun) error {
	for round := range o.rounds {
		for i := range c.libraries {
			n := (round + i) % len(c.libraries)
			s.progress.step("compare %s, round %d of %d: %s", c.load.name, round+1, o.rounds, c.libraries[n].name)
			r := c.runOnce(ctx, s, o, c.libraries[n])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.runs[n] = append(c.runs[n], r)
		}
	}
	return nil
}

func (c *comparison) runOnce(ctx context.Context, s *session, o *compareRun, lib contender) *libraryRun {
	with := *s
	with.program, with.path, with.progress = lib.serve, "native", nil
	if lib.serve == nil && s.path != "" {
		with.path = s.path
	}
	conns := cmp.Or(o.conns, c.load.conns)
	ctx, cancel := context.WithTimeout(ctx, compareLimit+2*o.duration+o.warmup)
	defer cancel()
	tables, err := c.load.command(o, conns)(ctx, &with)
	if err != nil {
		return &libraryRun{err: err}
	}
	r := &libraryRun{row: lastRow(tables[len(tables)-1])}
	due := c.load.due * float64(conns)
	measured := o.duration * time.Duration(max(1, c.load.times))
	if atEnds := float64(conns) / measured.Seconds(); r.row["per_second"] < 0.97*due-atEnds { // a window cuts a publish off
		r.err = fmt.Errorf("%.0f messages/s of %.0f that were due", r.row["per_second"], due)
	}
	return r
}

// lastRow returns the numbers of a table's last row by their keys; milliseconds
// also as microseconds.
func lastRow(t *table) map[string]float64 {
	row := make(map[string]float64)
	for i, cell := range t.rows[len(t.rows)-1] {
		key := t.columns[i].key()
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
