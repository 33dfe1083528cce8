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
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

// options is what the flags set; zero conns means the command's own default.
type options struct {
	conns, size, outstanding, rooms int
	staying, opening, joinRooms     int
	authDelay                       time.Duration
	inflights, modes                string
	steps, path                     string
	sweep, join, json, verbose      bool
	compress                        bool
	compare                         bool
	stalled                         float64 // percent
	rates, sizes                    string
	duration, warmup, quiet         time.Duration
	rounds                          int
	loops, maxprocs, clientLoops    int
	queue, ring, batch, roomShards  int
	measure                         bool
	cpuprofile, memprofile          string
	html, commandLine               string
	markdown                        bool     // report
	files                           []string // report
	progress                        *progress
}

func defaultOptions() options {
	return options{
		size: 512, inflights: "1,16", modes: "raw", outstanding: 64, steps: "2000,5000,10000,15000", path: "",
		sizes:   "64,512,16384",
		staying: 1000, opening: 1000, joinRooms: 2,
		rooms: 1, duration: 5 * time.Second, warmup: time.Second, quiet: time.Second, rounds: 1,
		clientLoops: runtime.NumCPU(), measure: true,
	}
}

// register declares the flags of a command, or all of them if cmd is empty.
// What is already in o is the default, so flags may precede the command.
func (o *options) register(fs *flag.FlagSet, cmd string) {
	has := func(commands ...string) bool {
		for _, c := range commands {
			if cmd == "" || cmd == "all" || cmd == c {
				return true
			}
		}
		return false
	}
	fs.BoolVar(&o.json, "json", o.json, "print JSON")
	fs.StringVar(&o.html, "html", o.html, "write the report with its charts to `file`, too")
	fs.BoolVar(&o.verbose, "v", o.verbose, "print the server's process ID and what is going on to standard error")
	fs.StringVar(&o.path, "path", o.path, "`native` or http: who accepts and upgrades (idle: both unless set)")
	fs.IntVar(&o.loops, "loops", o.loops, "event loops of the server; 0 is GOMAXPROCS, or 1 for fair")
	fs.IntVar(&o.maxprocs, "maxprocs", o.maxprocs, "GOMAXPROCS of the server; 0 leaves it alone")
	fs.IntVar(&o.clientLoops, "client-loops", o.clientLoops, "epoll loops of the load generator")
	fs.IntVar(&o.queue, "queue", o.queue, "WithMessageQueueSize; 0 is the library's default")
	fs.IntVar(&o.ring, "ring", o.ring, "BroadcastConfig.QueueSize; 0 is the library's default")
	fs.IntVar(&o.batch, "batch", o.batch, "BroadcastConfig.BatchSize; 0 is the library's default")
	fs.IntVar(&o.roomShards, "room-shards", o.roomShards, "WithRoomShards, a power of two; 0 is the library's default")
	if has("idle") {
		fs.StringVar(&o.steps, "steps", o.steps, "idle: connection `counts` to measure at")
		fs.DurationVar(&o.quiet, "quiet", o.quiet, "idle: wait before memory is measured")
		fs.BoolVar(&o.join, "join", o.join, "idle: every connection joins one room")
		fs.BoolVar(&o.compress, "compress", o.compress, "idle: every connection negotiates permessage-deflate")
		fs.StringVar(&o.memprofile, "memprofile", o.memprofile, "idle: write the server's heap at the last count to `file`; inflates the other figures")
	}
	if has("echo", "fanout", "latency", "slow", "fair", "tls", "storm") {
		fs.IntVar(&o.conns, "conns", o.conns, "connections; 0 is 10,000 for fanout and latency, 5,000 for storm, 1,000 for the others")
		fs.IntVar(&o.rounds, "rounds", o.rounds, "repetitions, one row each")
	}
	if has("echo", "fanout", "latency", "slow", "fair", "storm") {
		fs.IntVar(&o.size, "size", o.size, "payload bytes, at least 16")
	}
	if has("tls") {
		fs.StringVar(&o.sizes, "sizes", o.sizes, "tls: payload `bytes` to echo, a row each")
	}
	if has("echo", "fanout", "latency", "fair", "tls") {
		fs.DurationVar(&o.duration, "duration", o.duration, "time to measure for; latency and fair take twice as long")
		fs.DurationVar(&o.warmup, "warmup", o.warmup, "time to run before measuring")
		fs.StringVar(&o.cpuprofile, "cpuprofile", o.cpuprofile, "write the server's CPU profile of the last row to `file`")
	}
	if has("echo") {
		fs.StringVar(&o.inflights, "inflight", o.inflights, "echo: messages in flight on each connection, `counts` for a row each")
	}
	if has("storm") {
		o.registerStorm(fs)
	}
	if has("fanout") {
		fs.IntVar(&o.outstanding, "outstanding", o.outstanding, "fanout: publishes that not all members have received")
		fs.BoolVar(&o.sweep, "sweep", o.sweep, "fanout: 1, 4, 16 and 64 outstanding")
	}
	if cmd == "doctor" {
		fs.IntVar(&o.conns, "conns", o.conns, "doctor: connections to hold; 0 is what the limits allow")
	}
	if has("doctor") {
		fs.BoolVar(&o.measure, "measure", o.measure, "doctor: measure the kernel's memory for a socket with 2,000 connections")
	}
	if has("echo") {
		fs.StringVar(&o.modes, "mode", o.modes, "echo: raw (HandleRaw inline), pooled (HandleRaw on workers), json (a typed handler on workers), json-inline; `modes` for a row each")
	}
	if has("echo", "fanout", "latency", "storm") {
		fs.StringVar(&o.rates, "rate", o.rates, "messages (echo) or publishes per second over all connections or rooms, `rates` such as 4,10,100 for a row each; latency: 4 unless set; storm: 20")
	}
	if has("fanout", "latency") {
		fs.IntVar(&o.rooms, "rooms", o.rooms, "fanout, latency: rooms that the members are spread over and the publisher takes in turn")
		fs.Float64Var(&o.stalled, "stalled", o.stalled, "fanout, latency: so many `percent` of the members never read")
		fs.BoolVar(&o.compare, "compare", o.compare, "fanout, latency: every round without and with the stalled members, and the ratios")
	}
}

