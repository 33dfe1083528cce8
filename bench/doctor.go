//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/qi-realtime/ws/bench/doctor"
	"github.com/qi-realtime/ws/bench/report"
)

var doctorCommand = command{
	name:  "doctor",
	about: "what the limits of this machine allow in connections, and the commands that raise them",
	help: `Reads the limits of this machine, says how many connections each allows and which
of them binds, and prints the commands that raise those that are too low.`,
	example:  "bench doctor -conns 1000000",
	notInAll: true,
	new:      func() runner { return newDoctorRun() },
}

// doctorConns is how many connections measure the kernel's memory for a socket.
const doctorConns = 2000

// doctorRun is a run of doctor.
type doctorRun struct {
	conns   int
	measure bool
}

func newDoctorRun() *doctorRun { return &doctorRun{measure: true} }

func (o *doctorRun) flags(fs *flag.FlagSet) {
	fs.IntVar(&o.conns, "conns", o.conns, "doctor: connections to hold; 0 is what the limits allow")
	fs.BoolVar(&o.measure, "measure", o.measure, "doctor: measure the kernel's memory for a socket with 2,000 connections")
}

func (o *doctorRun) validate(*session) error { return nil }

// run judges the limits of this machine.
func (o *doctorRun) run(_ context.Context, s *session) ([]*table, error) {
	if o.conns < 0 {
		return nil, errors.New("-conns is negative")
	}
	facts, err := doctor.Read("/", doctor.Self())
	if err != nil {
		return nil, err
	}
	if o.measure {
		fit := int(min(doctorConns, (facts.Hard-100)/2))
		if facts.SocketBytes, err = doctor.MeasureSocket(fit); err != nil && s.verbose {
			fmt.Fprintln(os.Stderr, err) // then a usual value serves
		}
	}
	return []*table{doctorTable(facts.Diagnose(int64(o.conns)))}, nil
}

// doctorTable is a diagnosis as a table, and the commands below it.
func doctorTable(d *doctor.Diagnosis) *table {
	t := &table{
		command: "doctor", title: fmt.Sprintf("What the limits allow; the verdicts are for %d connections in one server process", d.Target),
		columns: []column{
			{"limit", "limit", "%s"},
			{"value", "value", "%s"},
			{"allows", "connections", "%v"},
			{"verdict", "verdict", "%s"},
		}, charts: []chart{
			{Kind: report.Bars, Title: "Connections that each limit allows", X: []string{"limit"}, Y: []string{"allows"}, LogY: true},
		},
	}
	t.notes = append(t.notes, fmt.Sprintf("The limits allow %d connections now; what binds is %s.", d.Allowed, d.Binding))
	if missing := d.Missing(); len(missing) > 0 {
		t.notes = append(t.notes, fmt.Sprintf("Too low for %d: %s.", d.Target, strings.Join(missing, ", ")))
	}
	t.notes = append(t.notes, "")
	for _, f := range d.Findings {
		t.add(f.Name, f.Value, allowed(f.Allows), string(f.Verdict))
		if len(f.Commands) > 0 {
			t.notes = append(t.notes, "")
		}
		t.notes = append(t.notes, fmt.Sprintf("%s: %s. %s.", f.Name, f.Verdict, f.Why))
		for _, c := range f.Commands {
			t.notes = append(t.notes, "  "+c)
		}
	}
	return t
}

// allowed is a number of connections, or a dash for a limit that bounds none.
func allowed(n int64) any {
	if n == doctor.Unknown {
		return "-"
	}
	return n
}
