//go:build linux

package tune

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/doctor"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/workload"
)

// Command is the command tune.
var Command = command.Command{
	Name:  "tune",
	About: "the options that suit a load that you describe, and their gains",
	Help: `Runs the sweep that fits the load that you describe, scaled down to the connections
that this machine can hold, and prints the options to use, with the reason and the
measured gain of each. A gain within the noise is none.`,
	Example:  "bench tune -conns 50000 -rooms 5000 -rate 2000 -size 300",
	NotInAll: true,
	Varies:   true,
	New:      func() command.Runner { return newTuneRun() },
}

// tuneRun is a run of tune.
type tuneRun struct {
	conns, size, rounds, rooms int
	rate, deliveries, messages float64
	load.Timing
}

func newTuneRun() *tuneRun {
	return &tuneRun{size: 512, rounds: leastRounds, rooms: 1, Timing: load.DefaultTiming()}
}

func (t *tuneRun) Validate(*command.Session) error {
	return cmp.Or(command.ValidSize(t.size), command.AtLeast("-rounds", t.rounds, 1))
}

func (t *tuneRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &t.conns)
	command.SizeFlag(fs, &t.size)
	command.RoundsFlag(fs, &t.rounds)
	t.Timing.Flags(fs)
	fs.IntVar(&t.rooms, "rooms", t.rooms, "rooms that the connections are spread over, one each")
	fs.Float64Var(&t.rate, "rate", t.rate, "publishes per second, to all rooms together; 0 is 10")
	fs.Float64Var(&t.deliveries, "deliveries", t.deliveries,
		"in place of -rate: messages per second that arrive at all clients together")
	fs.Float64Var(&t.messages, "messages", t.messages,
		"in place of publishes: messages per second from all clients together, which are echoed")
}

// description is the load that options are looked for.
type description struct {
	conns, rooms, size int
	rate               float64 // publishes per second
	messages           float64 // echoed per second, in place of publishes; 0 is none
}

func (d description) String() string {
	if d.messages > 0 {
		return fmt.Sprintf("%d connections, %s messages/s of %d B, echoed", d.conns, tenths(d.messages), d.size)
	}
	return fmt.Sprintf("%d connections in %d rooms of %s, %s publishes/s of %d B: %s deliveries/s",
		d.conns, d.rooms, tenths(d.members()), tenths(d.rate), d.size, tenths(d.rate*d.members()))
}

// given returns the number of positive values.
func given(values ...float64) (n int) {
	for _, v := range values {
		if v > 0 {
			n++
		}
	}
	return n
}

// tenths is x with one digit behind the point, if it needs it.
func tenths(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }

// members is how many a room has.
func (d description) members() float64 { return float64(d.conns) / float64(d.rooms) }

// description reads the flags.
func (t *tuneRun) description() (d description, err error) {
	d = description{cmp.Or(t.conns, 10_000), t.rooms, t.size, t.rate, t.messages}
	switch {
	case d.conns < 1 || d.rooms < 1 || d.rooms > d.conns:
		return d, errors.New("-conns and -rooms must be positive, and each room needs a connection")
	case t.rate < 0 || t.deliveries < 0 || t.messages < 0 || given(t.rate, t.deliveries, t.messages) > 1:
		return d, errors.New("-rate, -deliveries or -messages must be positive; give one of them")
	case t.deliveries > 0:
		d.rate = t.deliveries / d.members()
	}
	d.rate = cmp.Or(d.rate, 10)
	if d.rate > 1e6 {
		return d, fmt.Errorf("%g publishes/s are more than 1,000,000", d.rate)
	}
	return d, nil
}

// scaled returns a smaller load with at most fit connections. Each connection
// still receives as many messages a second: the load has fewer rooms of the
// same size, or one smaller room if no whole room fits.
func (d description) scaled(fit int) description {
	if d.conns <= fit {
		return d
	}
	rooms := min(d.rooms, max(1, int(float64(fit)/d.members())))
	conns := min(fit, int(float64(rooms)*d.members()))
	return description{
		conns, rooms, d.size, d.rate / float64(d.rooms) * float64(rooms),
		d.messages / float64(d.conns) * float64(conns),
	}
}

