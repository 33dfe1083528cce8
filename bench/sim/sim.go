//go:build linux

package sim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// Command is the command sim.
var Command = command.Command{
	Name:  "sim",
	About: "memory and CPU of up to a million connections, without sockets",
	Help: `Holds up to a million connections without sockets: the library itself, with its
shards, rooms, queues and timers, over a network in memory. Memory of a connection,
CPU time of joins, deliveries, pings and the shutdown, at each of some counts, and
how far they grow with the count or with the number of event loops.`,
	Example:  "bench sim -steps 10000,100000,1000000",
	NotInAll: true,
	Varies:   true,
	New:      func() command.Runner { return newRunner() },
}

const (
	// needs is the memory of a simulated connection at its peak, in bytes.
	needs = 5000
)

// metric is a column of a result of sim, and a row of the ratios.
type metric struct {
	result.Column
	name  string // by itself, without the columns beside it
	unit  string
	value func(*step) float64
}

// memoryMetrics and workMetrics are the columns of the two tables.
var memoryMetrics = []metric{
	{
		result.Column{"heap_bytes", "heap B/conn", "%.0f"},
		"heap, idle", "B",
		func(s *step) float64 { return s.HeapPlain },
	},
	{
		result.Column{"rss_bytes", "RSS B/conn", "%.0f"},
		"RSS, idle", "B",
		func(s *step) float64 { return s.RSSPlain },
	},
	{
		result.Column{"heap_bytes_room", "heap in one room", "%.0f"},
		"heap, in one room", "B",
		func(s *step) float64 { return s.HeapRoom },
	},
	{
		result.Column{"rss_bytes_room", "RSS in one room", "%.0f"},
		"RSS, in one room", "B",
		func(s *step) float64 { return s.RSSRoom },
	},
	{
		result.Column{"heap_bytes_rooms", "heap in all rooms", "%.0f"},
		"heap, in all rooms", "B",
		func(s *step) float64 { return s.HeapRooms },
	},
	{
		result.Column{"rss_bytes_rooms", "RSS in all rooms", "%.0f"},
		"RSS, in all rooms", "B",
		func(s *step) float64 { return s.RSSRooms },
	},
	{
		result.Column{"heap_bytes_stalled", "heap B/stalled conn", "%.0f"},
		"heap, stalled", "B",
		func(s *step) float64 { return s.HeapStalled },
	},
	{
		result.Column{"peak_bytes", "peak RSS B/conn", "%.0f"},
		"RSS at its peak", "B",
		func(s *step) float64 { return s.PeakRSS / float64(s.Conns) },
	},
}

var workMetrics = []metric{
	{
		result.Column{"connect_us", "connect µs", "%.2f"},
		"connect", "µs",
		func(s *step) float64 { return s.ConnectMicros },
	},
	{
		result.Column{"join_us", "join µs", "%.2f"},
		"join", "µs",
		func(s *step) float64 { return s.JoinMicros },
	},
	{
		result.Column{"leave_us", "leave µs", "%.2f"},
		"leave", "µs",
		func(s *step) float64 { return s.LeaveMicros },
	},
	{
		result.Column{"receive_ns", "receive ns", "%.0f"},
		"receive a message", "ns",
		func(s *step) float64 { return s.ReceiveNanos },
	},
	{
		result.Column{"one_ns", "dlv ns, 1 outstanding", "%.0f"},
		"delivery, 1 outstanding", "ns",
		func(s *step) float64 { return s.OneNanos },
	},
	{
		result.Column{"shuffled_ns", "in random order", "%.0f"},
		"delivery, members in random order", "ns",
		func(s *step) float64 { return s.ShuffledNanos },
	},
	{
		result.Column{"batch_ns", "64", "%.0f"},
		"delivery, 64 outstanding", "ns",
		func(s *step) float64 { return s.BatchNanos },
	},
	{
		result.Column{"large_ns", "rooms of 1,000", "%.0f"},
		"delivery, rooms of 1,000", "ns",
		func(s *step) float64 { return s.LargeNanos },
	},
	{
		result.Column{"small_ns", "of 10", "%.0f"},
		"delivery, rooms of 10", "ns",
		func(s *step) float64 { return s.SmallNanos },
	},
	{
		result.Column{"placed_ns", "placed on one loop", "%.0f"},
		"delivery, rooms of 10 placed on one loop", "ns",
		func(s *step) float64 { return s.PlacedNanos },
	},
	{
		result.Column{"stalled_ns", "to stalled", "%.0f"},
		"delivery to a stalled client", "ns",
		func(s *step) float64 { return s.StalledNanos },
	},
	{
		result.Column{"task_ns", "pooled message ns", "%.0f"},
		"message that a worker handles", "ns",
		func(s *step) float64 { return s.TaskNanos },
	},
	{
		result.Column{"grant_ns", "publish behind 1,000 ns", "%.0f"},
		"publish that waits behind 1,000", "ns",
		func(s *step) float64 { return s.GrantNanos },
	},
	{
		result.Column{"block_ns", "full socket ns", "%.0f"},
		"full socket that becomes writable", "ns",
		func(s *step) float64 { return s.BlockNanos },
	},
	{
		result.Column{"ping_ns", "ping ns", "%.0f"},
		"ping", "ns",
		func(s *step) float64 { return s.PingNanos },
	},
	{
		result.Column{"drain_us", "drain µs", "%.2f"},
		"drain", "µs",
		func(s *step) float64 { return s.DrainMicros },
	},
}

