//go:build linux

package tune

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/workload"
)

// SweepCommand is the command sweep.
var SweepCommand = command.Command{
	Name:  "sweep",
	About: "one load with every combination of loops, room shards, batch and ring",
	Help: `Runs one load with every combination of the given settings, in turns and each on a
fresh server, and sorts the settings by the server's CPU time for a message.`,
	Example:  "bench sweep -load fanout -loops 1,2 -batch 16,64,256 -rounds 5",
	NotInAll: true,
	Varies:   true,
	New:      func() command.Runner { return newSweepRun() },
}

// sweepRun is a run of sweep. An empty list of settings is not swept.
type sweepRun struct {
	load                        string
	loops, shards, batch, rings string
	rounds                      int

	conns, size, outstanding int // of the load
	inflights, rates         string
	load.Timing
}

func newSweepRun() *sweepRun {
	return &sweepRun{
		load: "fanout", rounds: leastRounds, size: 512, outstanding: 64, inflights: command.DefaultInflights,
		Timing: load.DefaultTiming(),
	}
}

func (s *sweepRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &s.conns)
	command.SizeFlag(fs, &s.size)
	command.RoundsFlag(fs, &s.rounds)
	command.InflightFlag(fs, &s.inflights)
	command.OutstandingFlag(fs, &s.outstanding)
	command.RatesFlag(fs, &s.rates)
	s.Timing.Flags(fs)
	fs.StringVar(&s.load, "load", s.load, "`command` to run: fanout, echo or latency, with its flags")
	fs.StringVar(&s.loops, "loops", s.loops,
		"event loops of the server, a `list` such as 1,2; if no list is given: 1, 2, 4 .. GOMAXPROCS")
	fs.StringVar(&s.shards, "room-shards", s.shards, "WithRoomShards, a `list` of powers of two")
	fs.StringVar(&s.batch, "batch", s.batch, "BroadcastConfig.BatchSize, a `list`; if no list is given: 16,64,256")
	fs.StringVar(&s.rings, "ring", s.rings, "BroadcastConfig.QueueSize, a `list`")
}

func (s *sweepRun) Validate(*command.Session) error {
	_, err := command.InflightCounts(s.inflights)
	return cmp.Or(command.ValidSize(s.size), command.AtLeast("-rounds", s.rounds, 1),
		workload.ValidOutstanding(s.outstanding), command.ValidRates(s.rates), err)
}

// command returns the command of -load, once.
func (s *sweepRun) command() (command.Func, error) {
	switch s.load {
	case "echo":
		r := workload.NewEchoRun()
		r.Conns, r.Size, r.Timing, r.Inflights, r.Rates = s.conns, s.size, s.Timing, s.inflights, s.rates
		if s.inflights == command.DefaultInflights {
			r.Inflights = "16"
		}
		return r.Run, nil
	case "fanout", "latency":
		r := workload.NewFanoutRun()
		r.Conns, r.Size, r.Timing, r.Outstanding, r.Rates = s.conns, s.size, s.Timing, s.outstanding, s.rates
		if s.load == "latency" {
			return workload.LatencyRun{FanoutRun: r}.Run, nil
		}
		return r.Run, nil
	}
	return nil, fmt.Errorf("-load is %q, must be fanout, echo or latency", s.load)
}

// setting holds the options of a server that sweep and tune vary. spare is
// added to its GOMAXPROCS.
type setting struct{ loops, shards, batch, ring, spare int }

// figures are the results of one run of a load.
type figures struct {
	cpu  float64 // µs of the server for a message
	rate float64 // messages a second
	p99  float64 // ms
	lost float64 // messages missing, out of order or dropped
}

// loadFunc runs one load once, on a fresh server.
type loadFunc func(ctx context.Context, s *command.Session) (figures, error)

// trial holds one setting and the figures of its runs, one for each round.
type trial struct {
	setting
	cpu, rate, p99 []float64
	lost           float64
}

// Run runs one load with every combination of settings.
func (s *sweepRun) Run(ctx context.Context, base *command.Session) ([]*result.Table, error) {
	if _, err := s.command(); err != nil {
		return nil, err
	}
	settings, err := s.combinations(baseSetting(base))
	if err != nil {
		return nil, err
	}
	trials, err := try(ctx, base, settings, s.rounds, &s.Timing,
		func(ctx context.Context, with *command.Session) (figures, error) {
			run, err := s.command()
			if err != nil {
				return figures{}, err
			}
			tables, err := run(ctx, with)
			if err != nil {
				return figures{}, err
			}
			return tableFigures(tables)
		})
	if err != nil {
		return nil, err
	}
	return []*result.Table{s.table(trials, base.Queue)}, nil
}

