//go:build linux

package workload

import (
	"cmp"
	"context"
	"flag"
	"runtime"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// FairCommand is the command fair.
var FairCommand = command.Command{
	Name:  "fair",
	About: "round trip of one client while a publisher floods a room on its event loop",
	Help: `One connection sends a message, waits for its echo, and sends the next, while a
goroutine of the server publishes to the members of a room on the same event loop
without a pause. The round trip says how long a loop's fan-out holds up its reads.`,
	Example: "bench fair -conns 1000 -loops 1",
	New:     func() command.Runner { return newFairRun() },
}

// pinging is the traffic of one connection that sends a message, waits for its
// echo, and sends the next.
type pinging struct {
	message []byte // a masked frame
	sent    int64
}

func (p *pinging) Frame(l *load.Loop, _ *load.Conn, _ *load.Frame, now int64) {
	if l.Measures(p.sent) {
		l.RTT.Record(now - p.sent)
	}
	l.Out = append(l.Out, p.message...)
	p.sent = control.Now()
}

func (p *pinging) Done(*load.Loop, *load.Conn, int64) {}

// fairRun is a run of fair.
type fairRun struct {
	conns, size, rounds int
	load.Timing
}

func newFairRun() *fairRun { return &fairRun{size: 512, rounds: 1, Timing: load.DefaultTiming()} }

func (o *fairRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	o.Timing.Flags(fs)
}

func (o *fairRun) Validate(*command.Session) error {
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1))
}

// Run measures how long one connection waits while its event loop is given
// more fan-out than it can do.
func (o *fairRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 1000)
	o.Duration *= 2
	s.Loops = cmp.Or(s.Loops, 1)
	t := &result.Table{
		Command: "fair", Title: "One echo connection beside a publisher without a pause",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"loops", "loops", "%d"},
			{"members", "members", "%d"},
			{"size", "bytes", "%d"},
			{"per_second", "deliveries/s", "%.0f"},
			{"server_us", "server µs/dlv", "%.2f"},
			{"echoes_per_second", "echoes/s", "%.0f"},
			{"p50_us", "echo p50 µs", "%.0f"},
			{"p99_us", "p99 µs", "%.0f"},
			{"p999_us", "p99.9 µs", "%.0f"},
			{"max_us", "max µs", "%.0f"},
			{"missing", "missing", "%d"},
			{"dropped", "dropped", "%d"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, Title: "Round trip of the echo", X: []string{"path", "loops", "members", "size"},
			Y: []string{"p50_us", "p99_us", "p999_us", "max_us"}, Axis: "µs", LogY: true,
		}},
	}
	s.Progress.Expect(o.rounds, o.Warmup+o.Duration)
	for round := range o.rounds {
		s.Progress.Step("fair, round %d of %d", round+1, o.rounds)
		if err := o.round(ctx, s, t); err != nil {
			return nil, err
		}
	}
	return []*result.Table{t}, nil
}

func (o *fairRun) round(ctx context.Context, s *command.Session, t *result.Table) error {
	srv, g, stop, err := s.Start(ctx, s.Path, o.conns+1, control.Config{}, func(int) load.Traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stop()
	if err := g.Connect(ctx, o.conns); err != nil {
		return err
	}
	if err := joinRoom(ctx, g, srv, o.conns, 0); err != nil {
		return err
	}
	// The echo connection has a loop of its own, and that a processor of the Go
	// scheduler: behind the members' loops it would wait for these.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(s.ClientLoops + 2))
	payload := make([]byte, o.size)
	payload[0] = control.EchoByte
	ping := &pinging{message: load.MaskedFrame(load.OpBinary, payload)}
	echo, err := load.NewGenerator(srv.Addr(s.Path), 1, 1, false, func(int) load.Traffic { return ping })
	if err != nil {
		return err
	}
	defer echo.Stop()
	if err := echo.Connect(ctx, 1); err != nil {
		return err
	}
	return o.load(ctx, s, t, srv, g, echo)
}

// load runs the load and adds its row.
func (o *fairRun) load(ctx context.Context, s *command.Session, t *result.Table, srv *server.Process,
	g, echo *load.Generator,
) error {
	if _, err := srv.Call(control.Command{Name: "publish", Size: o.size}); err != nil {
		return err
	}
	echo.Each(func(_ int, l *load.Loop) {
		p := l.Traffic.(*pinging)
		p.sent = control.Now()
		l.Send(0, p.message)
	})
	if err := load.Wait(ctx, o.Warmup); err != nil {
		return err
	}
	began := control.Now()
	echo.Each(func(_ int, l *load.Loop) { l.From, l.Until = began, load.Never })
	warm := o.Timing
	warm.Warmup = 0
	w, err := g.Measure(ctx, srv, &warm)
	if err != nil {
		return err
	}
	var rtt result.Histogram
	echo.Each(func(_ int, l *load.Loop) { l.Until, rtt = 0, l.RTT })
	elapsed := time.Duration(control.Now() - began)
	ended, err := srv.Call(control.Command{Name: "stop"})
	if err != nil {
		return err
	}
	r := &room{srv: srv, g: g, reading: []int{o.conns}}
	missing, _, err := r.deliver(ctx, load.Tally{}, ended.Published)
	if err != nil {
		return err
	}
	if ended, err = srv.Call(control.Command{Name: "report"}); err != nil { // it counts the messages dropped since
		return err
	}
	t.Add(s.Path, s.Loops, o.conns, o.size, w.PerSecond(w.Client.Messages), w.ServerMicros(),
		float64(rtt.Count())/elapsed.Seconds(), result.Micros(rtt.Quantile(0.5)), result.Micros(rtt.Quantile(0.99)),
		result.Micros(rtt.Quantile(0.999)), result.Micros(rtt.Max()),
		missing-min(missing, ended.Dropped), ended.Dropped)
	return echo.Err()
}
