//go:build linux

// Command bench measures the library on this machine: memory for each idle
// connection, echo and fan-out throughput, delivery latency. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/qi-realtime/ws/bench/attack"
	"github.com/qi-realtime/ws/bench/cluster"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/compare"
	"github.com/qi-realtime/ws/bench/doctor"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/resume"
	"github.com/qi-realtime/ws/bench/server"
	"github.com/qi-realtime/ws/bench/sim"
	"github.com/qi-realtime/ws/bench/soak"
	"github.com/qi-realtime/ws/bench/tune"
	"github.com/qi-realtime/ws/bench/workload"
)

// commands are the subcommands, in the order of all.
var commands = []*command.Command{
	&workload.IdleCommand,
	&workload.EchoCommand,
	&workload.FanoutCommand,
	&workload.LatencyCommand,
	&workload.MixedCommand,
	&workload.SlowCommand,
	&workload.TLSCommand,
	&workload.StormCommand,
	&workload.DrainCommand,
	&resume.Command,
	&cluster.Command,
	&sim.Command,
	&workload.BurstCommand,
	&workload.FairCommand,
	&attack.Command,
	&soak.Command,
	&compare.Command,
	&doctor.Command,
	&tune.SweepCommand,
	&tune.Command,
}

func main() {
	hidden()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	exit(bench(ctx, os.Args[1:], os.Stdout))
}

// hidden runs the commands that this program starts itself with, and ends; or it
// returns.
func hidden() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		exit(server.Serve(os.Args[2], os.Stdin, os.Stdout, nil))
	case len(os.Args) == 3 && os.Args[1] == "strike":
		exit(attack.Strike(os.Args[2], os.Stdout))
	case len(os.Args) == 3 && os.Args[1] == "simulate":
		exit(sim.Simulate(os.Args[2], os.Stdout))
	case len(os.Args) > 3 && os.Args[1] == "part":
		exit(runPart(context.Background(), os.Args[2], os.Args[3:], os.Stdin, os.Stdout))
	}
}

// exit ends the program: 0 for success and -h, 2 for wrong use, 1 for failures.
func exit(err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.As(err, new(*usageError)) {
		os.Exit(2)
	}
	os.Exit(1)
}

// bench runs the command line args.
func bench(ctx context.Context, args []string, out io.Writer) error {
	inv, err := parse(args, out)
	switch {
	case err != nil:
		return err
	case inv.report != nil:
		return inv.report.run(inv, out)
	}
	return inv.run(ctx, out)
}

// run runs the commands, and prints.
func (inv *invocation) run(ctx context.Context, out io.Writer) error {
	d := &report.Document{
		CommandLine: commandLine(inv.args), Started: time.Now().Truncate(time.Second),
		Machine: result.ThisMachine(ctx, inv.session.MaxProcs),
	}
	page, err := createPage(inv.html)
	if err != nil {
		return err
	}
	defer page.discard()
	inv.session.Progress = command.NewProgress(os.Stderr, inv.session.Verbose)
	if !inv.json {
		result.WriteMachine(out, &d.Machine)
	}
	var verdict error
	for _, c := range inv.runs {
		tables, err := inv.runOne(ctx, c.Runner)
		inv.session.Progress.Done()
		switch {
		case errors.As(err, new(*command.VerdictError)):
			verdict = errors.Join(verdict, fmt.Errorf("bench %s: %w", c.Name, err))
		case err != nil:
			return fmt.Errorf("bench %s: %w", c.Name, err)
		}
		for _, t := range tables {
			d.Tables = append(d.Tables, t.Export())
			if !inv.json {
				t.Write(out)
			}
		}
	}
	if inv.json {
		if err := writeJSON(out, d); err != nil {
			return err
		}
	}
	return errors.Join(page.write(d), verdict)
}

func (inv *invocation) runOne(ctx context.Context, r command.Runner) ([]*result.Table, error) {
	if inv.session.Procs > 1 {
		return runParts(ctx, inv.args, inv.session.Procs)
	}
	s := inv.session // a command may change its session
	return r.Run(ctx, &s)
}