// runner is a run of sim.
type runner struct {
	steps       string
	loops       string
	rooms, size int
	cpuprofile  string // file
}

func newRunner() *runner { return &runner{rooms: 10, size: 512} }

func (o *runner) Flags(fs *flag.FlagSet) {
	command.SizeFlag(fs, &o.size)
	command.StepsFlag(fs, &o.steps)
	load.CPUProfileFlag(fs, &o.cpuprofile)
	fs.StringVar(&o.loops, "loops", o.loops, "sim: `counts` of event loops to measure with (default GOMAXPROCS)")
	fs.IntVar(&o.rooms, "rooms", o.rooms, "sim: rooms that each connection joins: one of all, others of 1,000")
}

func (o *runner) Validate(*command.Session) error {
	if o.steps != "" {
		if _, err := command.StepCounts(o.steps); err != nil {
			return err
		}
	}
	if _, err := o.loopCounts(); err != nil {
		return err
	}
	return command.ValidSize(o.size)
}

// loopCounts reads the value of -loops; 0 is the library's default.
func (o *runner) loopCounts() ([]int, error) {
	if o.loops == "" {
		return []int{0}, nil
	}
	return command.RisingCounts("-loops", o.loops)
}

// Run simulates connections at several counts, with several numbers of loops, each
// in a process of its own.
func (o *runner) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	counts, err := command.StepCounts(cmp.Or(o.steps, command.SimSteps))
	if err != nil {
		return nil, err
	}
	if o.rooms < 1 {
		return nil, errors.New("-rooms must be at least 1")
	}
	loops, err := o.loopCounts()
	if err != nil {
		return nil, err
	}
	var steps []*step
	for i, conns := range counts {
		for k, n := range loops {
			cfg := config{Conns: conns, Rooms: o.rooms, Size: o.size, Loops: n}
			if i == len(counts)-1 && k == len(loops)-1 {
				cfg.Profile = o.cpuprofile
			}
			step, err := simulateApart(ctx, s.MaxProcs, cfg)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step)
		}
	}
	return newTables(steps, o), nil
}

// simulateApart runs one step in a process of its own, so that its memory is
// its own.
func simulateApart(ctx context.Context, maxprocs int, cfg config) (*step, error) {
	if have, need := availableBytes(), cfg.Conns*needs; have < need {
		return nil, fmt.Errorf("%d connections need about %d MiB and %d are available: use lower -steps",
			cfg.Conns, need>>20, have>>20)
	}
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "simulate", string(arg))
	cmd.Stderr = os.Stderr
	if maxprocs > 0 {
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(maxprocs))
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("simulation of %d connections: %w", cfg.Conns, err)
	}
	s := new(step)
	return s, json.Unmarshal(out, s)
}

// availableBytes is the memory that is free, or can be.
func availableBytes() int {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range bytes.Lines(b) {
		if kb, ok := strings.CutPrefix(string(line), "MemAvailable:"); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
			return n << 10
		}
	}
	return 1 << 62
}

