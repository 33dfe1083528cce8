//go:build linux

package resume

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// Command is the command resume.
var Command = command.Command{
	Name:  "resume",
	About: "rooms with a history: clients that come back at once, members that stall, memory",
	Help: `Three loads on rooms with a history. All clients join at once with a position, and get
the messages since then, beside others whose round trip is measured. Some members do
not read for a while, and catch up. Many rooms keep messages without members, and
their memory is compared with that by the formula of docs/delivery.md.`,
	Example:  "bench resume -conns 10000 -stall 60s",
	NotInAll: true,
	New:      func() command.Runner { return newRun() },
}

// run is a run of resume.
type run struct {
	conns, size, rounds int
	missed, bystanders  int
	stall               time.Duration
	rate, stalled       float64
	rooms               int
	load.Timing
}

func newRun() *run {
	return &run{
		size: 512, rounds: 1, missed: 100, bystanders: 100, stall: time.Minute, rate: 20, stalled: 5, rooms: 1000,
		Timing: load.DefaultTiming(),
	}
}

func (o *run) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	fs.IntVar(&o.missed, "missed", o.missed, "resume: `messages` that each client has missed, and that a room keeps")
	fs.IntVar(&o.bystanders, "bystanders", o.bystanders,
		"resume: `connections` whose round trip is measured beside the others")
	fs.DurationVar(&o.stall, "stall", o.stall, "resume: time for which members do not read; 0 leaves that load out")
	fs.Float64Var(&o.rate, "stall-rate", o.rate, "resume: `publishes` a second meanwhile")
	fs.Float64Var(&o.stalled, "stall-share", o.stalled, "resume: `percent` of the members that do not read")
	fs.IntVar(&o.rooms, "kept-rooms", o.rooms, "resume: `rooms` that keep messages without members; 0 is none")
	o.Timing.Flags(fs)
}

func (o *run) Validate(*command.Session) error {
	if o.stall < 0 || o.rooms < 0 || !(o.rate > 0 && o.rate <= 1e5) || !(o.stalled > 0 && o.stalled < 100) {
		return errors.New("bench: -stall, -kept-rooms, -stall-rate or -stall-share is out of range")
	}
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1),
		command.AtLeast("-missed", o.missed, 1), command.AtLeast("-bystanders", o.bystanders, 1))
}

// Run runs the three loads, each on a server of its own.
func (o *run) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 10_000)
	s.Progress.Expect(o.rounds, 2*o.Duration+o.stall+30*time.Second)
	tables := []*result.Table{returnTable()}
	if o.stall > 0 {
		tables = append(tables, stallTable())
	}
	if o.rooms > 0 {
		tables = append(tables, memoryTable())
	}
	for round := range o.rounds {
		s.Progress.Step("resume, round %d of %d", round+1, o.rounds)
		for _, t := range tables {
			if err := o.measure(ctx, s, t); err != nil {
				return nil, err
			}
		}
	}
	return tables, nil
}

// measure adds a row to the table.
func (o *run) measure(ctx context.Context, s *command.Session, t *result.Table) error {
	switch t.Command {
	case returnName:
		return o.comeBack(ctx, s, t)
	case stallName:
		return o.stallSome(ctx, s, t)
	default:
		return o.keep(ctx, s, t)
	}
}

// crowd is a server in mode History with clients of its room 0.
type crowd struct {
	srv   *server.Process
	g     *load.Generator
	work  []*follower
	conns int
	stop  func()
}

// open starts a server whose rooms keep kept messages, and connects the clients. Those for which
// stalls returns true can stall.
func (o *run) open(ctx context.Context, s *command.Session, kept int, stalls func(n int) bool) (*crowd, error) {
	cfg := control.Config{
		Mode: control.History, HistorySize: kept, MaxConnections: o.conns + o.bystanders + 16,
	}
	c := &crowd{work: make([]*follower, s.ClientLoops), conns: o.conns}
	var err error
	c.srv, c.g, c.stop, err = s.Start(ctx, s.Path, o.conns, cfg, func(i int) load.Traffic {
		c.work[i] = new(follower)
		return c.work[i]
	})
	if err != nil {
		return nil, err
	}
	c.g.Each(func(_ int, l *load.Loop) { l.Whole = true })
	c.g.ChooseStalled(stalls)
	if err := c.g.Connect(ctx, o.conns); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// nobody chooses no client.
func nobody(int) bool { return false }

// await waits until the clients have got that number of messages since before, or until no more come. It
// returns the number of missing messages.
func (c *crowd) await(ctx context.Context, before load.Tally, messages int) (missing uint64, err error) {
	return c.g.Missing(ctx, func(t load.Tally) (want, have uint64) {
		return uint64(messages), t.Messages - before.Messages
	})
}

// newest returns the time at which the newest message has come.
func (c *crowd) newest() (at int64) {
	times := make([]int64, len(c.work))
	c.g.Each(func(i int, _ *load.Loop) { times[i] = c.work[i].newest })
	for _, t := range times {
		at = max(at, t)
	}
	return at
}

// gaps returns the number of gaps that the clients were told of.
func (c *crowd) gaps() (sum int) {
	counts := make([]int, len(c.work))
	c.g.Each(func(i int, _ *load.Loop) { counts[i] = c.work[i].gaps })
	for _, n := range counts {
		sum += n
	}
	return sum
}
