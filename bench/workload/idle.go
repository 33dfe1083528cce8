//go:build linux

package workload

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// IdleCommand is the command idle.
var IdleCommand = command.Command{
	Name:  "idle",
	About: "heap and RSS for each idle connection, and the CPU that accepting it takes",
	Help: `Opens connections that send nothing, on a fresh server for each path, and asks the
server for its heap and RSS after garbage collection at several counts. The slope
over the counts is the memory of one more connection, without the memory of the
process itself. It also measures the CPU time of accepting a connection.`,
	Example: "bench idle -path native -steps 2000,5000,10000,15000 -join -html idle.html",
	Procs:   true,
	New:     func() command.Runner { return NewIdleRun() },
}

// silent is the traffic of idle connections.
type silent struct{}

func (silent) Frame(*load.Loop, *load.Conn, *load.Frame, int64) {}
func (silent) Done(*load.Loop, *load.Conn, int64)               {}

// IdleRun is a run of idle.
type IdleRun struct {
	Steps      string
	Quiet      time.Duration
	Join       bool
	compress   bool
	memprofile string // file
}

// NewIdleRun returns a run with the defaults of the flags.
func NewIdleRun() *IdleRun { return &IdleRun{Quiet: time.Second} }

// Flags implements command.Runner.
func (o *IdleRun) Flags(fs *flag.FlagSet) {
	command.IdleFlags(fs, &o.Quiet, &o.Join)
	command.StepsFlag(fs, &o.Steps)
	fs.BoolVar(&o.compress, "compress", o.compress, "idle: every connection negotiates permessage-deflate")
	fs.StringVar(&o.memprofile, "memprofile", o.memprofile,
		"idle: write the server's heap at the last count to `file`; inflates the other figures")
}

// Validate implements command.Runner.
func (o *IdleRun) Validate(*command.Session) error {
	if o.Steps == "" {
		return nil
	}
	_, err := command.StepCounts(o.Steps)
	return err
}

// Run measures memory at several connection counts, on a fresh server for
// each path.
func (o *IdleRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	steps := &result.Table{
		Command: "idle",
		Title:   "Idle connections: the server's memory after garbage collection",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"conns", "connections", "%d"},
			{"heap_kib", "heap KiB", "%.0f"},
			{"heap_inuse_kib", "heap in use KiB", "%.0f"},
			{"rss_kib", "RSS KiB", "%.0f"},
			{"goroutines", "goroutines", "%d"},
			{"accept_us", "accept µs/conn", "%.1f"},
		}, Charts: []result.Chart{{
			Kind: report.Lines, Title: "The server's memory", X: []string{"conns"}, Y: []string{"heap_kib", "rss_kib"},
			Series: "path", Axis: "KiB", Fit: true,
		}},
	}
	slopes := &result.Table{
		Command: "idle-slope", Title: "For each connection (least squares; last - first)",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"heap_bytes", "heap B", "%.0f"},
			{"heap_bytes_ends", "(ends)", "%.0f"},
			{"objects", "objects", "%.2f"},
			{"heap_inuse_bytes", "heap in use B", "%.0f"},
			{"rss_bytes", "RSS B", "%.0f"},
			{"rss_bytes_ends", "(ends)", "%.0f"},
			{"anonymous_bytes", "of it anonymous", "%.0f"},
			{"accept_us", "accept and upgrade µs", "%.1f"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, Title: "Memory for each connection", X: []string{"path"},
			Y: []string{"heap_bytes", "rss_bytes"}, Axis: "bytes",
		}},
	}
	paths := []string{"native", "http"}
	if s.Path != "" {
		paths = []string{s.Path}
	}
	counts, err := command.StepCounts(cmp.Or(o.Steps, command.IdleSteps))
	if err != nil {
		return nil, err
	}
	for i := range counts {
		counts[i] = s.Part.Share(counts[i])
	}
	s.Progress.Expect(len(paths)*len(counts), o.Quiet+time.Second)
	for _, path := range paths {
		if err := o.path(ctx, s, path, counts, steps, slopes); err != nil {
			return nil, fmt.Errorf("%s path: %w", path, err)
		}
	}
	return []*result.Table{steps, slopes}, nil
}

// path measures one path on a fresh server.
func (o *IdleRun) path(ctx context.Context, s *command.Session, path string, counts []int,
	steps, slopes *result.Table,
) error {
	last := counts[len(counts)-1]
	cfg := control.Config{Compress: o.compress, ProfileHeap: o.memprofile != ""}
	srv, g, stop, err := s.Start(ctx, path, last, cfg, func(int) load.Traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stop()
	var n, heap, inuse, rss, anonymous, objects []float64
	var accepting time.Duration
	for _, conns := range counts {
		if err := s.Part.Together(); err != nil {
			return err
		}
		s.Progress.Step("idle %s, %d connections", path, conns)
		r, spent, err := o.fill(ctx, g, srv, conns)
		if err != nil {
			return err
		}
		if r.Clients != conns {
			return fmt.Errorf("the server has %d clients, not %d", r.Clients, conns)
		}
		accepting += spent
		added := float64(conns)
		if len(n) > 0 {
			added -= n[len(n)-1]
		}
		n, heap, inuse = append(n, float64(conns)), append(heap, float64(r.HeapAlloc)), append(inuse, float64(r.HeapInuse))
		rss, objects = append(rss, float64(r.RSS)), append(objects, float64(r.Objects))
		anonymous = append(anonymous, float64(r.Anonymous))
		steps.Add(path, result.SumOf(conns), result.SumOf(float64(r.HeapAlloc)/1024),
			result.SumOf(float64(r.HeapInuse)/1024), result.SumOf(float64(r.RSS)/1024),
			result.SumOf(r.Goroutines), result.MeanOf(result.Micros(spent)/added, added))
	}
	if o.memprofile != "" {
		if _, err := srv.Call(control.Command{Name: "heap", File: o.memprofile}); err != nil {
			return err
		}
	}
	weight := float64(last)
	mean := func(v float64) result.Cell { return result.MeanOf(v, weight) }
	slopes.Add(path, mean(slope(n, heap)), mean(ends(n, heap)), mean(slope(n, objects)), mean(slope(n, inuse)),
		mean(slope(n, rss)), mean(ends(n, rss)), mean(slope(n, anonymous)),
		mean(result.Micros(accepting)/weight))
	return g.Err()
}

// fill opens connections until there are conns, and returns the report of the
// server at rest, and the CPU time of accepting them.
func (o *IdleRun) fill(ctx context.Context, g *load.Generator, srv *server.Process, conns int) (
	r *control.Report, spent time.Duration, err error,
) {
	before, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return nil, 0, err
	}
	if err := g.Connect(ctx, conns); err != nil {
		return nil, 0, err
	}
	after, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return nil, 0, err
	}
	if o.Join {
		if err := joinRoom(ctx, g, srv, conns, before.Members); err != nil {
			return nil, 0, err
		}
	}
	if err := load.Wait(ctx, o.Quiet); err != nil {
		return nil, 0, err
	}
	r, err = srv.Call(control.Command{Name: "settle"})
	return r, after.CPU - before.CPU, err
}

// slope is the least-squares slope of y over x.
func slope(x, y []float64) float64 {
	var mx, my, xy, xx float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
	}
	if xx == 0 {
		return 0
	}
	return xy / xx
}

// ends is the slope between the first and the last point.
func ends(x, y []float64) float64 {
	last := len(x) - 1
	if last < 1 {
		return 0
	}
	return (y[last] - y[0]) / (x[last] - x[0])
}
