//go:build linux

package workload

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// EchoCommand is the command echo.
var EchoCommand = command.Command{
	Name:  "echo",
	About: "messages per second when every client keeps some in flight, or their latency at a fixed rate",
	Help: `Every connection keeps some messages in flight, which the server sends back as they
are. It counts messages a second, the server's CPU time and writes for each, and
the round trip, which includes the queueing that many in flight cause.`,
	Example: "bench echo -conns 1000 -inflight 16 -rounds 5",
	New:     func() command.Runner { return NewEchoRun() },
}

// maxUnsent is how many bytes may wait for a connection's socket before due
// messages are held back. They are late then, and their latency includes it.
const maxUnsent = 64 << 10

// echoing is the traffic of echo on one loop: it keeps some messages in flight
// on each connection, or sends them when they are due. Each carries its number
// and the time at which it was due. Loop-confined, except wanted.
type echoing struct {
	payload load.Payload
	arrived int   // by the read that is being handled
	until   int64 // messages due from then on are not sent

	rate   float64 // of all loops; 0 keeps messages in flight instead
	start  int64
	number int // of this loop, which has every loops-th connection
	loops  int
	conns  int // of all loops
	turn   int // messages of this loop that have come due

	wanted atomic.Uint64 // messages that were due; safe for concurrent use
	sent   uint64
}

func (e *echoing) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	seq, due, ok := e.payload.Stamp(f)
	if !ok || seq < c.Next {
		load.Count(&l.Disordered, 1)
		return
	}
	c.Next = seq + 1
	e.arrived++
	if l.Measures(due) {
		l.RTT.Record(now - due)
	}
}

// Done answers the messages of one read with as many, in one write.
func (e *echoing) Done(l *load.Loop, c *load.Conn, now int64) {
	if e.rate == 0 && now < e.until {
		e.fill(l, c, e.arrived, now)
	}
	e.arrived = 0
}

// fill sends n messages that are due now.
func (e *echoing) fill(l *load.Loop, c *load.Conn, n int, now int64) {
	for range n {
		e.append(l, c, now)
	}
	load.Count(&e.wanted, uint64(n))
}

func (e *echoing) append(l *load.Loop, c *load.Conn, due int64) {
	l.Out = e.payload.Append(l.Out, c.Sent, due)
	c.Sent++
	e.sent++
}

// begin starts the load on a loop whose connections are open.
func (e *echoing) begin(l *load.Loop, inflight int, start int64) {
	if e.rate > 0 {
		e.start, l.Due = start, start
		l.Tick = func(now int64) int64 { return e.tick(l, now) }
		return
	}
	for index := range l.Conns {
		e.fill(l, &l.Conns[index], inflight, start)
		l.Flush(int32(index))
	}
}

// dueAt is when a connection's message k is due: the connections take turns,
// and all of them together send evenly.
func (e *echoing) dueAt(index int, k uint64) int64 {
	n := float64(k)*float64(e.conns) + float64(index*e.loops+e.number)
	return e.start + int64(n/e.rate*float64(time.Second))
}

// tick sends the messages that have come due, on each connection in turn, together
// with the messages held back there before.
func (e *echoing) tick(l *load.Loop, now int64) int64 {
	for {
		index, k := e.turn%len(l.Conns), uint64(e.turn/len(l.Conns))
		due := e.dueAt(index, k)
		if due >= e.until && e.sent == e.wanted.Load() {
			return load.Never
		}
		if due > now {
			return due
		}
		e.turn++
		if due < e.until {
			load.Count(&e.wanted, 1)
		}
		c := &l.Conns[index]
		for c.Sent <= k && len(l.Pending[int32(index)])+len(l.Out) < maxUnsent {
			if due = e.dueAt(index, c.Sent); due >= e.until {
				break
			}
			e.append(l, c, due)
			if l.Measures(due) {
				l.Late.Record(now - due)
			}
		}
		l.Flush(int32(index))
	}
}

// end lets no more messages become due.
func (e *echoing) end(l *load.Loop) {
	e.until = control.Now()
	if l.Due != load.Never {
		l.Due = e.tick(l, e.until)
	}
}

// EchoRun is a run of echo.
type EchoRun struct {
	Conns, Size, rounds     int
	Inflights, Modes, Rates string
	load.Timing
}

// NewEchoRun returns a run with the defaults of the flags.
func NewEchoRun() *EchoRun {
	return &EchoRun{Size: 512, rounds: 1, Inflights: command.DefaultInflights, Modes: "raw", Timing: load.DefaultTiming()}
}

// Flags implements command.Runner.
func (o *EchoRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.Conns)
	command.SizeFlag(fs, &o.Size)
	command.RoundsFlag(fs, &o.rounds)
	command.InflightFlag(fs, &o.Inflights)
	command.RatesFlag(fs, &o.Rates)
	o.Timing.Flags(fs)
	fs.StringVar(&o.Modes, "mode", o.Modes,
		"echo: raw (HandleRaw inline), pooled (HandleRaw on workers), json (a typed handler on workers), json-inline; "+
			"`modes` for a row each")
}

