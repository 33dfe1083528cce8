//go:build linux

package main

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

	"github.com/qi-realtime/ws/bench/report"
)

var simCommand = command{
	name:  "sim",
	about: "memory and CPU of up to a million connections, without sockets",
	help: `Holds up to a million connections without sockets: the library itself, with its
shards, rooms, queues and timers, over a network in memory. Memory of a connection,
CPU time of joins, deliveries, pings and the shutdown, at each of some counts, and
how far they grow with the count.`,
	example:  "bench sim -steps 10000,100000,1000000",
	notInAll: true,
	new:      func() runner { return newSimRun() },
}

const (
	simSteps = "10000,100000,1000000"
	// simNeeds is what a simulated connection takes at its peak, in bytes.
	simNeeds = 5000
)

// simMetric is a column of a result of sim, and a row of the ratios.
type simMetric struct {
	column
	name  string // by itself, without the columns beside it
	unit  string
	value func(*simStep) float64
}

// simMemory and simWork are the columns of the two tables.
var simMemory = []simMetric{
	{column{"heap_bytes", "heap B/conn", "%.0f"}, "heap, idle", "B", func(s *simStep) float64 { return s.HeapPlain }},
	{column{"rss_bytes", "RSS B/conn", "%.0f"}, "RSS, idle", "B", func(s *simStep) float64 { return s.RSSPlain }},
	{column{"heap_bytes_room", "heap in one room", "%.0f"}, "heap, in one room", "B", func(s *simStep) float64 { return s.HeapRoom }},
	{column{"rss_bytes_room", "RSS in one room", "%.0f"}, "RSS, in one room", "B", func(s *simStep) float64 { return s.RSSRoom }},
	{column{"heap_bytes_rooms", "heap in all rooms", "%.0f"}, "heap, in all rooms", "B", func(s *simStep) float64 { return s.HeapRooms }},
	{column{"rss_bytes_rooms", "RSS in all rooms", "%.0f"}, "RSS, in all rooms", "B", func(s *simStep) float64 { return s.RSSRooms }},
	{column{"heap_bytes_stalled", "heap B/stalled conn", "%.0f"}, "heap, stalled", "B", func(s *simStep) float64 { return s.HeapStalled }},
	{column{"peak_bytes", "peak RSS B/conn", "%.0f"}, "RSS at its peak", "B", func(s *simStep) float64 { return s.PeakRSS / float64(s.Conns) }},
}

var simWork = []simMetric{
	{column{"connect_us", "connect µs", "%.2f"}, "connect", "µs", func(s *simStep) float64 { return s.ConnectMicros }},
	{column{"join_us", "join µs", "%.2f"}, "join", "µs", func(s *simStep) float64 { return s.JoinMicros }},
	{column{"leave_us", "leave µs", "%.2f"}, "leave", "µs", func(s *simStep) float64 { return s.LeaveMicros }},
	{column{"receive_ns", "receive ns", "%.0f"}, "receive a message", "ns", func(s *simStep) float64 { return s.ReceiveNanos }},
	{column{"one_ns", "dlv ns, 1 outstanding", "%.0f"}, "delivery, 1 outstanding", "ns", func(s *simStep) float64 { return s.OneNanos }},
	{column{"shuffled_ns", "in random order", "%.0f"}, "delivery, members in random order", "ns", func(s *simStep) float64 { return s.ShuffledNanos }},
	{column{"batch_ns", "64", "%.0f"}, "delivery, 64 outstanding", "ns", func(s *simStep) float64 { return s.BatchNanos }},
	{column{"large_ns", "rooms of 1,000", "%.0f"}, "delivery, rooms of 1,000", "ns", func(s *simStep) float64 { return s.LargeNanos }},
	{column{"small_ns", "of 10", "%.0f"}, "delivery, rooms of 10", "ns", func(s *simStep) float64 { return s.SmallNanos }},
	{column{"stalled_ns", "to stalled", "%.0f"}, "delivery to a stalled client", "ns", func(s *simStep) float64 { return s.StalledNanos }},
	{column{"ping_ns", "ping ns", "%.0f"}, "ping", "ns", func(s *simStep) float64 { return s.PingNanos }},
	{column{"drain_us", "drain µs", "%.2f"}, "drain", "µs", func(s *simStep) float64 { return s.DrainMicros }},
}

// simRun is a run of sim.
type simRun struct {
	steps       string
	rooms, size int
	cpuprofile  string // file
}

func newSimRun() *simRun { return &simRun{rooms: 10, size: 512} }

func (o *simRun) flags(fs *flag.FlagSet) {
	sizeFlag(fs, &o.size)
	stepsFlag(fs, &o.steps)
	cpuprofileFlag(fs, &o.cpuprofile)
	fs.IntVar(&o.rooms, "rooms", o.rooms, "sim: rooms that each connection joins: one of all, others of 1,000")
}