// tableFigures reads the only row of a command's table.
func tableFigures(tables []*result.Table) (f figures, err error) {
	t := tables[0]
	if len(tables) != 1 || len(t.Rows) != 1 {
		return f, errors.New("a sweep takes one load: a single -rate or -inflight, and neither -sweep nor -compare")
	}
	for i, c := range t.Columns {
		value, err := strconv.ParseFloat(fmt.Sprint(t.Rows[0][i]), 64)
		if err != nil {
			continue // no figure
		}
		switch c.Key() {
		case "server_us":
			f.cpu = value
		case "per_second":
			f.rate = value
		case "p99_us":
			f.p99 = value / 1000
		case "p99_ms":
			f.p99 = value
		case "missing", "disordered", "dropped":
			f.lost += value
		}
	}
	return f, nil
}

// baseSetting is the setting that is not swept, from the flags or the library's
// defaults.
func baseSetting(s *command.Session) setting {
	procs := cmp.Or(s.MaxProcs, runtime.GOMAXPROCS(0))
	broadcast := ws.DefaultConfig().Broadcast
	return setting{
		cmp.Or(s.Loops, min(procs, 256)), s.RoomShards,
		cmp.Or(s.Batch, broadcast.BatchSize), cmp.Or(s.Ring, broadcast.QueueSize), 0,
	}
}

// combinations returns the product of the lists that are given, or of the
// default ones. Room shards may stay 0, which depends on the loops.
func (s *sweepRun) combinations(b setting) ([]setting, error) {
	loops, err1 := intList("-loops", s.loops, 256)
	shards, err2 := intList("-room-shards", s.shards, 1<<20)
	batch, err3 := intList("-batch", s.batch, 4096)
	rings, err4 := intList("-ring", s.rings, 1<<20)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	if loops == nil && shards == nil && batch == nil && rings == nil {
		loops, batch = doublings(b.loops), []int{16, 64, 256}
	}
	or := func(list []int, value int) []int {
		if list == nil {
			return []int{value}
		}
		return list
	}
	var all []setting
	for _, l := range or(loops, b.loops) {
		for _, sh := range or(shards, b.shards) {
			for _, ba := range or(batch, b.batch) {
				for _, r := range or(rings, b.ring) {
					all = append(all, setting{l, sh, ba, r, 0}.resolved())
				}
			}
		}
	}
	return all, nil
}

// resolved fills in the room shards that a manager takes by default.
func (s setting) resolved() setting {
	if s.shards == 0 {
		for s.shards = 1; s.shards < 4*s.loops; {
			s.shards *= 2
		}
	}
	return s
}

// queue is the MessageQueueSize that the batch needs: the library takes no more
// than half of it ahead, which is two batches.
func (s setting) queue() int { return max(4*s.batch, ws.DefaultConfig().MessageQueueSize) }

func (s setting) String() string {
	text := fmt.Sprintf("loops=%d room-shards=%d batch=%d ring=%d", s.loops, s.shards, s.batch, s.ring)
	if s.spare > 0 {
		text += fmt.Sprintf(" GOMAXPROCS+%d", s.spare)
	}
	return text
}

// doublings returns 1, 2, 4 .. n.
func doublings(n int) (list []int) {
	for i := 1; i < n; i *= 2 {
		list = append(list, i)
	}
	return append(list, n)
}

// intList reads a list of different numbers, at least 1; nil if text is empty.
func intList(name, text string, most int) (list []int, err error) {
	if text == "" {
		return nil, nil
	}
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > most || slices.Contains(list, n) {
			return nil, fmt.Errorf("%s is %q, must be different numbers from 1 to %d such as 4,16", name, text, most)
		}
		list = append(list, n)
	}
	return list, nil
}

// turn returns which of n settings comes at position i of a round. Rounds begin
// with another setting each, and every other one goes backwards, so that none is
// favored by its place or its neighbors.
func turn(i, n, round int) int {
	if round%2 == 1 {
		i = n - 1 - i
	}
	return (i + round) % n
}