// load publishes to all rooms in turn at the rate, or echoes, once.
func (t *tuneRun) load(d description) loadFunc {
	return func(ctx context.Context, s *command.Session) (figures, error) {
		if d.messages > 0 {
			r := workload.NewEchoRun()
			r.Conns, r.Size, r.Timing, r.Modes = d.conns, d.size, t.Timing, "raw"
			r.Rates = strconv.FormatFloat(d.messages, 'g', -1, 64)
			tables, err := r.Run(ctx, s)
			if err != nil {
				return figures{}, err
			}
			return tableFigures(tables)
		}
		r := workload.NewFanoutRun()
		r.Conns, r.Rooms, r.Size, r.Timing = d.conns, d.rooms, d.size, t.Timing
		r.Rates = strconv.FormatFloat(d.rate, 'g', -1, 64)
		tables, err := r.Run(ctx, s)
		if err != nil {
			return figures{}, err
		}
		return tableFigures(tables)
	}
}

// fit is how many connections this machine allows for both ends, from one
// address.
func fit() (int, error) {
	facts, err := doctor.Read("/", doctor.Self())
	if err != nil {
		return 0, err
	}
	most := facts.Diagnose(0).Allowed - 200 // for the load generator's other descriptors
	if ports := facts.Ports[1] - facts.Ports[0]; ports > 1000 {
		most = min(most, ports-1000)
	}
	if most < 1 {
		return 0, errors.New("no connections are allowed: see bench doctor")
	}
	return int(most), nil
}

// variation is one setting that differs from the default in one option.
type variation struct {
	setting
	option, reason string // no option is the default itself
}

// variations returns the default b and the settings that may suit d better.
func variations(b setting, d description) []variation {
	all := []variation{{setting: b}}
	for _, loops := range doublings(b.loops) {
		if loops != b.loops {
			v := b
			v.loops = loops
			all = append(all, variation{
				v, "loops",
				"fewer loops take more messages in one batch, and leave processors to publishers and handlers",
			})
		}
	}
	spare := b
	spare.spare = 2 // the default is one
	all = append(all, variation{spare, "gomaxprocs", "a further idle processor spares Go's scheduler work"})
	for factor, reason := range map[float64]string{
		1. / 4: "smaller batches write to the members while their queues are still in the processor's cache",
		4:      "larger batches let more messages share a write",
	} {
		v := b
		v.batch = max(1, int(float64(b.batch)*factor))
		all = append(all, variation{v, "batch", reason})
	}
	for factor, reason := range map[float64]string{
		1. / 4: "a smaller ring holds publishers back earlier, so that less waits in it",
		4:      "with a larger ring publishers wait less often",
	} {
		v := b
		v.ring = max(1, int(float64(b.ring)*factor))
		all = append(all, variation{v, "ring", reason})
	}
	if d.rooms > 1 {
		v := b
		v.shards *= 4
		all = append(all, variation{v, "room-shards", "with more shards fewer rooms share a lock"})
	}
	slices.SortStableFunc(all[1:], func(a, b variation) int { // maps have no order
		return cmp.Or(cmp.Compare(a.option, b.option), cmp.Compare(a.loops, b.loops),
			cmp.Compare(a.batch, b.batch), cmp.Compare(a.ring, b.ring), cmp.Compare(a.spare, b.spare))
	})
	return all
}

// finding is a variation and its gain over the default.
type finding struct {
	variation
	*trial
	cpuGain, p99Gain gain
	loses            bool // messages, which the default does not
}

// judge compares the trials with the first, which is the default.
func judge(all []variation, trials []*trial) []finding {
	found := make([]finding, len(all))
	for i, t := range trials {
		found[i] = finding{all[i], t, newGain(trials[0].cpu, t.cpu), newGain(trials[0].p99, t.p99), t.lost > trials[0].lost}
	}
	return found
}

// good reports whether the variation takes less CPU, by more than noise, and
// costs nothing else.
func (f *finding) good() bool { return f.cpuGain.real() && !f.p99Gain.loss() && !f.loses }

