//go:build linux

package resume

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

const returnName = "resume"

func returnTable() *result.Table {
	return &result.Table{
		Command: returnName, Title: "Clients that join at once, each from before the missed messages",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"conns", "clients", "%d"},
			{"missed", "missed", "%d"},
			{"size", "bytes", "%d"},
			{"server_us", "server µs/message", "%.2f"},
			{"all_ms", "the last caught up, ms", "%.0f"},
			{"before_p50_us", "bystander p50 before, µs", "%.0f"},
			{"before_p99_us", "p99", "%.0f"},
			{"p50_us", "meanwhile p50", "%.0f"},
			{"p99_us", "p99", "%.0f"},
			{"max_us", "max", "%.0f"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
			{"gaps", "gaps", "%d"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, Title: "Round trip of bystanders", X: []string{"path", "conns", "missed"},
			Y: []string{"before_p50_us", "before_p99_us", "p50_us", "p99_us", "max_us"}, Axis: "µs", LogY: true,
		}},
	}
}

// comeBack lets all clients join at once.
func (o *run) comeBack(ctx context.Context, s *command.Session, t *result.Table) error {
	c, err := o.open(ctx, s, o.missed, nobody)
	if err != nil {
		return err
	}
	defer c.stop()
	if _, err := c.srv.Call(control.Command{Name: "fill", Size: o.size, Count: o.missed}); err != nil {
		return err
	}
	// The bystanders have a loop of their own, and that a processor of the Go scheduler:
	// behind the clients' loops it would wait for these.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(s.ClientLoops + 2))
	beside, err := o.watch(ctx, s, c)
	if err != nil {
		return err
	}
	defer beside.Stop()
	quiet, err := o.quiet(ctx, beside)
	if err != nil {
		return err
	}
	epoch, err := c.learnEpoch(ctx)
	if err != nil {
		return err
	}
	return o.storm(ctx, s, t, c, beside, epoch, &quiet)
}

// watch starts the bystanders.
func (o *run) watch(ctx context.Context, s *command.Session, c *crowd) (*load.Generator, error) {
	b := &bystanders{every: int64(time.Millisecond)}
	g, err := load.NewGenerator(c.srv.Addr(s.Path), 1, o.bystanders, false, func(int) load.Traffic { return b })
	if err != nil {
		return nil, err
	}
	if err := g.Connect(ctx, o.bystanders); err != nil {
		g.Stop()
		return nil, err
	}
	g.Each(func(_ int, l *load.Loop) {
		b.due = control.Now()
		l.Due, l.Tick = b.due, func(now int64) int64 { return b.send(l, now) }
	})
	return g, nil
}

// quiet measures the round trip of the bystanders alone.
func (o *run) quiet(ctx context.Context, g *load.Generator) (result.Histogram, error) {
	if err := load.Wait(ctx, o.Warmup); err != nil {
		return result.Histogram{}, err
	}
	g.Begin()
	err := load.Wait(ctx, o.Duration)
	return roundTrips(g), err
}

// roundTrips ends the measured time, and returns its round trips.
func roundTrips(g *load.Generator) result.Histogram {
	g.End()
	var w load.Window
	w.Collect(g)
	return w.RTT
}

// learnEpoch lets client 0 join, and returns the epoch of the room.
func (c *crowd) learnEpoch(ctx context.Context) (epoch string, err error) {
	c.g.Each(func(i int, l *load.Loop) {
		if i == 0 {
			l.Send(0, joinFrame(""))
		}
	})
	err = c.g.Await(ctx, func() bool {
		c.g.Each(func(i int, _ *load.Loop) {
			if i == 0 {
				epoch = c.work[i].epoch
			}
		})
		return epoch != ""
	})
	return epoch, err
}

// storm lets all clients but the first join, and adds the row.
func (o *run) storm(ctx context.Context, s *command.Session, t *result.Table, c *crowd, beside *load.Generator,
	epoch string, quiet *result.Histogram,
) error {
	if o.conns < 2 {
		return errors.New("bench: resume needs two connections at least")
	}
	started, err := c.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	before := c.g.Sum()
	beside.Begin()
	began := control.Now()
	c.joinAll(1, epoch, 1)
	back := o.conns - 1
	missing, err := c.await(ctx, before, back*(o.missed+1))
	if err != nil {
		return err
	}
	rtt := roundTrips(beside)
	ended, err := c.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	sum := c.g.Sum()
	t.Add(s.Path, back, o.missed, o.size,
		result.Micros(ended.CPU-started.CPU)/float64(back*o.missed), result.Millis(time.Duration(c.newest()-began)),
		result.Micros(quiet.Quantile(0.5)), result.Micros(quiet.Quantile(0.99)),
		result.Micros(rtt.Quantile(0.5)), result.Micros(rtt.Quantile(0.99)), result.Micros(rtt.Max()),
		missing+sum.Lost-before.Lost, sum.Disordered-before.Disordered, c.gaps())
	return errors.Join(c.g.Err(), beside.Err())
}
