//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"runtime"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var fairCommand = command{
	name:  "fair",
	about: "round trip of one client while a publisher floods a room on its event loop",
	help: `One connection sends a message, waits for its echo, and sends the next, while a
goroutine of the server publishes to the members of a room on the same event loop
without a pause. The round trip says how long a loop's fan-out holds up its reads.`,
	example: "bench fair -conns 1000 -loops 1",
	new:     func() runner { return newFairRun() },
}

// pinging is the traffic of one connection that sends a message, waits for its
// echo, and sends the next.
type pinging struct {
	message []byte // a masked frame
	sent    int64
}

func (p *pinging) frame(l *loop, _ *clientConn, _ *frame, now int64) {
	if l.measures(p.sent) {
		l.rtt.record(now - p.sent)
	}
	l.out = append(l.out, p.message...)
	p.sent = control.Now()
}

func (p *pinging) done(*loop, *clientConn, int64) {}

// fairRun is a run of fair.
type fairRun struct {
	conns, size, rounds int
	timing
}

func newFairRun() *fairRun { return &fairRun{size: 512, rounds: 1, timing: defaultTiming()} }

func (o *fairRun) flags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
	o.timing.flags(fs)
}

func (o *fairRun) validate(*session) error {
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1))
}

// run measures how long one connection waits while its event loop is given
// more fan-out than it can do.
func (o *fairRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.setDefaults(&o.conns, 1000)
	o.duration *= 2
	s.loops = cmp.Or(s.loops, 1)
	t := &table{command: "fair", title: "One echo connection beside a publisher without a pause", columns: []column{
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
	}, charts: []chart{{
		Kind: report.Bars, Title: "Round trip of the echo", X: []string{"path", "loops", "members", "size"},
		Y: []string{"p50_us", "p99_us", "p999_us", "max_us"}, Axis: "µs", LogY: true,
	}}}
	s.progress.expect(o.rounds, o.warmup+o.duration)
	for round := range o.rounds {
		s.progress.step("fair, round %d of %d", round+1, o.rounds)
		if err := o.round(ctx, s, t); err != nil {
			return nil, err
		}
	}
	return []*table{t}, nil
}

func (o *fairRun) round(ctx context.Context, s *session, t *table) error {
	srv, g, stop, err := s.start(ctx, s.path, o.conns+1, control.Config{}, func(int) traffic { return silent{} })
	if err != nil {
		return err
	}
	defer stop()
	if err := g.connect(ctx, o.conns); err != nil {
		return err
	}
	if err := joinRoom(ctx, g, srv, o.conns, 0); err != nil {
		return err
	}
	// The echo connection has a loop of its own, and that a processor of the Go
	// scheduler: behind the members' loops it would wait for these.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(s.clientLoops + 2))
	payload := make([]byte, o.size)
	payload[0] = control.EchoByte
	ping := &pinging{message: maskedFrame(opBinary, payload)}
	echo, err := newGenerator(srv.addr(s.path), 1, 1, false, func(int) traffic { return ping })
	if err != nil {
		return err
	}
	defer echo.stop()
	if err := echo.connect(ctx, 1); err != nil {
		return err
	}
	return o.load(ctx, s, t, srv, g, echo)
}

// load runs the load and adds its row.
func (o *fairRun) load(ctx context.Context, s *session, t *table, srv *server, g, echo *generator) error {
	if _, err := srv.call(control.Command{Name: "publish", Size: o.size}); err != nil {
		return err
	}
	echo.each(func(_ int, l *loop) {
		p := l.traffic.(*pinging)
		p.sent = control.Now()
		l.send(0, p.message)
	})
	if err := wait(ctx, o.warmup); err != nil {
		return err
	}
	began := control.Now()
	echo.each(func(_ int, l *loop) { l.from, l.until = began, never })
	warm := o.timing
	warm.warmup = 0
	w, err := g.measure(ctx, srv, &warm)
	if err != nil {
		return err
	}
	var rtt histogram
	echo.each(func(_ int, l *loop) { l.until, rtt = 0, l.rtt })
	elapsed := time.Duration(control.Now() - began)
	ended, err := srv.call(control.Command{Name: "stop"})
	if err != nil {
		return err
	}
	r := &room{srv: srv, g: g, reading: []int{o.conns}}
	missing, _, err := r.deliver(ctx, tally{}, ended.Published)
	if err != nil {
		return err
	}
	if ended, err = srv.call(control.Command{Name: "report"}); err != nil { // with what was dropped since
		return err
	}
	t.add(s.path, s.loops, o.conns, o.size, w.perSecond(w.client.messages), w.serverMicros(),
		float64(rtt.count())/elapsed.Seconds(), micros(rtt.quantile(0.5)), micros(rtt.quantile(0.99)),
		micros(rtt.quantile(0.999)), micros(rtt.max()),
		missing-min(missing, ended.Dropped), ended.Dropped)
	return echo.err()
}
