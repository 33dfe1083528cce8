//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// patience is how long nothing more must arrive before deliveries count as missing.
const patience = 3 * time.Second

// seqWindow is how many publishes the load generator can tell apart at once.
const seqWindow = 1 << 12

// completions counts, for each publish, the loops whose members all have it.
// Safe for concurrent use.
type completions struct {
	loops   int32
	control *loop // its connection 0 carries the acknowledgements
	ack     bool
	done    [seqWindow]atomic.Int32
}

// members checks what the room's members on one loop receive.
type members struct {
	*completions
	total int              // members on this loop
	got   [seqWindow]int32 // of them, how many have the publish
	sent  [seqWindow]int64
}

func (m *members) done(*loop, *clientConn, int64) {}

// frame checks the order: each member must receive 0, 1, 2, ...
func (m *members) frame(l *loop, c *clientConn, f *frame, now int64) {
	seq := f.seq()
	if seq < c.next {
		count(&l.disordered, 1) // a duplicate, or overtaken
		return
	}
	for ; c.next < seq; c.next++ {
		count(&l.lost, 1)
		m.complete(l, c.next, now)
	}
	c.next++
	if l.measuring {
		l.rtt.record(now - f.sent())
	}
	m.sent[seq%seqWindow] = f.sent()
	m.complete(l, seq, now)
}

// complete counts one member that has seq, or has lost it.
func (m *members) complete(l *loop, seq uint64, now int64) {
	slot := seq % seqWindow
	if m.got[slot]++; int(m.got[slot]) < m.total {
		return
	}
	m.got[slot] = 0
	if m.completions.done[slot].Add(1) < m.loops {
		return
	}
	m.completions.done[slot].Store(0)
	if l.measuring && m.sent[slot] != 0 {
		l.last.record(now - m.sent[slot])
	}
	if m.ack {
		m.acknowledge(l, seq)
	}
}

// acknowledge tells the publisher that every member has seq.
func (m *members) acknowledge(l *loop, seq uint64) {
	frame := maskedFrame(opBinary, binary.LittleEndian.AppendUint64([]byte{ackByte}, seq))
	if l == m.control {
		l.send(0, frame)
		return
	}
	m.control.do(func() { m.control.send(0, frame) })
}

// room is a running server whose room every connection but one has joined.
type room struct {
	srv   *server
	g     *generator
	stop  func()
	conns int

	published uint64 // by earlier loads
}

// openRoom starts a server and fills its room.
func openRoom(ctx context.Context, o *options, ack bool) (*room, error) {
	if o.conns == 0 {
		o.conns = 10_000
	}
	if o.path == "" {
		o.path = "native"
	}
	comp := &completions{loops: int32(o.clientLoops), ack: ack}
	work := make([]*members, o.clientLoops)
	srv, g, stop, err := start(ctx, o, o.path, o.conns+1, false, func(i int) traffic {
		work[i] = &members{completions: comp}
		return work[i]
	})
	if err != nil {
		return nil, err
	}
	comp.control = g.loops[0]
	for i, m := range work {
		m.total = g.share(i, o.conns+1)
	}
	work[0].total-- // the control connection
	if o.conns < o.clientLoops {
		comp.loops = int32(o.conns)
	}
	r := &room{srv: srv, g: g, stop: stop, conns: o.conns}
	if err = g.connect(ctx, o.conns+1); err == nil {
		err = joinRoom(ctx, g, srv, o.conns, -1)
	}
	if err != nil {
		stop()
		return nil, err
	}
	return r, nil
}

// joinRoom makes the connections join, and waits until conns have. Connection 0
// stays out if joined is negative; else so many have joined before.
func joinRoom(ctx context.Context, g *generator, srv *server, conns, joined int) error {
	join := maskedFrame(opBinary, []byte{joinByte})
	g.each(func(i int, l *loop) {
		first := g.share(i, max(joined, 0))
		if joined < 0 && i == 0 {
			first = 1
		}
		for index := first; index < len(l.conns); index++ {
			l.send(int32(index), join)
		}
	})
	for {
		r, err := srv.call(command{Name: "report"})
		if err != nil || r.Members == conns {
			return err
		}
		if err := g.err(); err != nil {
			return err
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// outcome is what became of one load on the room.
type outcome struct {
	*window
	missing, disordered, dropped uint64
}

// publish runs one load on the room, measures it, and waits until all that was
// published is delivered.
func (r *room) publish(ctx context.Context, o *options, c command) (*outcome, error) {
	before := r.g.sum()
	began, err := r.srv.call(c)
	if err != nil {
		return nil, err
	}
	w, err := r.g.measure(ctx, r.srv, o)
	if err != nil {
		return nil, err
	}
	ended, err := r.srv.call(command{Name: "stop"})
	if err != nil {
		return nil, err
	}
	want := (ended.Published - r.published) * uint64(r.conns)
	r.published = ended.Published
	progress, seen := time.Now(), uint64(0)
	for {
		t := r.g.sum()
		out := &outcome{window: w, disordered: t.disordered - before.disordered, dropped: ended.Dropped - began.Dropped}
		have := t.messages - before.messages - out.disordered
		if have > seen {
			progress, seen = time.Now(), have
		}
		if out.missing = want - min(have, want); out.missing == 0 || time.Since(progress) > patience {
			return out, r.g.err()
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
