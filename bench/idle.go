//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var idleCommand = command{
	name:  "idle",
	about: "heap and RSS for each idle connection, and the CPU that accepting it takes",
	help: `Opens connections that say nothing, on a fresh server for each path, and asks the
server for its heap and RSS after garbage collection at each of some counts. The
slope over the counts is what one more connection costs; what the process takes
anyway is not in it. It also says what CPU time accepting a connection took.`,
	example: "bench idle -path native -steps 2000,5000,10000,15000 -join -html idle.html",
	procs:   true,
	new:     func() runner { return newIdleRun() },
}

// idleSteps are the counts that idle measures at unless it is told others.
const idleSteps = "2000,5000,10000,15000"

// silent is the traffic of idle connections.
type silent struct{}

func (silent) frame(*loop, *clientConn, *frame, int64) {}
func (silent) done(*loop, *clientConn, int64)          {}

// idleRun is a run of idle.
type idleRun struct {
	steps      string
	quiet      time.Duration
	join       bool
	compress   bool
	memprofile string // file
}

func newIdleRun() *idleRun { return &idleRun{quiet: time.Second} }

func (o *idleRun) flags(fs *flag.FlagSet) {
	idleFlags(fs, &o.quiet, &o.join)
	stepsFlag(fs, &o.steps)
	fs.BoolVar(&o.compress, "compress", o.compress, "idle: every connection negotiates permessage-deflate")
	fs.StringVar(&o.memprofile, "memprofile", o.memprofile, "idle: write the server's heap at the last count to `file`; inflates the other figures")
}

func (o *idleRun) validate(*session) error {
	if o.steps == "" {
		return nil
	}
	_, err := stepCounts(o.steps)
	return err
}

// run measures memory at several connection counts, on a fresh server for
// each path.
func (o *idleRun) run(ctx context.Context, s *session) ([]*table, error) {
	steps := &table{command: "idle", title: "Idle connections: the server's memory after garbage collection", columns: []column{
		{"path", "path", "%s"},
		{"conns", "connections", "%d"},
		{"heap_kib", "heap KiB", "%.0f"},
		{"heap_inuse_kib", "heap in use KiB", "%.0f"},
		{"rss_kib", "RSS KiB", "%.0f"},
		{"goroutines", "goroutines", "%d"},
		{"accept_us", "accept µs/conn", "%.1f"},
	}, charts: []chart{{
		Kind: report.Lines, Title: "The server's memory", X: []string{"conns"}, Y: []string{"heap_kib", "rss_kib"},
		Series: "path", Axis: "KiB", Fit: true,
	}}}
	slopes := &table{command: "idle-slope", title: "For each connection (least squares; last - first)", columns: []column{
		{"path", "path", "%s"},
		{"heap_bytes", "heap B", "%.0f"},
		{"heap_bytes_ends", "(ends)", "%.0f"},
		{"objects", "objects", "%.2f"},
		{"heap_inuse_bytes", "heap in use B", "%.0f"},
		{"rss_bytes", "RSS B", "%.0f"},
		{"rss_bytes_ends", "(ends)", "%.0f"},
		{"accept_us", "accept and upgrade µs", "%.1f"},
	}, charts: []chart{{
		Kind: report.Bars, Title: "Memory for each connection", X: []string{"path"}, Y: []string{"heap_bytes", "rss_bytes"}, Axis: "bytes",
	}}}
	paths := []string{"native", "http"}
	if s.path != "" {
		paths = []string{s.path}
	}
	counts, err := stepCounts(cmp.Or(o.steps, idleSteps))
	if err != nil {
		return nil, err
	}
	for i := range counts {
		counts[i] = s.part.share(counts[i])
	}
	s.progress.expect(len(paths)*len(counts), o.quiet+time.Second)
	for _, path := range paths {
		if err := o.path(ctx, s, path, counts, steps, slopes); err != nil {
			return nil, fmt.Errorf("%s path: %w", path, err)
		}
	}
	return []*table{steps, slopes}, nil
}

// path measures one path on a fresh server.
func (o *idleRun) path(ctx context.Context, s *session, path string, counts []int, steps, slopes *table) error {
	last := counts[len(counts)-1]
	cfg := control.Config{Compress: o.compress, ProfileHeap: o.memprofile != ""}
	srv, g, stop, err := s.start(ctx, path, last, cfg, func(int) traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stop()
	var n, heap, inuse, rss, objects []float64
	var accepting time.Duration
	for _, conns := range counts {
		if err := s.part.together(); err != nil {
			return err
		}
		s.progress.step("idle %s, %d connections", path, conns)
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
		steps.add(path, sumOf(conns), sumOf(float64(r.HeapAlloc)/1024), sumOf(float64(r.HeapInuse)/1024), sumOf(float64(r.RSS)/1024),
			sumOf(r.Goroutines), meanOf(micros(spent)/added, added))
	}
	if o.memprofile != "" {
		if _, err := srv.call(control.Command{Name: "heap", File: o.memprofile}); err != nil {
			return err
		}
	}
	weight := float64(last)
	mean := func(v float64) mergeable { return meanOf(v, weight) }
	slopes.add(path, mean(slope(n, heap)), mean(ends(n, heap)), mean(slope(n, objects)), mean(slope(n, inuse)),
		mean(slope(n, rss)), mean(ends(n, rss)), mean(micros(accepting)/weight))
	return g.err()
}

// fill opens connections until there are so many, and returns the server's
// report once it is at rest, and the CPU time that accepting them took.
func (o *idleRun) fill(ctx context.Context, g *generator, srv *server, conns int) (r *control.Report, spent time.Duration, err error) {
	before, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return nil, 0, err
	}
	if err := g.connect(ctx, conns); err != nil {
		return nil, 0, err
	}
	after, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return nil, 0, err
	}
	if o.join {
		if err := joinRoom(ctx, g, srv, conns, before.Members); err != nil {
			return nil, 0, err
		}
	}
	if err := wait(ctx, o.quiet); err != nil {
		return nil, 0, err
	}
	r, err = srv.call(control.Command{Name: "settle"})
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

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