func (o *simRun) validate(*session) error {
	if o.steps != "" {
		if _, err := stepCounts(o.steps); err != nil {
			return err
		}
	}
	return validSize(o.size)
}

// run simulates connections at several counts, each in a process of its own.
func (o *simRun) run(ctx context.Context, s *session) ([]*table, error) {
	counts, err := stepCounts(cmp.Or(o.steps, simSteps))
	if err != nil {
		return nil, err
	}
	if o.rooms < 1 {
		return nil, errors.New("-rooms must be at least 1")
	}
	var steps []*simStep
	for i, conns := range counts {
		cfg := simConfig{Conns: conns, Rooms: o.rooms, Size: o.size, Loops: s.loops}
		if i == len(counts)-1 {
			cfg.Profile = o.cpuprofile
		}
		step, err := simulateApart(ctx, s.maxprocs, cfg)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	return simTables(steps, o), nil
}

// simulateApart runs one step in a process of its own, so that its memory is
// its own.
func simulateApart(ctx context.Context, maxprocs int, cfg simConfig) (*simStep, error) {
	if have, need := availableBytes(), cfg.Conns*simNeeds; have < need {
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
	step := new(simStep)
	return step, json.Unmarshal(out, step)
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

// simTables makes the results: what a connection takes, what is done with it
// costs, and how either grows.
func simTables(steps []*simStep, o *simRun) []*table {
	memory := &table{
		command: "sim", title: fmt.Sprintf("Simulated connections: memory for each (%d rooms; gnet's own connection would add 300 B, and the kernel its sockets)", o.rooms),
	}
	work := &table{
		command: "sim-cpu", title: fmt.Sprintf("Simulated connections: CPU time without system calls (%d B messages)", o.size),
	}
	fill := func(t *table, metrics []simMetric, before, behind []column, cells func(*simStep) (before, behind []any)) {
		t.columns = append(t.columns, before...)
		for _, m := range metrics {
			t.columns = append(t.columns, m.column)
		}
		t.columns = append(t.columns, behind...)
		for _, s := range steps {
			row, rest := cells(s)
			for _, m := range metrics {
				row = append(row, m.value(s))
			}
			t.add(append(row, rest...)...)
		}
	}
	conns := column{"conns", "connections", "%d"}
	fill(memory, simMemory, []column{conns, {"loops", "loops", "%d"}}, []column{{"stalled", "stalled", "%d"}},
		func(s *simStep) (before, behind []any) { return []any{s.Conns, s.Loops}, []any{s.Stalled} })
	fill(work, simWork, []column{conns}, []column{
		{"ping_percent", "pings of all, % of a core", "%.1f"},
		{"pings", "pings", "%d"},
		{"deliveries", "deliveries", "%d"},
		{"dropped", "dropped", "%d"},
		{"seconds", "took s", "%.1f"},
	}, func(s *simStep) (before, behind []any) {
		return []any{s.Conns}, []any{100 * s.PingCores, s.Pings, s.Deliveries, s.Dropped, s.Seconds}
	})
	memory.charts = []chart{{
		Kind: report.Lines, Title: "Heap of one connection", X: []string{"conns"},
		Y: []string{"heap_bytes", "heap_bytes_room", "heap_bytes_rooms"}, Axis: "B", LogX: true,
	}}
	work.charts = []chart{{
		Kind: report.Lines, Title: "CPU time for one", X: []string{"conns"},
		Y: []string{"one_ns", "batch_ns", "large_ns", "receive_ns", "ping_ns"}, Axis: "ns", LogX: true, LogY: true,
	}}
	tables := []*table{memory, work}
	if first, last := steps[0], steps[len(steps)-1]; first != last {
		tables = append(tables, simRatios(first, last))
	}
	return tables
}

// simRatios says how linear everything is: 1 is as costly for each at the last
// step as at the first.
func simRatios(first, last *simStep) *table {
	t := &table{
		command: "sim-ratio", title: fmt.Sprintf("Scaling: what one costs at %d connections and at %d", first.Conns, last.Conns),
		columns: []column{
			{"metric", "", "%s"},
			{"name", "of each", "%s"},
			{"unit", "unit", "%s"},
			{"first", strconv.Itoa(first.Conns), "%.2f"},
			{"last", strconv.Itoa(last.Conns), "%.2f"},
			{"ratio", "ratio", "%.2f"},
		},
	}
	for _, metrics := range [][]simMetric{simMemory, simWork} {
		for _, m := range metrics {
			a, b := m.value(first), m.value(last)
			t.add(m.key(), m.name, m.unit, a, b, ratio(b, a))
		}
	}
	return t
}
