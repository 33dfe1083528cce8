//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var echoCommand = command{
	name:  "echo",
	about: "messages per second when every client keeps some in flight, or their latency at a fixed rate",
	help: `Every connection keeps some messages in flight, which the server sends back as they
are. It counts messages a second, the server's CPU time and writes for each, and
the round trip, which includes the queueing that many in flight cause.`,
	example: "bench echo -conns 1000 -inflight 16 -rounds 5",
	new:     func() runner { return newEchoRun() },
}

// maxUnsent is how many bytes may wait for a connection's socket before what is
// due is held back. It is late then, and its latency says so.
const maxUnsent = 64 << 10

// echoing is the traffic of echo on one loop: it keeps some messages in flight
// on each connection, or sends them when they are due. Each carries its number
// and the time at which it was due. Loop-confined, but for what says otherwise.
type echoing struct {
	form    form
	arrived int   // by the read that is being handled
	until   int64 // what is due from then on is not sent

	rate   float64 // of all loops; 0 keeps messages in flight instead
	start  int64
	number int // of this loop, which has every loops-th connection
	loops  int
	conns  int // of all loops
	turn   int // messages of this loop that have come due

	wanted atomic.Uint64 // messages that were due; safe for concurrent use
	sent   uint64
}

func (e *echoing) frame(l *loop, c *clientConn, f *frame, now int64) {
	seq, due, ok := e.form.stamp(f)
	if !ok || seq < c.next {
		count(&l.disordered, 1)
		return
	}
	c.next = seq + 1
	e.arrived++
	if l.measures(due) {
		l.rtt.record(now - due)
	}
}

// done answers what one read brought with as many messages, in one write.
func (e *echoing) done(l *loop, c *clientConn, now int64) {
	if e.rate == 0 && now < e.until {
		e.fill(l, c, e.arrived, now)
	}
	e.arrived = 0
}

// fill sends n messages that are due now.
func (e *echoing) fill(l *loop, c *clientConn, n int, now int64) {
	for range n {
		e.append(l, c, now)
	}
	count(&e.wanted, uint64(n))
}

func (e *echoing) append(l *loop, c *clientConn, due int64) {
	l.out = e.form.append(l.out, c.sent, due)
	c.sent++
	e.sent++
}

// begin starts the load on a loop whose connections are open.
func (e *echoing) begin(l *loop, inflight int, start int64) {
	if e.rate > 0 {
		e.start, l.due = start, start
		l.tick = func(now int64) int64 { return e.tick(l, now) }
		return
	}
	for index := range l.conns {
		e.fill(l, &l.conns[index], inflight, start)
		l.flush(int32(index))
	}
}

// dueAt is when a connection's message k is due: the connections take turns,
// and all of them together send evenly.
func (e *echoing) dueAt(index int, k uint64) int64 {
	n := float64(k)*float64(e.conns) + float64(index*e.loops+e.number)
	return e.start + int64(n/e.rate*float64(time.Second))
}

// tick sends what has come due, on each connection whose turn it is, with what
// was held back there before.
func (e *echoing) tick(l *loop, now int64) int64 {
	for {
		index, k := e.turn%len(l.conns), uint64(e.turn/len(l.conns))
		due := e.dueAt(index, k)
		if due >= e.until && e.sent == e.wanted.Load() {
			return never
		}
		if due > now {
			return due
		}
		e.turn++
		if due < e.until {
			count(&e.wanted, 1)
		}
		c := &l.conns[index]
		for c.sent <= k && len(l.pending[int32(index)])+len(l.out) < maxUnsent {
			if due = e.dueAt(index, c.sent); due >= e.until {
				break
			}
			e.append(l, c, due)
			if l.measures(due) {
				l.late.record(now - due)
			}
		}
		l.flush(int32(index))
	}
}

// end lets no more messages become due.
func (e *echoing) end(l *loop) {
	e.until = control.Now()
	if l.due != never {
		l.due = e.tick(l, e.until)
	}
}

// echoRun is a run of echo.
type echoRun struct {
	conns, size, rounds     int
	inflights, modes, rates string
	timing
}

func newEchoRun() *echoRun {
	return &echoRun{size: 512, rounds: 1, inflights: defaultInflights, modes: "raw", timing: defaultTiming()}
}

func (o *echoRun) flags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
	inflightFlag(fs, &o.inflights)
	ratesFlag(fs, &o.rates)
	o.timing.flags(fs)
	fs.StringVar(&o.modes, "mode", o.modes, "echo: raw (HandleRaw inline), pooled (HandleRaw on workers), json (a typed handler on workers), json-inline; `modes` for a row each")
}

func (o *echoRun) validate(*session) error {
	_, err := o.loads()
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1), err)
}