// try runs the load with each setting once a round.
func try(ctx context.Context, s *command.Session, settings []setting, rounds int, timing *load.Timing,
	run loadFunc,
) ([]*trial, error) {
	trials := make([]*trial, len(settings))
	for i, one := range settings {
		trials[i] = &trial{setting: one}
	}
	runs := rounds * len(trials)
	s.Progress.Expect(runs, timing.Warmup+timing.Duration)
	for n := range runs {
		round := n / len(trials)
		t := trials[turn(n%len(trials), len(trials), round)]
		s.Progress.Step("%s, round %d of %d", t.setting, round+1, rounds)
		with := *s
		with.Progress = nil // the load is a part of this step
		with.Loops, with.RoomShards, with.Batch, with.Ring = t.loops, t.shards, t.batch, t.ring
		if t.spare > 0 {
			with.MaxProcs = cmp.Or(s.MaxProcs, runtime.GOMAXPROCS(0)) + t.spare
		}
		with.Queue = max(s.Queue, t.queue())
		f, err := run(ctx, &with)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.setting, err)
		}
		t.cpu, t.rate, t.p99 = append(t.cpu, f.cpu), append(t.rate, f.rate), append(t.p99, f.p99)
		t.lost += f.lost
	}
	return trials, nil
}

// table sorts the settings by CPU time, and by rate among equals. queue is the
// value of -queue.
func (s *sweepRun) table(trials []*trial, queue int) *result.Table {
	t := &result.Table{
		Command: "sweep", Title: fmt.Sprintf("Sweep of %s: medians of %d rounds in turns, each on a fresh server",
			s.load, s.rounds),
		Columns: []result.Column{
			{"loops", "loops", "%d"},
			{"room_shards", "room shards", "%d"},
			{"batch", "batch", "%d"},
			{"ring", "ring", "%d"},
			{"server_us", "server µs/msg", "%.3f"},
			{"server_us_least", "least", "%.3f"},
			{"server_us_most", "most", "%.3f"},
			{"per_second", "messages/s", "%.0f"},
			{"per_second_least", "least", "%.0f"},
			{"per_second_most", "most", "%.0f"},
			{"p99_ms", "p99 ms", "%.1f"},
			{"lost", "lost", "%.0f"},
			{"mark", "note", "%s"},
		}, Charts: []result.Chart{
			{
				Kind: report.Bars, X: []string{"loops", "room_shards", "batch", "ring"}, Y: []string{"server_us"},
				Min: []string{"server_us_least"}, Max: []string{"server_us_most"},
			},
			{
				Kind: report.Bars, X: []string{"loops", "room_shards", "batch", "ring"}, Y: []string{"per_second"},
				Min: []string{"per_second_least"}, Max: []string{"per_second_most"},
			},
		},
	}
	slices.SortStableFunc(trials, func(a, b *trial) int {
		return cmp.Or(cmp.Compare(result.Median(a.cpu), result.Median(b.cpu)),
			cmp.Compare(result.Median(b.rate), result.Median(a.rate)))
	})
	fastest := slices.MaxFunc(trials, func(a, b *trial) int {
		return cmp.Compare(result.Median(a.rate), result.Median(b.rate))
	})
	t.Notes = s.notes(trials, queue)
	for i, r := range trials {
		var marks []string
		switch {
		case i == 0:
			marks = append(marks, "least CPU")
		case !newGain(r.cpu, trials[0].cpu).real():
			marks = append(marks, "as little CPU, within the noise")
		}
		if r == fastest {
			marks = append(marks, "highest rate")
		}
		t.Add(r.loops, r.shards, r.batch, r.ring,
			result.Median(r.cpu), slices.Min(r.cpu), slices.Max(r.cpu),
			result.Median(r.rate), slices.Min(r.rate), slices.Max(r.rate),
			result.Median(r.p99), r.lost, strings.Join(marks, "; "))
	}
	return t
}

// notes returns the lines below the table.
func (s *sweepRun) notes(trials []*trial, queue int) (notes []string) {
	for _, r := range trials {
		if r.queue() > ws.DefaultConfig().MessageQueueSize {
			notes = append(notes,
				fmt.Sprintf("batch %d has WithMessageQueueSize(%d): of a shorter queue it would be cut.",
					r.batch, max(queue, r.queue())))
		}
	}
	slices.Sort(notes)
	notes = slices.Compact(notes)
	if s.rounds < leastRounds {
		notes = append(notes, fmt.Sprintf("Fewer than %d rounds cannot separate a difference from noise.", leastRounds))
	}
	return notes
}