// registerStorm declares the flags of storm.
func (o *options) registerStorm(fs *flag.FlagSet) {
	fs.IntVar(&o.staying, "staying", o.staying, "storm: `members` that stay, and get what is published meanwhile")
	fs.IntVar(&o.opening, "opening", o.opening, "storm: handshakes under way at once; 0 is all")
	fs.IntVar(&o.joinRooms, "join-rooms", o.joinRooms, "storm: rooms that the server puts each client into")
	fs.DurationVar(&o.authDelay, "auth-delay", o.authDelay, "storm: time that authentication waits, as for a database")
}

// commands are the subcommands, in the order of all.
var commands = []struct {
	name, about string
	run         func(context.Context, *options) ([]*table, error)
}{
	{"idle", "heap and RSS for each idle connection, and the CPU that accepting it takes", runIdle},
	{"echo", "messages per second when every client keeps some in flight, or their latency at a fixed rate", runEcho},
	{"fanout", "deliveries per second to one room or many, at full speed or at a fixed rate", runFanout},
	{"latency", "fanout -rate 4, for twice as long: time from publish to delivery", runLatency},
	{"slow", "heap for each stalled client that holds 100 messages of a broadcast", runSlow},
	{"tls", "what TLS adds: CPU to accept, memory of an idle connection, CPU for an echo", runTLS},
	{"storm", "connections per second when all clients connect or reconnect at once, and what others notice of it", runStorm},
	{"fair", "round trip of one client while a publisher floods a room on its event loop", runFair},
	{"doctor", "what the limits of this machine allow in connections, and the commands that raise them", runDoctor},
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		exit(serve(os.Args[2], os.Stdin, os.Stdout))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	exit(bench(ctx, os.Args[1:], os.Stdout))
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
	o := defaultOptions()
	o.commandLine = commandLine(args)
	cmd, err := o.parse(args, out)
	if err != nil {
		return err
	}
	if cmd == "report" {
		return runReport(&o, out)
	}
	if err := o.validate(); err != nil {
		return &usageError{err.Error()}
	}
	return runCommands(ctx, cmd, &o, out)
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
		if cmd != c.name && cmd != "all" {
			continue
		}
		opts := *o
		tables, err := c.run(ctx, &opts)
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

func (o *options) validate() error {
	switch {
	case o.path != "" && o.path != "native" && o.path != "http":
		return fmt.Errorf("bench: -path is %q, must be native or http", o.path)
	case o.size < control.StampBytes || o.size > 1<<20:
		return fmt.Errorf("bench: -size is %d, must be between %d and 1048576", o.size, control.StampBytes)
	case o.outstanding < 1 || o.outstanding >= seqWindow/2 || o.clientLoops < 1 || o.rounds < 1 || o.rooms < 1 || o.staying < 1 || o.opening < 0 || o.joinRooms < 0:
		return errors.New("bench: -outstanding, -client-loops, -rounds, -rooms, -staying, -opening or -join-rooms is out of range")
	}
	if o.stalled < 0 || o.stalled >= 100 || (o.compare && o.stalled == 0) {
		return errors.New("bench: -stalled must be at least 0 and below 100, and above 0 with -compare")
	}
	if _, err := o.rateList(); err != nil {
		return err
	}
	if _, err := o.echoLoads(); err != nil {
		return err
	}
	_, err := o.stepCounts()
	return err
}

// setDefaults fills in what depends on the command.
func (o *options) setDefaults(conns int) {
	if o.conns == 0 {
		o.conns = conns
	}
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