// Validate implements command.Runner.
func (o *EchoRun) Validate(*command.Session) error {
	_, err := o.loads()
	return cmp.Or(command.ValidSize(o.Size), command.AtLeast("-rounds", o.rounds, 1), err)
}

// Run measures round trips.
func (o *EchoRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.Conns, 1000)
	t := &result.Table{Command: "echo", Title: "Echo", Columns: []result.Column{
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
	}, Charts: []result.Chart{{
		Kind: report.Bars, X: []string{"mode", "path", "conns", "inflight", "size"},
		Y: []string{"per_second", "server_us"},
	}}}
	loads, err := o.loads()
	if err != nil {
		return nil, err
	}
	if o.Rates != "" {
		t.Columns[3] = result.Column{"rate", "due/s", "%v"}
		t.Charts[0].X[3] = "rate"
	}
	s.Progress.Expect(o.rounds*len(loads), o.Warmup+o.Duration)
	for round := range o.rounds {
		for _, one := range loads {
			if o.Size < load.MinJSON && one.mode.Mode == control.JSON {
				return nil, fmt.Errorf("-size is %d, must be at least %d for a JSON request", o.Size, load.MinJSON)
			}
			s.Progress.Step("echo, round %d of %d", round+1, o.rounds)
			if err := o.round(ctx, s, one, t); err != nil {
				return nil, err
			}
		}
	}
	return []*result.Table{t}, nil
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
func (o *EchoRun) modeList() ([]echoMode, error) {
	var modes []echoMode
	for name := range strings.SplitSeq(o.Modes, ",") {
		i := slices.IndexFunc(echoModes, func(m echoMode) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("bench: -mode is %q, must be some of raw,pooled,json,json-inline", o.Modes)
		}
		modes = append(modes, echoModes[i])
	}
	return modes, nil
}

// echoLoad is one load: a number of messages in flight on each connection, or a
// rate.
type echoLoad struct {
	mode     echoMode
	inflight int
	rate     float64
}

// loads are those that the flags ask for.
func (o *EchoRun) loads() (loads []echoLoad, err error) {
	modes, err := o.modeList()
	if err != nil {
		return nil, err
	}
	rates, err := command.RateList(o.Rates)
	if err != nil {
		return nil, err
	}
	counts, err := command.InflightCounts(o.Inflights)
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

func (o *EchoRun) round(ctx context.Context, s *command.Session, one echoLoad, t *result.Table) error {
	work := make([]*echoing, s.ClientLoops)
	var messages load.Payload = load.NewBinaryPayload(o.Size)
	if one.mode.Mode == control.JSON {
		messages = load.NewJSONPayload(o.Size)
	}
	cfg := control.Config{Mode: one.mode.Mode, Pooled: one.mode.pooled}
	srv, g, stop, err := s.Start(ctx, s.Path, o.Conns, cfg, func(i int) load.Traffic {
		work[i] = &echoing{
			payload: messages, until: load.Never, rate: one.rate, number: i, loops: s.ClientLoops, conns: o.Conns,
		}
		return work[i]
	})
	if err != nil {
		return err
	}
	defer stop()
	g.Each(func(_ int, l *load.Loop) { l.Whole = one.mode.Mode == control.JSON })
	if err := g.Connect(ctx, o.Conns); err != nil {
		return err
	}
	began := control.Now()
	g.Each(func(i int, l *load.Loop) {
		if len(l.Conns) > 0 {
			work[i].begin(l, one.inflight, began)
		}
	})
	w, err := g.Measure(ctx, srv, &o.Timing)
	if err != nil {
		return err
	}
	g.Each(func(i int, l *load.Loop) { work[i].end(l) })
	lost, err := echoLost(ctx, g, work)
	if err != nil {
		return err
	}
	w.Collect(g)
	var asked any = one.inflight
	if one.rate > 0 {
		asked = one.rate
	}
	t.Add(one.mode.name, s.Path, o.Conns, asked, o.Size, w.PerSecond(w.Client.Messages),
		w.ServerMicros(), result.Micros(w.Client.CPU)/float64(max(w.Client.Messages, 1)),
		w.PerMessage(float64(w.Server.Writes)), w.PerMessage(float64(w.Server.WriteCalls)),
		w.PerMessage(float64(w.Server.ReadCalls)),
		result.Micros(w.RTT.Quantile(0.5)), result.Micros(w.RTT.Quantile(0.99)), result.Micros(w.RTT.Quantile(0.999)),
		result.Micros(w.RTT.Max()),
		result.Micros(w.Late.Quantile(0.99)), lost, g.Sum().Disordered)
	return nil
}

// echoLost waits until all due messages have come back, or until no more arrive. It
// returns the number of lost ones.
func echoLost(ctx context.Context, g *load.Generator, work []*echoing) (uint64, error) {
	var wanted uint64
	for _, e := range work {
		wanted += e.wanted.Load()
	}
	return g.Missing(ctx, func(t load.Tally) (uint64, uint64) { return wanted, t.Messages - t.Disordered })
}
