//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/control"
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

func (receiving) done(*loop, *clientConn, int64) {}

func (receiving) frame(l *loop, c *clientConn, f *frame, now int64) {
	if f.seq() < c.next {
		count(&l.disordered, 1)
		return
	}
	count(&l.lost, f.seq()-c.next)
	c.next = f.seq() + 1
	if l.measures(f.sent()) {
		l.rtt.record(now - f.sent())
	}
}

// stalledPercent of the members stall.
const stalledPercent = 5

// stalledRun is slow for libraries that tell nothing of their queues: some
// members stall, are alone sent a fixed number of messages, and stay in the room
// while the others get theirs at a fixed rate.
type stalledRun struct {
	conns, size int
	timing
}

func (o *stalledRun) run(ctx context.Context, s *session) ([]*table, error) {
	srv, g, stop, err := s.start(ctx, s.path, o.conns, control.Config{}, func(int) traffic { return receiving{} })
	if err != nil {
		return nil, err
	}
	defer stop()
	g.chooseStalled(func(n int) bool { return n%stalledEvery == 0 })
	g.each(func(_ int, l *loop) { l.mayEnd = true })
	if err := g.connect(ctx, o.conns); err != nil {
		return nil, err
	}
	g.stall()
	idle, err := srv.call(control.Command{Name: "settle"})
	if err != nil {
		return nil, err
	}
	if err := joinSome(ctx, g, srv, true, 0, 1); err != nil {
		return nil, err
	}
	filled, err := srv.call(control.Command{Name: "fill", Size: o.size, Count: stalledBacklog})
	if err != nil {
		return nil, err
	}
	if err := joinSome(ctx, g, srv, false, filled.Published, o.reading()); err != nil {
		return nil, err
	}
	return o.load(ctx, srv, g, idle.RSS, filled.Published)
}

// joinSome makes the stalled members join, or the others, who expect message
// next. It waits until there are so many at least and no more come or go.
func joinSome(ctx context.Context, g *generator, srv *server, stalled bool, next uint64, members int) error {
	join := maskedFrame(opBinary, binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, 0))
	g.each(func(_ int, l *loop) {
		for index := range l.conns {
			if l.stalls(index) == stalled {
				l.conns[index].next = next
				l.send(int32(index), join)
			}
		}
	})
	for before, same := -1, time.Now(); ; {
		r, err := srv.call(control.Command{Name: "report"})
		if err != nil {
			return err
		}
		if r.Members != before {
			before, same = r.Members, time.Now()
		}
		if r.Members >= members && time.Since(same) > 250*time.Millisecond {
			return g.err()
		}
		if err := g.err(); err != nil {
			return err
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d members have joined: %w", r.Members, members, err)
		}
	}
}

// stalledEvery is the distance between stalled members.
const stalledEvery = 100 / stalledPercent

// reading is the number of members that do not stall.
func (o *stalledRun) reading() int { return o.conns - (o.conns+stalledEvery-1)/stalledEvery }

// load publishes at the rate, and measures.
func (o *stalledRun) load(ctx context.Context, srv *server, g *generator, idleRSS, before uint64) ([]*table, error) {
	if _, err := srv.call(control.Command{Name: "publish", Size: o.size, Rate: stalledRate}); err != nil {
		return nil, err
	}
	w, err := g.measure(ctx, srv, &o.timing)
	if err != nil {
		return nil, err
	}
	ended, err := srv.call(control.Command{Name: "stop"})
	if err != nil {
		return nil, err
	}
	want := (ended.Published - before) * uint64(o.reading())
	for since, seen := time.Now(), uint64(0); seen < want && time.Since(since) < patience; {
		if t := g.sum(); t.messages > seen {
			since, seen = time.Now(), t.messages
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	settled, err := srv.call(control.Command{Name: "settle"})
	if err != nil {
		return nil, err
	}
	got := g.sum()
	w.collect(g)
	t := &table{command: "stalled", columns: []column{
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
	t.add(w.perSecond(w.client.messages), w.serverMicros(), w.perMessage(float64(w.server.WriteCalls)),
		micros(w.rtt.quantile(0.5)), micros(w.rtt.quantile(0.99)),
		(float64(settled.RSS)-float64(idleRSS))/(1<<20), o.conns-settled.Clients, settled.Dropped,
		want-min(want, got.messages-got.disordered), got.disordered)
	return []*table{t}, g.err()
}
