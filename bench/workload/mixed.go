//go:build linux

package workload

import (
	"cmp"
	"context"
	"flag"
	"fmt"

	"github.com/qi-realtime/ws/bench/chat"
	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// MixedCommand is the command mixed.
var MixedCommand = command.Command{
	Name:  "mixed",
	About: "chat: clients speak in rooms of skewed sizes, change rooms, reconnect",
	Help: `Chat: clients in rooms of skewed sizes say something at random times, and the
server sends it to the speaker's room; some change rooms or reconnect meanwhile.
Each must get all that is said in its room while it is there, and that is counted.`,
	Example: "bench mixed -conns 10000 -rate 200",
	New:     func() command.Runner { return newMixedRun() },
}

// mixedRun is a run of mixed.
type mixedRun struct {
	conns, size, rounds, rooms int
	rates                      string
	moving, reconnecting       float64 // percent of the clients a second
	load.Timing
}

func newMixedRun() *mixedRun {
	return &mixedRun{size: 512, rounds: 1, rooms: 1, moving: 1, reconnecting: 0.5, Timing: load.DefaultTiming()}
}

func (o *mixedRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	command.RoomsFlag(fs, &o.rooms)
	command.RatesFlag(fs, &o.rates)
	o.Timing.Flags(fs)
	fs.Float64Var(&o.moving, "moving", o.moving, "mixed: `percent` of the clients that change rooms each second")
	fs.Float64Var(&o.reconnecting, "reconnecting", o.reconnecting,
		"mixed: `percent` of the clients that reconnect each second")
}

func (o *mixedRun) Validate(*command.Session) error {
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1),
		command.AtLeast("-rooms", o.rooms, 1), command.ValidRates(o.rates),
		command.AtLeast("-moving", o.moving, 0), command.AtLeast("-reconnecting", o.reconnecting, 0))
}

// Run measures chat-like traffic.
func (o *mixedRun) Run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	s.SetDefaults(&o.conns, 2000)
	if o.rooms == 1 {
		o.rooms = max(1, o.conns/10)
	}
	t := &result.Table{
		Command: "mixed",
		Title:   "Chat: clients speak in rooms of skewed sizes, change rooms, reconnect",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"conns", "clients", "%d"},
			{"rooms", "rooms", "%d"},
			{"rate", "messages/s due", "%g"},
			{"size", "bytes", "%d"},
			{"per_second", "deliveries/s", "%.0f"},
			{"each", "of each message", "%.1f"},
			{"server_us", "server µs/dlv", "%.2f"},
			{"client_us", "client µs/dlv", "%.2f"},
			{"writes", "writes/dlv", "%.3f"},
			{"write_calls", "by the kernel", "%.3f"},
			{"p50_ms", "p50 ms", "%.1f"},
			{"p99_ms", "p99 ms", "%.1f"},
			{"p999_ms", "p99.9 ms", "%.1f"},
			{"max_ms", "max ms", "%.1f"},
			{"late_p99_ms", "sent late p99 ms", "%.1f"},
			{"moves", "changes of room", "%d"},
			{"reconnects", "reconnects", "%d"},
			{"refused", "refused", "%d"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
			{"undelivered", "dropped or gone", "%d"},
		}, Charts: []result.Chart{
			{Kind: report.Bars, X: []string{"path", "conns", "rooms", "rate"}, Y: []string{"server_us", "p99_ms", "per_second"}},
		},
	}
	rates, err := command.RateList(o.rates)
	if err != nil {
		return nil, err
	}
	if rates == nil {
		rates = []float64{500}
	}
	for range o.rounds {
		for _, rate := range rates {
			if err := o.round(ctx, s, rate, t); err != nil {
				return nil, err
			}
		}
	}
	return []*result.Table{t}, nil
}

func (o *mixedRun) round(ctx context.Context, s *command.Session, rate float64, t *result.Table) error {
	clients := chat.NewGroup(chat.Options{
		Conns: o.conns, Rooms: o.rooms, Size: o.size, Rate: rate, Moving: o.moving, Reconnecting: o.reconnecting,
	}, s.ClientLoops)
	srv, g, stop, err := s.Start(ctx, s.Path, o.conns, control.Config{}, clients.Traffic)
	if err != nil {
		return err
	}
	defer stop()
	clients.Generator = g
	if err := clients.Enter(ctx); err != nil {
		return err
	}
	entered, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	clients.Begin()
	w, err := g.Measure(ctx, srv, &o.Timing)
	if err != nil {
		return err
	}
	missing, err := clients.End(ctx)
	if err != nil {
		return err
	}
	w.Collect(g)
	r, err := srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	sum := clients.Counts()
	if n := sum.Sent - min(sum.Sent, r.Published+r.PublishErrors); n > 0 {
		return fmt.Errorf("%d messages of clients never reached the server", n)
	}
	all := g.Sum()
	t.Add(s.Path, o.conns, o.rooms, rate, o.size, w.PerSecond(w.Client.Messages),
		result.Ratio(float64(all.Messages), float64(r.Published)), w.ServerMicros(),
		result.Micros(w.Client.CPU)/float64(max(w.Client.Messages, 1)),
		w.PerMessage(float64(w.Server.Writes)), w.PerMessage(float64(w.Server.WriteCalls)),
		result.Millis(w.RTT.Quantile(0.5)), result.Millis(w.RTT.Quantile(0.99)), result.Millis(w.RTT.Quantile(0.999)),
		result.Millis(w.RTT.Max()),
		result.Millis(w.Late.Quantile(0.99)), sum.Moved, sum.Reconnected, r.PublishErrors, missing+all.Lost,
		all.Disordered, w.Server.Dropped-entered.Dropped)
	return nil
}
