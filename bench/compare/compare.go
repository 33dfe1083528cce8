//go:build linux

package compare

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/contenders"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/workload"
)

// Command is the command compare.
var Command = command.Command{
	Name:  "compare",
	About: "the same loads against this library and its peers in turn",
	Help: `Gives the same loads to this library and to its peers in one session, in turns, each
on a fresh server process: gorilla, gws, nbio, greatws, gobwas, coder, melody and
centrifuge, written as their documentation says. Medians over the rounds with their
spread, and the best library for each measure.`,
	Example:  "bench compare -load echo16,fanout-64 -peers gws,gobwas -rounds 5 -html compare.html",
	NotInAll: true,
	New:      func() command.Runner { return newRunner() },
}

// runLimit is how long one run may take beyond the time that is measured.
// A server that hangs is killed then.
const runLimit = 2 * time.Minute

// singleWrites is the name of this library without batched writes.
const singleWrites = contenders.Ours + ", single writes"

// runner is a run of compare.
type runner struct {
	conns, size, rounds int
	loads               string
	quiet               time.Duration
	join, byClient      bool
	load.Timing
	contenders.Options
}

func newRunner() *runner {
	return &runner{
		size: 512, rounds: 3, loads: "all", quiet: time.Second,
		Timing: load.DefaultTiming(), Options: contenders.DefaultPeers(),
	}
}

func (o *runner) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	command.IdleFlags(fs, &o.quiet, &o.join)
	command.ByClientFlag(fs, &o.byClient)
	o.Timing.Flags(fs)
	o.Options.Flags(fs)
	fs.StringVar(&o.loads, "load", o.loads, "compare: `loads` such as echo16,fanout-8, or all")
}

func (o *runner) Validate(*command.Session) error {
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1))
}

// idle, echo and fanout return the commands that a load is made of, once.
func (o *runner) idle(conns int) *workload.IdleRun {
	r := workload.NewIdleRun()
	r.Quiet, r.Join = o.quiet, o.join
	r.Steps = fmt.Sprintf("%d,%d", max(1, conns/5), conns)
	return r
}

func (o *runner) echo(conns int, inflights, modes, rates string) *workload.EchoRun {
	r := workload.NewEchoRun()
	r.Conns, r.Size, r.Timing = conns, o.size, o.Timing
	r.Inflights, r.Modes, r.Rates = inflights, modes, rates
	return r
}

func (o *runner) fanout(conns, rooms, outstanding int, rates string) *workload.FanoutRun {
	r := workload.NewFanoutRun()
	r.Conns, r.Size, r.Timing = conns, o.size, o.Timing
	r.Rooms, r.Outstanding, r.Rates, r.ByClient = rooms, outstanding, rates, o.byClient
	return r
}

// compareLoad is a load for all libraries. command returns the command
// that runs it once, on a fresh server. Its last table's last row has the figures.
type compareLoad struct {
	name, about string
	measures    []measure // two or more
	conns       int       // unless -conns is set
	command     func(o *runner, conns int) command.Func
	rooms       bool    // has rooms
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
		command: func(o *runner, conns int) command.Func { return o.idle(conns).Run },
	},
	{
		name: "echo1", about: "echo, 1 message in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000,
		command: func(o *runner, conns int) command.Func { return o.echo(conns, "1", "raw", "").Run },
	},
	{
		name: "echo16", about: "echo, 16 messages in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000,
		command: func(o *runner, conns int) command.Func { return o.echo(conns, "16", "raw", "").Run },
	},
	{
		name: "echo-rate", about: "echo, 10 messages a second from each connection, at a fixed rate",
		measures: []measure{byCPU, byP99}, conns: 1000, due: 10,
		command: func(o *runner, conns int) command.Func {
			return o.echo(conns, "1", "raw", fmt.Sprint(10*conns)).Run
		},
	},
	{
		name: "json1", about: "JSON requests to a typed handler, 1 in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000, only: "gorilla",
		command: func(o *runner, conns int) command.Func { return o.echo(conns, "1", "json", "").Run },
	},
	{
		name: "json16", about: "JSON requests to a typed handler, 16 in flight on each connection",
		measures: []measure{byCPU, byRate}, conns: 1000, only: "gorilla",
		command: func(o *runner, conns int) command.Func { return o.echo(conns, "16", "json", "").Run },
	},
	{
		name: "fanout-8", about: "one room at full speed, 8 publishes outstanding",
		measures: []measure{byCPU, byRate}, conns: 10_000, rooms: true,
		command: func(o *runner, conns int) command.Func { return o.fanout(conns, 1, 8, "").Run },
	},
	{
		name: "fanout-64", about: "one room at full speed, 64 publishes outstanding",
		measures: []measure{byCPU, byRate}, conns: 10_000, rooms: true,
		command: func(o *runner, conns int) command.Func { return o.fanout(conns, 1, 64, "").Run },
	},
	{
		name: "fanout-rate", about: "one room, 4 publishes a second",
		measures: []measure{byCPU, byP99}, conns: 10_000, rooms: true, due: 4, times: 2,
		command: func(o *runner, conns int) command.Func {
			return workload.LatencyRun{FanoutRun: o.fanout(conns, 1, 64, "4")}.Run
		},
	},
	{
		name: "rooms", about: "rooms of 10 members, 5 publishes a second to each",
		measures: []measure{byCPU, byP99}, conns: 10_000, rooms: true, due: 5,
		command: func(o *runner, conns int) command.Func {
			rooms := max(1, conns/10)
			return o.fanout(conns, rooms, 64, fmt.Sprint(5*rooms)).Run
		},
	},
	{
		name: "slow", about: "the same with 5 % of the members stalled, each behind a backlog",
		measures: []measure{byCPU, byP99, byGrowth}, conns: 10_000, rooms: true,
		due: 4 * (100 - stalledPercent) / 100., times: 2,
		command: func(o *runner, conns int) command.Func {
			timing := o.Timing
			timing.Duration *= 2 // as latency does
			return (&stalledRun{conns, o.size, o.byClient, timing}).run
		},
	},
}