// verdict says why a variation is good or not.
func (f *finding) verdict() string {
	switch {
	case f.option == "":
		return "the default"
	case f.loses:
		return "loses messages"
	case f.p99Gain.loss():
		return fmt.Sprintf("p99 is %.0f %% higher", -saved(f.p99Gain.median))
	}
	return f.cpuGain.verdict()
}

// choose returns the best of the good variations of each option.
func choose(found []finding) (chosen []finding) {
	for _, f := range found {
		if f.option == "" || !f.good() {
			continue
		}
		i := slices.IndexFunc(chosen, func(c finding) bool { return c.option == f.option })
		switch {
		case i < 0:
			chosen = append(chosen, f)
		case f.cpuGain.median > chosen[i].cpuGain.median:
			chosen[i] = f
		}
	}
	return chosen
}

// combine is the default with all that was chosen.
func combine(base setting, chosen []finding) setting {
	s := base
	for _, f := range chosen {
		switch f.option {
		case "loops":
			s.loops = f.variation.loops
		case "gomaxprocs":
			s.spare = f.variation.spare
		case "batch":
			s.batch = f.variation.batch
		case "ring":
			s.ring = f.variation.ring
		case "room-shards":
			s.shards = f.variation.shards
		}
	}
	return s
}

// Run measures each option with the load that is described, and then all options
// that gain, together and against the default. The second measurement counts as the
// gain: the best of many settings is best by luck, too.
func (t *tuneRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	asked, err := t.description()
	if err != nil {
		return nil, err
	}
	most, err := fit()
	if err != nil {
		return nil, err
	}
	d := asked.scaled(most)
	all := variations(baseSetting(s).resolved(), d)
	settings := make([]setting, len(all))
	for i, v := range all {
		settings[i] = v.setting
	}
	trials, err := try(ctx, s, settings, t.rounds, &t.Timing, t.load(d))
	if err != nil {
		return nil, err
	}
	found := judge(all, trials)
	rows := tuneTable(d, found)
	a := &advice{asked: asked, measured: d, chosen: choose(found), base: all[0].setting}
	if len(a.chosen) > 0 {
		a.setting = combine(a.base, a.chosen)
		again, err := try(ctx, s, []setting{a.base, a.setting}, t.rounds, &t.Timing, t.load(d))
		if err != nil {
			return nil, err
		}
		confirmed := judge([]variation{all[0], {a.setting, "all of them, again", ""}}, again)[1]
		a.confirmed = &confirmed
		addFinding(rows, &confirmed)
	}
	a.reached = result.Median(trials[0].rate) / cmp.Or(d.messages, d.rate*d.members())
	rows.Notes = a.lines(t.rounds)
	return []*result.Table{rows}, nil
}

func tuneTable(d description, found []finding) *result.Table {
	t := &result.Table{
		Command: "tune", Title: fmt.Sprintf("Options one by one, in turns, each on a fresh server: %s", d),
		Columns: []result.Column{
			{"option", "option", "%s"},
			{"loops", "loops", "%d"},
			{"room_shards", "room shards", "%d"},
			{"batch", "batch", "%d"},
			{"ring", "ring", "%d"},
			{"spare", "GOMAXPROCS +", "%d"},
			{"server_us", "server µs/dlv", "%.3f"},
			{"per_second", "deliveries/s", "%.0f"},
			{"p99_ms", "p99 ms", "%.1f"},
			{"lost", "lost", "%.0f"},
			{"gain_percent", "CPU saved %", "%.1f"},
			{"gain_low_percent", "from", "%.1f"},
			{"gain_high_percent", "to", "%.1f"},
			{"verdict", "verdict", "%s"},
		}, Charts: []result.Chart{
			{
				Kind: report.Bars, X: []string{"option", "loops", "room_shards", "batch", "ring", "spare"},
				Y: []string{"server_us"},
			},
		},
	}
	for i := range found {
		addFinding(t, &found[i])
	}
	return t
}

func addFinding(t *result.Table, f *finding) {
	s := f.variation.setting
	t.Add(cmp.Or(f.option, "-"), s.loops, s.shards, s.batch, s.ring, s.spare,
		result.Median(f.cpu), result.Median(f.rate), result.Median(f.p99), f.lost,
		saved(f.cpuGain.median), saved(f.cpuGain.low), saved(f.cpuGain.high), f.verdict())
}
