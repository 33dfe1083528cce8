//go:build linux

// Command bench measures the library on this machine: memory for each idle
// connection, echo and fan-out throughput, delivery latency. See README.md.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

// command is a subcommand.
type command struct {
	name, about string
	run         func(context.Context, *options) ([]*table, error)
}

// commands are the subcommands, in the order of all.
var commands = []command{
	{"idle", "heap and RSS for each idle connection, and the CPU that accepting it takes", runIdle},
	{"echo", "messages per second when every client keeps some in flight, or their latency at a fixed rate", runEcho},
	{"fanout", "deliveries per second to one room or many, at full speed or at a fixed rate", runFanout},
	{"latency", "fanout -rate 4, for twice as long: time from publish to delivery", runLatency},
	{"mixed", "chat: clients speak in rooms of skewed sizes, change rooms, reconnect", runMixed},
	{"slow", "heap for each stalled client that holds 100 messages, and what slow members do to others", runSlow},
	{"tls", "what TLS adds: CPU to accept, memory of an idle connection, CPU for an echo", runTLS},
	{"storm", "connections per second when all clients connect or reconnect at once, and what others notice of it", runStorm},
	{"drain", "how a shutdown treats clients that have messages queued", runDrain},
	{"sim", "memory and CPU of up to a million connections, without sockets", runSim},
	{"burst", "time until a client that sends all at once is answered, against gws", runBurst},
	{"fair", "round trip of one client while a publisher floods a room on its event loop", runFair},
	{"attack", "what attackers cost healthy clients and the server, one kind after the other", runAttack},
	{"compare", "the same loads against this library and its peers in turn", runCompare},
	{"doctor", "what the limits of this machine allow in connections, and the commands that raise them", runDoctor},
	{"sweep", "one load with every combination of loops, room shards, batch and ring", runSweep},
	{"tune", "which options suit a load that you describe, and what they gain", runTune},
}

// notInAll are those that take long, or measure nothing.
var notInAll = []string{"attack", "burst", "compare", "doctor", "sim", "sweep", "tune"}

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
		exit(serve(os.Args[2], os.Stdin, os.Stdout))
	case len(os.Args) == 3 && os.Args[1] == "strike":
		exit(runStrike(os.Args[2], os.Stdout))
	case len(os.Args) == 3 && os.Args[1] == "simulate":
		exit(simulate(os.Args[2], os.Stdout))
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
	cmd, o, err := commandOf(args, out)
	switch {
	case err != nil:
		return err
	case cmd == "report":
		return runReport(o, out)
	}
	return runCommands(ctx, cmd, o, out)
}

// commandOf reads the command line args, and checks what it says.
func commandOf(args []string, out io.Writer) (cmd string, o *options, err error) {
	opts := defaultOptions()
	opts.args, opts.commandLine = args, commandLine(args)
	if cmd, err = opts.parse(args, out); err != nil || cmd == "report" {
		return cmd, &opts, err
	}
	if err := cmp.Or(opts.validate(), opts.checkProcs(cmd)); err != nil {
		return "", nil, &usageError{err.Error()}
	}
	return cmd, &opts, nil
}

// runCommands runs one command, or all, and prints.
func runCommands(ctx context.Context, cmd string, o *options, out io.Writer) error {
	d := &report.Document{CommandLine: o.commandLine, Started: time.Now().Truncate(time.Second), Machine: thisMachine(ctx, o)}
	page, err := createPage(o.html)
	if err != nil {
		return err
	}
	defer page.discard()
	o.progress = newProgress(os.Stderr, o.verbose)
	if !o.json {
		writeMachine(out, &d.Machine)
	}
	for _, c := range commands {
		if cmd != c.name && (cmd != "all" || slices.Contains(notInAll, c.name)) {
			continue
		}
		opts := *o
		run := c.run
		if o.procs > 1 {
			run = runParts
		}
		tables, err := run(ctx, &opts)
		o.progress.done()
		if err != nil {
			return fmt.Errorf("bench %s: %w", c.name, err)
		}
		for _, t := range tables {
			d.Tables = append(d.Tables, t.export())
			if !o.json {
				t.write(out)
			}
		}
	}
	if o.json {
		if err := writeJSON(out, d); err != nil {
			return err
		}
	}
	return page.write(d)
}