// contenders returns the libraries that have the load, and for a load with rooms
// this one without batched writes, too.
func (l *compareLoad) contenders(libraries []contenders.Contender) []contenders.Contender {
	libraries = slices.Clone(libraries)
	if l.only != "" {
		libraries = slices.DeleteFunc(libraries,
			func(c contenders.Contender) bool { return c.Name != contenders.Ours && c.Name != l.only })
	}
	if l.rooms {
		single := contenders.Contender{Name: singleWrites, Version: libraries[0].Version, SingleWrites: true}
		libraries = slices.Insert(libraries, 1, single)
	}
	return libraries
}

// loadList reads -load.
func (o *runner) loadList() ([]compareLoad, error) {
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

// Run runs each load against each library in turn.
func (o *runner) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	loads, err := o.loadList()
	if err != nil {
		return nil, err
	}
	binary, remove, err := o.Program(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	libraries, err := o.Contenders(ctx, binary)
	if err != nil {
		return nil, err
	}
	var tables []*result.Table
	summary := newSummary()
	for _, load := range loads {
		s.Progress.Expect(o.rounds*len(load.contenders(libraries)), o.Warmup+o.Duration+3*time.Second)
	}
	for _, load := range loads {
		if o.byClient && load.rooms {
			load.about += ", published by a client"
		}
		c := newComparison(load, load.contenders(libraries))
		if err := c.run(ctx, s, o); err != nil {
			return nil, err
		}
		tables = append(tables, c.table())
		c.summarize(summary)
	}
	return append(tables, summary), nil
}

// comparison holds one load and the runs of each library.
type comparison struct {
	load      compareLoad
	libraries []contenders.Contender
	runs      [][]*libraryRun // of each library, one for each round
}

// libraryRun is one library's run of one round.
type libraryRun struct {
	row map[string]float64 // of the command's table
	err error
}

func newComparison(load compareLoad, libraries []contenders.Contender) *comparison {
	return &comparison{load: load, libraries: libraries, runs: make([][]*libraryRun, len(libraries))}
}

// run runs all rounds. In each every library has its turn once, and another one
// begins, so that other work of the machine affects all alike. A library that
// fails does not end it.
func (c *comparison) run(ctx context.Context, s *command.Session, o *runner) error {
	for round := range o.rounds {
		for i := range c.libraries {
			n := (round + i) % len(c.libraries)
			s.Progress.Step("compare %s, round %d of %d: %s", c.load.name, round+1, o.rounds, c.libraries[n].Name)
			r := c.runOnce(ctx, s, o, c.libraries[n])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.runs[n] = append(c.runs[n], r)
		}
	}
	return nil
}

func (c *comparison) runOnce(ctx context.Context, s *command.Session, o *runner,
	lib contenders.Contender,
) *libraryRun {
	with := *s
	with.Program, with.Path, with.Progress = lib.Serve, "native", nil
	if lib.Serve == nil && s.Path != "" {
		with.Path = s.Path
	}
	conns := cmp.Or(o.conns, c.load.conns)
	ctx, cancel := context.WithTimeout(ctx, runLimit+2*o.Duration+o.Warmup)
	defer cancel()
	with.SingleWrites = s.SingleWrites || lib.SingleWrites
	tables, err := c.load.command(o, conns)(ctx, &with)
	if err != nil {
		return &libraryRun{err: err}
	}
	r := &libraryRun{row: tables[len(tables)-1].Last()}
	due := c.load.due * float64(conns)
	measured := o.Duration * time.Duration(max(1, c.load.times))
	// a window cuts a publish off
	if atEnds := float64(conns) / measured.Seconds(); r.row["per_second"] < 0.97*due-atEnds {
		r.err = fmt.Errorf("%.0f messages/s of %.0f that were due", r.row["per_second"], due)
	}
	return r
}
