//go:build linux

package workload

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
)

// StormCommand is the command storm.
var StormCommand = command.Command{
	Name:  "storm",
	About: "connections per second when all clients connect or reconnect at once, and the effect on others",
	Help: `All clients connect at once, with authentication and room joins, are cut off at
once, and come back, while other members of a room receive a steady stream. It
measures how fast they connect, the cost, and the effect on the others.`,
	Example: "bench storm -conns 10000",
	Procs:   true,
	New:     func() command.Runner { return newStormRun() },
}

// stayingUser is the number of the first user that stays; the storm's are lower.
const stayingUser = 1 << 40

// stormSteps is how many points a storm's curve has.
const stormSteps = 50

// stormRun is a run of storm.
type stormRun struct {
	conns, size, rounds         int
	staying, opening, joinRooms int
	admit                       float64 // connections a second
	admitBurst                  int
	authDelay                   time.Duration
	rates                       string
}

func newStormRun() *stormRun {
	return &stormRun{size: 512, rounds: 1, staying: 1000, opening: 1000, joinRooms: 2}
}

func (o *stormRun) Flags(fs *flag.FlagSet) {
	command.ConnsFlag(fs, &o.conns)
	command.SizeFlag(fs, &o.size)
	command.RoundsFlag(fs, &o.rounds)
	command.RatesFlag(fs, &o.rates)
	fs.IntVar(&o.staying, "staying", o.staying, "storm: `members` that stay, and receive the messages published meanwhile")
	fs.IntVar(&o.opening, "opening", o.opening, "storm: handshakes under way at once; 0 is all")
	fs.IntVar(&o.joinRooms, "join-rooms", o.joinRooms, "storm: rooms that the server puts each client into")
	fs.Float64Var(&o.admit, "admit", o.admit,
		"storm: WithAdmission, connections a second that the server lets in; 0 is no limit")
	fs.IntVar(&o.admitBurst, "admit-burst", o.admitBurst,
		"storm: connections that it lets in at once; 0 is the library's default")
	fs.DurationVar(&o.authDelay, "auth-delay", o.authDelay, "storm: time that authentication waits, as for a database")
}

func (o *stormRun) Validate(*command.Session) error {
	if o.admit < 0 || o.admitBurst < 0 || (o.admitBurst > 0 && o.admit == 0) {
		return errors.New("bench: -admit or -admit-burst is out of range, or the burst has no rate")
	}
	return cmp.Or(command.ValidSize(o.size), command.AtLeast("-rounds", o.rounds, 1),
		command.AtLeast("-staying", o.staying, 1),
		command.AtLeast("-opening", o.opening, 0), command.AtLeast("-join-rooms", o.joinRooms, 0),
		command.ValidRates(o.rates))
}

// storms is the command storm as it runs.
type storms struct {
	*stormRun
	session       *command.Session
	table, series *result.Table
}

// Run measures mass connects and mass reconnects, alone and beside a
// fan-out to members that stay.
func (o *stormRun) Run(ctx context.Context, session *command.Session) ([]*result.Table, error) {
	session.SetDefaults(&o.conns, 5000)
	s := &storms{stormRun: o, session: session, table: newStormTable(), series: newStormSeries()}
	rates, err := command.RateList(o.rates)
	if err != nil {
		return nil, err
	}
	if rates == nil {
		rates = []float64{20}
	}
	for round := range o.rounds {
		for _, rate := range append([]float64{0}, rates...) {
			if err := s.round(ctx, round, rate); err != nil {
				return nil, err
			}
		}
	}
	return []*result.Table{s.table, s.series}, nil
}

