//go:build linux

package main

import (
	"context"

	"github.com/qi-realtime/ws/bench/control"
)

// echoing keeps some messages in flight on each connection of one loop. Each
// carries its number and the time of its sending.
type echoing struct {
	template []byte
	size     int
	arrived  int // by the read that is being handled
}

func (e *echoing) frame(l *loop, c *clientConn, f *frame, now int64) {
	if f.size != e.size || f.seq() != c.next {
		count(&l.disordered, 1)
		return
	}
	c.next++
	e.arrived++
	if l.measures(f.sent()) {
		l.rtt.record(now - f.sent())
	}
}

// done answers what one read brought with as many messages, in one write.
func (e *echoing) done(l *loop, c *clientConn, now int64) {
	e.fill(l, c, e.arrived, now)
	e.arrived = 0
}

func (e *echoing) fill(l *loop, c *clientConn, n int, now int64) {
	for range n {
		l.out = appendStamped(l.out, e.template, e.size, c.sent, now)
		c.sent++
	}
}

// runEcho measures round trips.
func runEcho(ctx context.Context, o *options) ([]*table, error) {
	o.setDefaults(1000)
	t := &table{command: "echo", title: "Echo (HandleRaw inline, binary)", columns: []column{
		{"path", "path", "%s"},
		{"conns", "connections", "%d"},
		{"inflight", "in flight", "%d"},
		{"size", "bytes", "%d"},
		{"per_second", "messages/s", "%.0f"},
		{"server_us", "server µs/msg", "%.2f"},
		{"client_us", "client µs/msg", "%.2f"},
		{"writes", "writes/msg", "%.3f"},
		{"p50_us", "RTT p50 µs", "%.0f"},
		{"p99_us", "p99 µs", "%.0f"},
		{"disordered", "disordered", "%d"},
	}}
	for range o.rounds {
		if err := echoRound(ctx, o, t); err != nil {
			return nil, err
		}
	}
	return []*table{t}, nil
}

func echoRound(ctx context.Context, o *options, t *table) error {
	work := make([]*echoing, o.clientLoops)
	srv, g, stop, err := start(ctx, o, o.path, o.conns, control.Config{Mode: control.Echo}, func(i int) traffic {
		work[i] = &echoing{template: maskedFrame(opBinary, make([]byte, o.size)), size: o.size}
		return work[i]
	})
	if err != nil {
		return err
	}
	defer stop()
	if err := g.connect(ctx, o.conns); err != nil {
		return err
	}
	g.each(func(i int, l *loop) {
		for index := range l.conns {
			work[i].fill(l, &l.conns[index], o.inflight, control.Now())
			l.send(int32(index), l.out)
			l.out = l.out[:0]
		}
	})
	w, err := g.measure(ctx, srv, o)
	if err != nil {
		return err
	}
	w.collect(g)
	t.add(o.path, o.conns, o.inflight, o.size, w.perSecond(w.client.messages),
		w.serverMicros(), micros(w.client.cpu)/float64(max(w.client.messages, 1)),
		w.perMessage(float64(w.server.Writes)), micros(w.rtt.quantile(0.5)), micros(w.rtt.quantile(0.99)),
		g.sum().disordered)
	return nil
}
