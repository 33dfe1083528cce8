//go:build linux

package doctor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/workload"
)

// Command is the command doctor.
var Command = command.Command{
	Name:  "doctor",
	About: "the connections that this machine's limits allow, and the commands that raise the limits",
	Help: `Reads the limits of this machine, prints how many connections each allows and which
limit is the lowest, and the commands that raise the limits that are too low.`,
	Example:  "bench doctor -conns 1000000",
	NotInAll: true,
	New:      func() command.Runner { return newRunner() },
}

// doctorConns is how many connections measure the kernel's memory for a socket.
const doctorConns = 2000

// runner is a run of doctor.
type runner struct {
	conns   int
	measure bool
}

func newRunner() *runner { return &runner{measure: true} }

func (o *runner) Flags(fs *flag.FlagSet) {
	fs.IntVar(&o.conns, "conns", o.conns, "doctor: connections to hold; 0 is the number that the limits allow")
	fs.BoolVar(&o.measure, "measure", o.measure, "doctor: measure the kernel's memory for a socket with 2,000 connections")
}

func (o *runner) Validate(*command.Session) error { return nil }

// Run judges the limits of this machine.
func (o *runner) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	if o.conns < 0 {
		return nil, errors.New("-conns is negative")
	}
	facts, err := Read("/", Self())
	if err != nil {
		return nil, err
	}
	if o.measure {
		fit := int(min(doctorConns, (facts.Hard-100)/2))
		if facts.SocketBytes, err = MeasureSocket(fit); err != nil && s.Verbose {
			fmt.Fprintln(os.Stderr, err) // then a usual value serves
		}
	}
	t := doctorTable(facts.Diagnose(int64(o.conns)))
	if o.measure {
		note, err := batchedWrites(ctx, s)
		if err != nil {
			return nil, err
		}
		t.Notes = append(t.Notes, "", note)
	}
	return []*result.Table{t}, nil
}

// batchMembers is the size of the room that measures batched writes.
const batchMembers = 1000

// batchedWrites measures the cost of a delivery with batched writes and without.
func batchedWrites(ctx context.Context, s *command.Session) (note string, err error) {
	var costs, writes [2]float64
	for i, single := range []bool{false, true} {
		with := *s
		with.Path, with.SingleWrites, with.Progress = "native", single, nil
		r := workload.NewFanoutRun()
		r.Conns, r.Rates, r.Timing = batchMembers, "40", load.Timing{Warmup: time.Second / 2, Duration: 2 * time.Second}
		tables, err := r.Run(ctx, &with)
		if err != nil {
			return "", err
		}
		row := tables[len(tables)-1].Last()
		costs[i], writes[i] = row["server_us"], row["writes"]
	}
	if writes[0] > 0.5 {
		return fmt.Sprintf("batched writes: the kernel lacks or forbids io_uring. A delivery takes %.1f µs of CPU.",
			costs[1]), nil
	}
	return fmt.Sprintf("batched writes: they work. A delivery to a room of %d takes %.1f µs of CPU, and %.1f µs without.",
		batchMembers, costs[0], costs[1]), nil
}

// doctorTable is a diagnosis as a table, and the commands below it.
func doctorTable(d *Diagnosis) *result.Table {
	t := &result.Table{
		Command: "doctor",
		Title: fmt.Sprintf("The limits of this machine; the verdicts are for %d connections in one server process",
			d.Target),
		Columns: []result.Column{
			{"limit", "limit", "%s"},
			{"value", "value", "%s"},
			{"allows", "connections", "%v"},
			{"verdict", "verdict", "%s"},
		}, Charts: []result.Chart{
			{
				Kind: report.Bars, Title: "Connections that each limit allows", X: []string{"limit"}, Y: []string{"allows"},
				LogY: true,
			},
		},
	}
	t.Notes = append(t.Notes,
		fmt.Sprintf("The limits allow %d connections now; the narrowest is %s.", d.Allowed, d.Binding))
	if missing := d.Missing(); len(missing) > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("Too low for %d: %s.", d.Target, strings.Join(missing, ", ")))
	}
	t.Notes = append(t.Notes, "")
	for _, f := range d.Findings {
		t.Add(f.Name, f.Value, allowed(f.Allows), string(f.Verdict))
		if len(f.Commands) > 0 {
			t.Notes = append(t.Notes, "")
		}
		t.Notes = append(t.Notes, fmt.Sprintf("%s: %s. %s.", f.Name, f.Verdict, f.Why))
		for _, c := range f.Commands {
			t.Notes = append(t.Notes, "  "+c)
		}
	}
	return t
}

// allowed is a number of connections, or a dash for a limit that bounds none.
func allowed(n int64) any {
	if n == Unknown {
		return "-"
	}
	return n
}