// newTables makes the tables: the memory of a connection, the CPU time of its
// operations, and how both grow with the count.
func newTables(steps []*step, o *runner) []*result.Table {
	memory := &result.Table{
		Command: "sim", Title: fmt.Sprintf("Simulated connections: memory for each (%d rooms; gnet's own connection "+
			"would add 300 B, and the kernel its sockets)", o.rooms),
	}
	work := &result.Table{
		Command: "sim-cpu", Title: fmt.Sprintf("Simulated connections: CPU time without system calls (%d B messages)",
			o.size),
	}
	fill := func(t *result.Table, metrics []metric, before, behind []result.Column,
		cells func(*step) (before, behind []any),
	) {
		t.Columns = append(t.Columns, before...)
		for _, m := range metrics {
			t.Columns = append(t.Columns, m.Column)
		}
		t.Columns = append(t.Columns, behind...)
		for _, s := range steps {
			row, rest := cells(s)
			for _, m := range metrics {
				row = append(row, m.value(s))
			}
			t.Add(append(row, rest...)...)
		}
	}
	conns := result.Column{"conns", "connections", "%d"}
	fill(memory, memoryMetrics, []result.Column{conns, {"loops", "loops", "%d"}},
		[]result.Column{{"stalled", "stalled", "%d"}},
		func(s *step) (before, behind []any) { return []any{s.Conns, s.Loops}, []any{s.Stalled} })
	fill(work, workMetrics, []result.Column{conns, {"loops", "loops", "%d"}}, []result.Column{
		{"ping_percent", "pings of all, % of a core", "%.1f"},
		{"pings", "pings", "%d"},
		{"deliveries", "deliveries", "%d"},
		{"dropped", "dropped", "%d"},
		{"seconds", "took s", "%.1f"},
	}, func(s *step) (before, behind []any) {
		return []any{s.Conns, s.Loops}, []any{100 * s.PingCores, s.Pings, s.Deliveries, s.Dropped, s.Seconds}
	})
	memory.Charts = []result.Chart{{
		Kind: report.Lines, Title: "Heap of one connection", X: []string{"conns"},
		Y: []string{"heap_bytes", "heap_bytes_room", "heap_bytes_rooms"}, Axis: "B", LogX: true,
	}}
	work.Charts = []result.Chart{{
		Kind: report.Lines, Title: "CPU time for one", X: []string{"conns"},
		Y: []string{"one_ns", "batch_ns", "large_ns", "receive_ns", "ping_ns"}, Axis: "ns", LogX: true, LogY: true,
	}}
	tables := []*result.Table{memory, work}
	first, last := steps[0], steps[len(steps)-1]
	for i, s := range steps[1:] {
		if s.Conns == steps[i].Conns && (i == 0 || steps[i-1].Conns != s.Conns) {
			tables = append(tables, newLoopRatios(steps[i:]))
		}
	}
	if first.Conns != last.Conns {
		tables = append(tables, newRatios(first, last))
	}
	return tables
}

// newLoopRatios returns each figure with each number of loops, at the connections of
// the first step, and the ratio of the highest to the first.
func newLoopRatios(steps []*step) *result.Table {
	t := &result.Table{
		Command: "sim-loops", Title: fmt.Sprintf("Loops: the cost of one at %d connections", steps[0].Conns),
		Columns: []result.Column{{"metric", "", "%s"}, {"name", "of each", "%s"}, {"unit", "unit", "%s"}},
	}
	for i, s := range steps {
		if s.Conns != steps[0].Conns {
			steps = steps[:i]
			break
		}
		n := strconv.Itoa(s.Loops)
		t.Columns = append(t.Columns, result.Column{"loops_" + n, n + " loops", "%.2f"})
	}
	t.Columns = append(t.Columns, result.Column{"ratio", "highest to first", "%.2f"})
	for _, metrics := range [][]metric{memoryMetrics, workMetrics} {
		for _, m := range metrics {
			row, highest := []any{m.Key(), m.name, m.unit}, 0.0
			for _, s := range steps {
				row = append(row, m.value(s))
				highest = max(highest, m.value(s))
			}
			t.Add(append(row, result.Ratio(highest, m.value(steps[0])))...)
		}
	}
	return t
}

// newRatios returns the ratio of each figure at the last step to the first: 1 is
// linear.
func newRatios(first, last *step) *result.Table {
	t := &result.Table{
		Command: "sim-ratio", Title: fmt.Sprintf("Scaling: the cost of one at %d connections and at %d",
			first.Conns, last.Conns),
		Columns: []result.Column{
			{"metric", "", "%s"},
			{"name", "of each", "%s"},
			{"unit", "unit", "%s"},
			{"first", strconv.Itoa(first.Conns), "%.2f"},
			{"last", strconv.Itoa(last.Conns), "%.2f"},
			{"ratio", "ratio", "%.2f"},
		},
	}
	for _, metrics := range [][]metric{memoryMetrics, workMetrics} {
		for _, m := range metrics {
			a, b := m.value(first), m.value(last)
			t.Add(m.Key(), m.name, m.unit, a, b, result.Ratio(b, a))
		}
	}
	return t
}
