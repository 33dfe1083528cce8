//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"slices"
	"sync"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var drainCommand = command{
	name:  "drain",
	about: "how a shutdown treats clients that have messages queued",
	help: `Shuts a server down while clients are connected and messages are queued for them,
and looks at it from the clients' side: who got everything that was published
before, who was told 1001, how long it took, and what the process has left.`,
	example: "bench drain -conns 5000",
	new:     func() runner { return newDrainRun() },
}

// goingAway is the close code of a server that shuts down.
const goingAway = 1001

// drainRun is a run of drain.
type drainRun struct{ conns, size, rounds int }

func newDrainRun() *drainRun { return &drainRun{size: 512, rounds: 1} }

func (o *drainRun) flags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
}

func (o *drainRun) validate(*session) error {
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1))
}

// run measures the end of a server whose clients are connected, and have
// messages queued.
func (o *drainRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.setDefaults(&o.conns, 1000)
	s.queue = max(s.queue, slowQueue)
	t := &table{command: "drain", title: "Shutdown with clients connected and messages queued", columns: []column{
		{"path", "path", "%s"},
		{"conns", "clients", "%d"},
		{"size", "bytes", "%d"},
		{"held", "messages queued/client", "%.1f"},
		{"half_ms", "50 % got 1001, ms", "%.0f"},
		{"most_ms", "99 %", "%.0f"},
		{"all_ms", "the last", "%.0f"},
		{"ended_ms", "all ended", "%.0f"},
		{"shutdown_ms", "Shutdown took", "%.0f"},
		{"going_away", "got 1001", "%d"},
		{"cut", "got less", "%d"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
		{"dropped", "dropped", "%d"},
		{"server_us", "server µs/client", "%.1f"},
		{"goroutines_before", "goroutines before", "%d"},
		{"goroutines", "after", "%d"},
		{"descriptors_before", "descriptors before", "%d"},
		{"descriptors", "after", "%d"},
	}, charts: []chart{
		{Kind: report.Bars, Title: "Until clients knew of the end", X: []string{"path", "conns"}, Y: []string{"half_ms", "most_ms", "all_ms", "ended_ms"}, Axis: "ms"},
	}}
	for range o.rounds {
		if err := o.round(ctx, s, t); err != nil {
			return nil, err
		}
	}
	return []*table{t}, nil
}

func (o *drainRun) round(ctx context.Context, s *session, t *table) error {
	comp := newCompletions(1, 1, false)
	frame := serverFrameBytes(o.size)
	cfg := control.Config{QueueBytes: int64(s.queue) * int64(frame)}
	srv, g, stop, err := s.start(ctx, s.path, o.conns, cfg, func(int) traffic { return newMembers(comp) })
	if err != nil {
		return err
	}
	defer stop()
	g.each(func(i int, l *loop) {
		l.traffic.(*members).total[0] = int32(g.share(i, o.conns))
	})
	comp.loops[0] = int32(min(o.conns, len(g.loops)))
	empty, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	g.chooseStalled(func(int) bool { return true })
	if err := g.connect(ctx, o.conns); err != nil {
		return err
	}
	if err := joinRoom(ctx, g, srv, o.conns, 0); err != nil {
		return err
	}
	g.stall()
	if err := backlogAll(ctx, srv, o.conns, o.size); err != nil {
		return err
	}
	if _, err := srv.call(control.Command{Name: "fill", Size: o.size, Count: slowMessages}); err != nil {
		return err
	}
	full, err := srv.call(control.Command{Name: "queues"})
	if err != nil {
		return err
	}
	began, after, err := shutdown(ctx, srv, g)
	if err != nil {
		return err
	}
	r := &room{srv: srv, g: g, reading: []int{o.conns}}
	missing, disordered, err := r.deliver(ctx, tally{}, after.Published)
	if err != nil {
		return err
	}
	closed, ended := g.closes()
	at := func(times []int64, share float64) float64 {
		if len(times) == 0 {
			return 0
		}
		return millis(time.Duration(times[max(0, int(share*float64(len(times)))-1)] - began))
	}
	t.add(s.path, o.conns, o.size, float64(full.QueuedBytes)/float64(frame)/float64(o.conns),
		at(closed, 0.5), at(closed, 0.99), at(closed, 1), at(ended, 1), millis(time.Duration(after.At-began)),
		len(closed), o.conns-len(closed), missing, disordered, after.Dropped,
		micros(after.CPU-full.CPU)/float64(o.conns),
		empty.Goroutines, after.Goroutines, empty.Descriptors, after.Descriptors)
	return nil
}

// shutdown ends the server while the clients, which have stalled, begin to read,
// and waits for the end of all of them.
func shutdown(ctx context.Context, srv *server, g *generator) (began int64, after *control.Report, err error) {
	g.each(func(_ int, l *loop) { l.mayEnd = true })
	began = control.Now()
	done := make(chan struct{})
	go func() { // ends with the server's answer, which is waited for
		defer close(done)
		after, err = srv.call(control.Command{Name: "shutdown"})
	}()
	g.each(func(_ int, l *loop) {
		for index := range l.conns {
			l.resume(index)
		}
	})
	<-done
	if err != nil {
		return 0, nil, err
	}
	return began, after, g.await(ctx, func() bool { return g.sum().ended >= uint64(g.conns) })
}

// closes returns when the connections got the close code of a server that shuts
// down, and when they ended, in order.
func (g *generator) closes() (closed, ended []int64) {
	var mu sync.Mutex
	g.each(func(_ int, l *loop) {
		mu.Lock()
		defer mu.Unlock()
		closed = append(closed, l.closeTimes...)
		ended = append(ended, l.endTimes...)
	})
	slices.Sort(closed)
	slices.Sort(ended)
	return closed, ended
}
