//go:build linux

package compare

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/server"
	"github.com/qi-realtime/ws/bench/workload"
)

const (
	// stalledBacklog is how many messages are published to the stalled members
	// alone: 512 bytes fill a socket with 170, and most queues with 256.
	stalledBacklog = 1000
	// stalledRate is publishes a second.
	stalledRate = 4
)

// receiving is the traffic of members that check their order and measure
// latency.
type receiving struct{}

func (receiving) Done(*load.Loop, *load.Conn, int64) {}

func (receiving) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	if f.Seq() < c.Next {
		load.Count(&l.Disordered, 1)
		return
	}
	load.Count(&l.Lost, f.Seq()-c.Next)
	c.Next = f.Seq() + 1
	if l.Measures(f.Sent()) {
		l.RTT.Record(now - f.Sent())
	}
}

// stalledPercent of the members stall.
const stalledPercent = 5

// stalledRun is slow for libraries that do not report their queues: some
// members stall, are alone sent a fixed number of messages, and stay in the room
// while the others get theirs at a fixed rate.
type stalledRun struct {
	conns, size int
	byClient    bool
	load.Timing
}

func (o *stalledRun) run(ctx context.Context, s *command.Session) ([]*result.Table, error) {
	srv, g, stop, err := s.Start(ctx, s.Path, o.conns+1, control.Config{}, func(int) load.Traffic { return receiving{} })
	if err != nil {
		return nil, err
	}
	defer stop()
	// Connection 0 is no member: it may publish.
	g.ChooseStalled(func(n int) bool { return n%stalledEvery == 1 })
	g.Each(func(_ int, l *load.Loop) { l.MayEnd = true })
	if err := g.Connect(ctx, o.conns+1); err != nil {
		return nil, err
	}
	g.Stall()
	idle, err := srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return nil, err
	}
	if err := joinSome(ctx, g, srv, true, 0, 1); err != nil {
		return nil, err
	}
	filled, err := srv.Call(control.Command{Name: "fill", Size: o.size, Count: stalledBacklog})
	if err != nil {
		return nil, err
	}
	if err := joinSome(ctx, g, srv, false, filled.Published, o.reading()); err != nil {
		return nil, err
	}
	return o.load(ctx, srv, g, idle.RSS)
}

// joinSome makes the stalled members join, or the others, which expect message
// next. It waits until the server has at least members members and their number
// stays the same.
func joinSome(ctx context.Context, g *load.Generator, srv *server.Process,
	stalled bool, next uint64, members int,
) error {
	join := load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, 0))
	g.Each(func(_ int, l *load.Loop) {
		for index := range l.Conns {
			if l.Number(index) > 0 && l.Stalls(index) == stalled {
				l.Conns[index].Next = next
				l.Send(int32(index), join)
			}
		}
	})
	for before, same := -1, time.Now(); ; {
		r, err := srv.Call(control.Command{Name: "report"})
		if err != nil {
			return err
		}
		if r.Members != before {
			before, same = r.Members, time.Now()
		}
		if r.Members >= members && time.Since(same) > 250*time.Millisecond {
			return g.Err()
		}
		if err := g.Err(); err != nil {
			return err
		}
		if err := load.Wait(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d members have joined: %w", r.Members, members, err)
		}
	}
}

// stalledEvery is the distance between stalled members.
const stalledEvery = 100 / stalledPercent

// reading is the number of members that do not stall.
func (o *stalledRun) reading() int { return o.conns - (o.conns+stalledEvery-1)/stalledEvery }

// load publishes at the rate, and measures.
func (o *stalledRun) load(ctx context.Context, srv *server.Process, g *load.Generator,
	idleRSS uint64,
) ([]*result.Table, error) {
	publisher := workload.NewPublisher(srv, g, o.byClient)
	if _, err := publisher.Begin(control.Command{Name: "publish", Size: o.size, Rate: stalledRate}); err != nil {
		return nil, err
	}
	w, err := g.Measure(ctx, srv, &o.Timing)
	if err != nil {
		return nil, err
	}
	_, published, err := publisher.End()
	if err != nil {
		return nil, err
	}
	want := published * uint64(o.reading())
	for since, seen := time.Now(), uint64(0); seen < want && time.Since(since) < load.Patience; {
		if t := g.Sum(); t.Messages > seen {
			since, seen = time.Now(), t.Messages
		}
		if err := load.Wait(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	settled, err := srv.Call(control.Command{Name: "settle"})
	if err != nil {
		return nil, err
	}
	got := g.Sum()
	w.Collect(g)
	t := &result.Table{Command: "stalled", Columns: []result.Column{
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"write_calls", "writes/dlv", "%.3f"},
		{"p50_us", "p50 µs", "%.0f"},
		{"p99_us", "p99 µs", "%.0f"},
		{"growth_mib", "RSS growth MiB", "%.1f"},
		{"ended", "stalled ended", "%d"},
		{"stalled_dropped", "stalled dropped", "%d"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
	}}
	t.Add(w.PerSecond(w.Client.Messages), w.ServerMicros(), w.PerMessage(float64(w.Server.WriteCalls)),
		result.Micros(w.RTT.Quantile(0.5)), result.Micros(w.RTT.Quantile(0.99)),
		(float64(settled.RSS)-float64(idleRSS))/(1<<20), o.conns+1-settled.Clients, settled.Dropped,
		want-min(want, got.Messages-got.Disordered), got.Disordered)
	return []*result.Table{t}, g.Err()
}