func newStormTable() *result.Table {
	return &result.Table{
		Command: "storm",
		Title:   "Storms: all clients connect, authenticate and are put into rooms at once",
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"storm", "storm", "%s"},
			{"conns", "connections", "%d"},
			{"rate", "publishes/s to others", "%g"},
			{"per_second", "connections/s", "%.0f"},
			{"half_ms", "50 % in, ms", "%.0f"},
			{"most_ms", "99 %", "%.0f"},
			{"all_ms", "all", "%.0f"},
			{"joined_ms", "in rooms", "%.0f"},
			{"p50_ms", "connect to 101 p50 ms", "%.1f"},
			{"p90_ms", "p90", "%.1f"},
			{"p99_ms", "p99", "%.1f"},
			{"max_ms", "max", "%.1f"},
			{"waiting_most", "waiting at most", "%d"},
			{"rest_ms", "listeners rested ms", "%.0f"},
			{"refused", "refused", "%d"},
			{"server_us", "server µs/conn", "%.1f"},
			{"peak_rss_bytes", "RSS peak B", "%d"},
			{"staying_p50_ms", "others p50 ms", "%.1f"},
			{"staying_p99_ms", "p99", "%.1f"},
			{"staying_max_ms", "max", "%.1f"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
		}, Charts: []result.Chart{
			{Kind: report.Bars, X: []string{"storm", "rate", "path"}, Y: []string{"per_second", "server_us"}},
			{
				Kind: report.Bars, Title: "Time to connect, 99th percentile", X: []string{"storm", "rate", "path"},
				Y: []string{"p99_ms"}, Axis: "ms",
			},
		},
	}
}

// newStormSeries returns the table of the curves.
func newStormSeries() *result.Table {
	return &result.Table{
		Command: "storm-series", Title: "Connections over time", Unprinted: true,
		Columns: []result.Column{
			{"path", "path", "%s"},
			{"round", "round", "%d"},
			{"storm", "storm", "%s"},
			{"rate", "publishes/s to others", "%g"},
			{"line", "", "%s"},
			{"at_ms", "ms", "%.1f"},
			{"conns", "connections", "%d"},
			{"waiting", "waiting", "%d"},
		}, Charts: []result.Chart{
			{Kind: report.Lines, Title: "Connections over time", X: []string{"at_ms"}, Y: []string{"conns"}, Series: "line"},
			{
				Kind: report.Lines, Title: "Connections that wait for their 101", X: []string{"at_ms"},
				Y: []string{"waiting"}, Series: "line",
			},
		},
	}
}