// run measures round trips.
func (o *echoRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.setDefaults(&o.conns, 1000)
	t := &table{command: "echo", title: "Echo", columns: []column{
		{"mode", "mode", "%s"},
		{"path", "path", "%s"},
		{"conns", "connections", "%d"},
		{"inflight", "in flight", "%v"},
		{"size", "bytes", "%d"},
		{"per_second", "messages/s", "%.0f"},
		{"server_us", "server µs/msg", "%.2f"},
		{"client_us", "client µs/msg", "%.2f"},
		{"writes", "writes/msg", "%.3f"},
		{"write_calls", "by the kernel", "%.3f"},
		{"read_calls", "reads/msg", "%.3f"},
		{"p50_us", "p50 µs", "%.0f"},
		{"p99_us", "p99 µs", "%.0f"},
		{"p999_us", "p99.9 µs", "%.0f"},
		{"max_us", "max µs", "%.0f"},
		{"late_p99_us", "sent late p99 µs", "%.0f"},
		{"missing", "lost", "%d"},
		{"disordered", "disordered", "%d"},
	}, charts: []chart{{Kind: report.Bars, X: []string{"mode", "path", "conns", "inflight", "size"}, Y: []string{"per_second", "server_us"}}}}
	loads, err := o.loads()
	if err != nil {
		return nil, err
	}
	if o.rates != "" {
		t.columns[3] = column{"rate", "due/s", "%v"}
		t.charts[0].X[3] = "rate"
	}
	s.progress.expect(o.rounds*len(loads), o.warmup+o.duration)
	for round := range o.rounds {
		for _, load := range loads {
			if o.size < minJSON && load.mode.Mode == control.JSON {
				return nil, fmt.Errorf("-size is %d, must be at least %d for a JSON request", o.size, minJSON)
			}
			s.progress.step("echo, round %d of %d", round+1, o.rounds)
			if err := o.round(ctx, s, load, t); err != nil {
				return nil, err
			}
		}
	}
	return []*table{t}, nil
}

// echoMode is how the server echoes.
type echoMode struct {
	name, Mode string // Mode is control.Config's
	pooled     bool
}

var echoModes = []echoMode{
	{"raw", control.Echo, false},
	{"pooled", control.Echo, true},
	{"json", control.JSON, true},
	{"json-inline", control.JSON, false},
}

// modeList reads -mode.
func (o *echoRun) modeList() ([]echoMode, error) {
	var modes []echoMode
	for name := range strings.SplitSeq(o.modes, ",") {
		i := slices.IndexFunc(echoModes, func(m echoMode) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("bench: -mode is %q, must be some of raw,pooled,json,json-inline", o.modes)
		}
		modes = append(modes, echoModes[i])
	}
	return modes, nil
}

// echoLoad is one load: so many messages in flight on each connection, or a rate.
type echoLoad struct {
	mode     echoMode
	inflight int
	rate     float64
}

// loads are those that the flags ask for.
func (o *echoRun) loads() (loads []echoLoad, err error) {
	modes, err := o.modeList()
	if err != nil {
		return nil, err
	}
	rates, err := rateList(o.rates)
	if err != nil {
		return nil, err
	}
	counts, err := inflightCounts(o.inflights)
	for _, mode := range modes {
		for _, rate := range rates {
			loads = append(loads, echoLoad{mode: mode, rate: rate})
		}
		for _, n := range counts {
			if rates == nil {
				loads = append(loads, echoLoad{mode: mode, inflight: n})
			}
		}
	}
	return loads, err
}

func (o *echoRun) round(ctx context.Context, s *session, load echoLoad, t *table) error {
	work := make([]*echoing, s.clientLoops)
	var messages form = newBinaryForm(o.size)
	if load.mode.Mode == control.JSON {
		messages = newJSONForm(o.size)
	}
	cfg := control.Config{Mode: load.mode.Mode, Pooled: load.mode.pooled}
	srv, g, stop, err := s.start(ctx, s.path, o.conns, cfg, func(i int) traffic {
		work[i] = &echoing{
			form: messages, until: never, rate: load.rate, number: i, loops: s.clientLoops, conns: o.conns,
		}
		return work[i]
	})
	if err != nil {
		return err
	}
	defer stop()
	g.each(func(_ int, l *loop) { l.whole = load.mode.Mode == control.JSON })
	if err := g.connect(ctx, o.conns); err != nil {
		return err
	}
	began := control.Now()
	g.each(func(i int, l *loop) {
		if len(l.conns) > 0 {
			work[i].begin(l, load.inflight, began)
		}
	})
	w, err := g.measure(ctx, srv, &o.timing)
	if err != nil {
		return err
	}
	g.each(func(i int, l *loop) { work[i].end(l) })
	lost, err := echoLost(ctx, g, work)
	if err != nil {
		return err
	}
	w.collect(g)
	var asked any = load.inflight
	if load.rate > 0 {
		asked = load.rate
	}
	t.add(load.mode.name, s.path, o.conns, asked, o.size, w.perSecond(w.client.messages),
		w.serverMicros(), micros(w.client.cpu)/float64(max(w.client.messages, 1)),
		w.perMessage(float64(w.server.Writes)), w.perMessage(float64(w.server.WriteCalls)), w.perMessage(float64(w.server.ReadCalls)),
		micros(w.rtt.quantile(0.5)), micros(w.rtt.quantile(0.99)), micros(w.rtt.quantile(0.999)), micros(w.rtt.max()),
		micros(w.late.quantile(0.99)), lost, g.sum().disordered)
	return nil
}

// echoLost waits until all that was due has come back, or until nothing more
// comes.
func echoLost(ctx context.Context, g *generator, work []*echoing) (uint64, error) {
	var wanted uint64
	for _, e := range work {
		wanted += e.wanted.Load()
	}
	return g.missing(ctx, func(t tally) (uint64, uint64) { return wanted, t.messages - t.disordered })
}
