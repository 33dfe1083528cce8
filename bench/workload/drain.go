//go:build linux

package workload

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// DrainCommand is the command drain.
var DrainCommand = command.Command{
	Name:  "drain",
	About: "how a shutdown treats clients that have messages queued, and how a paced drain moves clients",
	Help: `Shuts a server down while clients are connected and messages are queued for them,
and observes it from the clients' side: how many received all messages that were
published before, how many received close code 1001, how long it took, and which
goroutines and descriptors the process has left. With -window the server drains at a
pace in place of that, and its clients move to another server.`,
	Example: "bench drain -conns 5000",
	New:     func() command.Runner { return newDrainRun() },
}

// drainRun is a run of drain.
type drainRun struct {
	conns, size, rounds int
	window, settle      time.Duration // of a paced drain; without a window there is none
	aware               float64       // percent of the clients
	rate                float64       // publishes a second during a paced drain
}

func newDrainRun() *drainRun {
	return &drainRun{size: 512, rounds: 1, settle: 5 * time.Second, aware: 50, rate: 4}
}

func (o *drainRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	fs.DurationVar(&o.window, "window", o.window, "drain: Window of a paced drain; 0 is a shutdown")
	fs.DurationVar(&o.settle, "settle", o.settle, "drain: Settle of a paced drain")
	fs.Float64Var(&o.aware, "aware", o.aware,
		"drain: `percent` of the clients that understand the notice of a paced drain")
	fs.Float64Var(&o.rate, "room-rate", o.rate, "drain: `publishes` a second to all clients during a paced drain")
}

func (o *drainRun) Validate(*command.Session) error {
	if o.window < 0 || o.settle <= 0 || !(o.aware >= 0 && o.aware <= 100) || !(o.rate > 0) {
		return errors.New("bench: -window, -settle, -aware or -room-rate is out of range")
	}
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1))
}

// Run measures the end of a server whose clients are connected, and have
// messages queued.
func (o *drainRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 1000)
	if o.window > 0 {
		return o.paced(ctx, s)
	}
	s.Queue = max(s.Queue, slowQueue)
	t := &result.Table{
		Command: "drain", Title: "Shutdown with clients connected and messages queued",
		Columns: []result.Column{
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
		}, Charts: []result.Chart{
			{
				Kind: report.Bars, Title: "Until clients knew of the end", X: []string{"path", "conns"},
				Y: []string{"half_ms", "most_ms", "all_ms", "ended_ms"}, Axis: "ms",
			},
		},
	}
	for range o.rounds {
		if err := o.round(ctx, s, t); err != nil {
			return nil, err
		}
	}
	return []*result.Table{t}, nil
}

func (o *drainRun) round(ctx context.Context, s *command.Session, t *result.Table) error {
	comp := NewCompletions(1, 1, false)
	frame := load.ServerFrameBytes(o.size)
	cfg := control.Config{QueueBytes: int64(s.Queue) * int64(frame)}
	srv, g, stop, err := s.Start(ctx, s.Path, o.conns, cfg, func(int) load.Traffic { return NewMembers(comp) })
	if err != nil {
		return err
	}
	defer stop()
	g.Each(func(i int, l *load.Loop) {
		l.Traffic.(*Members).total[0] = int32(g.Share(i, o.conns))
	})
	comp.loops[0] = int32(min(o.conns, len(g.Loops)))
	empty, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	g.ChooseStalled(func(int) bool { return true })
	if err := g.Connect(ctx, o.conns); err != nil {
		return err
	}
	if err := joinRoom(ctx, g, srv, o.conns, 0); err != nil {
		return err
	}
	g.Stall()
	if err := backlogAll(ctx, srv, o.conns, o.size); err != nil {
		return err
	}
	if _, err := srv.Call(control.Command{Name: "fill", Size: o.size, Count: slowMessages}); err != nil {
		return err
	}
	full, err := srv.Call(control.Command{Name: "queues"})
	if err != nil {
		return err
	}
	began, after, err := shutdown(ctx, srv, g)
	if err != nil {
		return err
	}
	r := &room{srv: srv, g: g, reading: []int{o.conns}}
	missing, disordered, err := r.deliver(ctx, load.Tally{}, after.Published)
	if err != nil {
		return err
	}
	closed, ended := g.Closes()
	at := func(times []int64, share float64) float64 {
		if len(times) == 0 {
			return 0
		}
		return result.Millis(time.Duration(times[max(0, int(share*float64(len(times)))-1)] - began))
	}
	t.Add(s.Path, o.conns, o.size, float64(full.QueuedBytes)/float64(frame)/float64(o.conns),
		at(closed, 0.5), at(closed, 0.99), at(closed, 1), at(ended, 1), result.Millis(time.Duration(after.At-began)),
		len(closed), o.conns-len(closed), missing, disordered, after.Dropped,
		result.Micros(after.CPU-full.CPU)/float64(o.conns),
		empty.Goroutines, after.Goroutines, empty.Descriptors, after.Descriptors)
	return nil
}

// shutdown ends the server while the clients, which have stalled, begin to read,
// and waits for the end of all of them.
func shutdown(ctx context.Context, srv *server.Process, g *load.Generator) (
	began int64, after *control.Report, err error,
) {
	g.Each(func(_ int, l *load.Loop) { l.MayEnd = true })
	began = control.Now()
	done := make(chan struct{})
	go func() { // ends with the server's answer, which is waited for
		defer close(done)
		after, err = srv.Call(control.Command{Name: "shutdown"})
	}()
	g.Each(func(_ int, l *load.Loop) {
		for index := range l.Conns {
			l.Resume(index)
		}
	})
	<-done
	if err != nil {
		return 0, nil, err
	}
	return began, after, g.Await(ctx, func() bool { return g.Sum().Ended >= uint64(g.Conns) })
}