// validate checks the flags that several commands know.
func (o *options) validate() error {
	switch {
	case o.path != "" && o.path != "native" && o.path != "http":
		return fmt.Errorf("bench: -path is %q, must be native or http", o.path)
	case o.size < control.StampBytes || o.size > 1<<20:
		return fmt.Errorf("bench: -size is %d, must be between %d and 1048576", o.size, control.StampBytes)
	case o.outstanding < 1 || o.outstanding >= seqWindow/2 || o.clientLoops < 1 || o.rounds < 1 || o.sweeping.rounds < 1 || o.compareRounds < 1 || o.rooms < 1 || o.procs < 1 || o.staying < 1 || o.opening < 0 || o.joinRooms < 0 || o.moving < 0 || o.reconnecting < 0:
		return errors.New("bench: -outstanding, -client-loops, -rounds, -rooms, -procs, -staying, -opening, -join-rooms, -moving or -reconnecting is out of range")
	}
	if o.stalled < 0 || o.trickle < 0 || o.stalled+o.trickle >= 100 || (o.compare && o.stalled+o.trickle == 0) {
		return errors.New("bench: -stalled and -trickle must be at least 0 and below 100 together, and above 0 with -compare")
	}
	if o.admit < 0 || o.admitBurst < 0 || (o.admitBurst > 0 && o.admit == 0) {
		return errors.New("bench: -admit or -admit-burst is out of range, or the burst has no rate")
	}
	if _, err := o.rateList(); err != nil {
		return err
	}
	if _, err := o.echoLoads(); err != nil {
		return err
	}
	if o.steps != "" {
		_, err := o.stepCounts()
		return err
	}
	return cmp.Or(o.burst.validate(), o.attack.validate())
}

// setDefaults fills in what depends on the command.
func (o *options) setDefaults(conns int) {
	if o.conns == 0 {
		o.conns = conns
	}
	o.conns = o.part.share(o.conns)
	if o.path == "" {
		o.path = "native"
	}
}

// rateList reads -rate; there is none if it is not set.
func (o *options) rateList() ([]float64, error) {
	if o.rates == "" {
		return nil, nil
	}
	var rates []float64
	for field := range strings.SplitSeq(o.rates, ",") {
		rate, err := strconv.ParseFloat(field, 64)
		if err != nil || !(rate > 0 && rate <= 1e6) {
			return nil, fmt.Errorf("bench: -rate is %q, must be numbers per second such as 4,10,100", o.rates)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// inflightCounts reads -inflight.
func (o *options) inflightCounts() ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(o.inflights, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("bench: -inflight is %q, must be counts such as 1,16", o.inflights)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// stepCounts reads -steps.
func (o *options) stepCounts() ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(o.steps, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || (len(counts) > 0 && n <= counts[len(counts)-1]) {
			return nil, fmt.Errorf("bench: -steps is %q, must be rising counts such as 2000,15000", o.steps)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// start runs a server and a load generator for it. The caller calls stop.
func start(ctx context.Context, o *options, path string, conns int, cfg control.Config, t func(i int) traffic) (srv *server, g *generator, stop func(), err error) {
	srv, err = launch(ctx, o, conns, cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	g, err = newGenerator(srv.addr(path), o.clientLoops, conns, o.compress, t)
	if err != nil {
		srv.stop()
		return nil, nil, nil, err
	}
	return srv, g, func() { g.stop(); srv.stop() }, nil
}

// launch starts a server for so many connections.
func launch(ctx context.Context, o *options, conns int, cfg control.Config) (*server, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(conns)+200 > limit.Cur {
		return nil, fmt.Errorf("%d connections need a higher ulimit -n than %d", conns, limit.Cur)
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = conns + 16
	}
	return startServer(ctx, o, cfg)
}