// round connects and reconnects all clients of a fresh server, beside a fan-out
// at a rate if that is not 0.
func (s *storms) round(ctx context.Context, round int, rate float64) error {
	// A server that has not noticed yet that the old connections are gone needs
	// room for both.
	cfg := control.Config{
		MaxConnections: 2*s.conns + s.staying + 100, Authenticate: true, AuthDelay: s.authDelay, JoinRooms: s.joinRooms,
		AdmitPerSecond: s.admit, AdmitBurst: s.admitBurst,
	}
	srv, err := s.session.Launch(ctx, s.conns+s.staying, cfg)
	if err != nil {
		return err
	}
	defer srv.Stop()
	var others *room
	if rate > 0 {
		setup := roomSetup{
			conns: s.staying, rooms: 1, size: s.size,
			firstUser: stayingUser, others: (s.staying + 1) * s.joinRooms,
		}
		if others, err = joinRooms(ctx, s.session, srv, setup); err != nil {
			return err
		}
		defer others.g.Stop()
	}
	g, err := load.NewGenerator(srv.Addr(s.session.Path), s.session.ClientLoops, s.conns, false,
		func(int) load.Traffic { return silent{} })
	if err != nil {
		return err
	}
	defer g.Stop()
	g.Authenticate(0)
	g.Each(func(_ int, l *load.Loop) {
		l.Retry, l.MaxOpening = true, s.conns
		if s.opening > 0 {
			l.MaxOpening = max(1, s.opening/s.session.ClientLoops)
		}
	})
	for _, name := range []string{"connect", "reconnect"} {
		if err := s.storm(ctx, storm{srv: srv, g: g, others: others, name: name, round: round, rate: rate}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// storm is one storm and its times.
type storm struct {
	srv    *server.Process
	g      *load.Generator
	others *room // the members that stay, or nil
	name   string
	round  int
	rate   float64

	began  int64
	joined time.Duration
}

// storm runs one storm and adds its row.
func (s *storms) storm(ctx context.Context, st storm) error {
	if err := s.session.Part.Together(); err != nil {
		return err
	}
	before, err := st.srv.Call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	outcome := &outcome{Window: &load.Window{RTT: result.NewHistogram()}}
	var after *control.Report
	burst := func() error {
		st.g.Reset()
		st.began = control.Now()
		if err := st.g.Connect(ctx, s.conns); err != nil {
			return err
		}
		after, err = s.awaitRooms(ctx, &st)
		return err
	}
	if st.others == nil {
		err = burst()
	} else {
		load := control.Command{Name: "publish", Size: s.size, Rate: st.rate}
		outcome, err = st.others.beside(ctx, load, burst)
	}
	if err != nil {
		return err
	}
	s.addRow(&st, before, after, outcome)
	return nil
}

// addRow adds the row of a storm and its points over time.
func (s *storms) addRow(st *storm, before, after *control.Report, outcome *outcome) {
	begins, times, connects, refused := st.g.Opens()
	at := func(share float64) time.Duration {
		return time.Duration(times[max(0, int(share*float64(len(times)))-1)] - st.began)
	}
	line := st.name
	if st.rate > 0 {
		line += fmt.Sprintf(", %g publishes/s", st.rate)
	}
	if s.rounds > 1 {
		line += fmt.Sprintf(", round %d", st.round+1)
	}
	most := 0
	for i := 1; i <= stormSteps; i++ {
		share := float64(i) / stormSteps
		// Attempts that were refused are over, too, but not counted as such.
		opened := int(share * float64(len(times)))
		begun, _ := slices.BinarySearch(begins, st.began+int64(at(share))+1)
		waiting := max(0, min(begun-opened, len(times)-opened))
		most = max(most, waiting)
		s.series.Add(s.session.Path, st.round, st.name, st.rate, line, result.MaxOf(result.Millis(at(share))),
			result.SumOf(opened), result.SumOf(waiting))
	}
	n := float64(s.conns)
	s.table.Add(s.session.Path, st.name, result.SumOf(s.conns), st.rate, result.SumOf(n/at(1).Seconds()),
		result.MaxOf(result.Millis(at(0.5))), result.MaxOf(result.Millis(at(0.99))),
		result.MaxOf(result.Millis(at(1))), result.MaxOf(result.Millis(st.joined)),
		result.MillisOf(connects, 0.5), result.MillisOf(connects, 0.9),
		result.MillisOf(connects, 0.99), result.MillisOf(connects, 1),
		result.SumOf(most), result.MaxOf(result.Millis(after.AdmissionWait-before.AdmissionWait)), result.SumOf(refused),
		result.MeanOf(result.Micros(after.CPU-before.CPU)/n, n), result.SumOf(after.PeakRSS),
		result.MillisOf(outcome.RTT, 0.5), result.MillisOf(outcome.RTT, 0.99), result.MillisOf(outcome.RTT, 1),
		result.SumOf(outcome.missing), result.SumOf(outcome.disordered))
}

// awaitRooms waits until the server has put exactly these clients into their
// rooms, and no longer knows the earlier connections.
func (s *storms) awaitRooms(ctx context.Context, st *storm) (*control.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	clients, members := s.conns, s.conns*s.joinRooms
	if st.others != nil {
		clients += s.staying + 1
		members += (s.staying+1)*s.joinRooms + s.staying
	}
	for {
		r, err := st.srv.Call(control.Command{Name: "report"})
		if err != nil {
			return nil, err
		}
		if r.Clients == clients && r.Members == members {
			st.joined = time.Duration(control.Now() - st.began)
			return r, nil
		}
		if err := load.Wait(ctx, 20*time.Millisecond); err != nil {
			return nil, fmt.Errorf("the server has %d clients and %d members, not %d and %d: %w",
				r.Clients, r.Members, clients, members, err)
		}
	}
}

// beside runs a load on the room while do runs; the latencies are of that time.
func (r *room) beside(ctx context.Context, publish control.Command, do func() error) (*outcome, error) {
	before := r.g.Sum()
	began, err := r.publisher.Begin(publish)
	if err != nil {
		return nil, err
	}
	r.g.Begin()
	if err := do(); err != nil {
		return nil, err
	}
	r.g.End()
	ended, published, err := r.publisher.End()
	if err != nil {
		return nil, err
	}
	out := &outcome{Window: &load.Window{}, dropped: ended.Dropped - began.Dropped}
	out.missing, out.disordered, err = r.deliver(ctx, before, r.published+published)
	out.Collect(r.g)
	return out, err
}
