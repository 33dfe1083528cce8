//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/control"
)

// patience is how long nothing more must arrive before deliveries count as missing.
const patience = 3 * time.Second

// seqWindow is how many publishes the load generator can tell apart at once.
const seqWindow = 1 << 12

// completions counts, for each publish, the loops whose members all have it.
// Safe for concurrent use.
type completions struct {
	loops   int32 // that have members who read
	control *loop // its connection 0 carries the acknowledgements
	ack     bool
	done    [seqWindow]atomic.Int32
}

// members checks what the room's members on one loop receive.
type members struct {
	*completions
	total int              // members on this loop that read
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
	frame := maskedFrame(opBinary, binary.LittleEndian.AppendUint64([]byte{control.AckByte}, seq))
	if l == m.control {
		l.send(0, frame)
		return
	}
	m.control.do(func() { m.control.send(0, frame) })
}

// room is a running server whose room every connection but one has joined.
type room struct {
	srv     *server
	g       *generator
	stop    func()
	stalled int // members that do not read
	reading int // the other members

	published uint64 // by earlier loads
}

// openRoom starts a server and fills its room. So many percent of the members
// are stalled when it returns.
func openRoom(ctx context.Context, o *options, ack bool, stalledPercent float64) (*room, error) {
	comp := &completions{ack: ack}
	work := make([]*members, o.clientLoops)
	srv, g, stop, err := start(ctx, o, o.path, o.conns+1, control.Config{}, func(i int) traffic {
		work[i] = &members{completions: comp}
		return work[i]
	})
	if err != nil {
		return nil, err
	}
	comp.control = g.loops[0]
	// Connection 0 is the control connection. The stalled ones are spread
	// evenly over the others.
	stalledBelow := func(n int) int { return int(float64(n-1) * stalledPercent / 100) }
	stalls := func(n int) bool { return n > 0 && stalledBelow(n+1) > stalledBelow(n) }
	r := &room{srv: srv, g: g, stop: stop}
	for n := 1; n <= o.conns; n++ {
		if stalls(n) {
			r.stalled++
			continue
		}
		r.reading++
		m := work[n%o.clientLoops]
		if m.total++; m.total == 1 {
			comp.loops++
		}
	}
	g.chooseStalled(stalls)
	if err := r.enter(ctx, o); err != nil {
		stop()
		return nil, err
	}
	return r, nil
}

// enter makes the members connect and join, and the stalled ones stall.
func (r *room) enter(ctx context.Context, o *options) error {
	if err := r.g.connect(ctx, o.conns+1); err != nil {
		return err
	}
	if err := joinRoom(ctx, r.g, r.srv, o.conns, -1); err != nil {
		return err
	}
	if r.stalled == 0 {
		return nil
	}
	r.g.stall()
	return r.fillStalled(ctx, o.size)
}

// fillStalled publishes until each stalled member's socket and queue are full:
// until exactly these have something queued, and drop all that is published.
func (r *room) fillStalled(ctx context.Context, size int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// Small enough for the socket buffers of the members that read.
	fill := control.Command{Name: "fill", Size: size, Count: max(1, min(16, (64<<10)/size))}
	for dropped := r.srv.Dropped; ; {
		before := r.g.sum()
		rep, err := r.srv.call(fill)
		if err != nil {
			return err
		}
		missing, _, err := r.deliver(ctx, before, rep.Published)
		if err != nil {
			return err
		}
		if missing > 0 {
			return fmt.Errorf("%d deliveries did not come while others stalled", missing)
		}
		if rep.Dropped-dropped == uint64(fill.Count*r.stalled) {
			if stuck, err := stalled(ctx, r.srv, r.stalled); err != nil || stuck {
				return err
			}
		}
		dropped = rep.Dropped
	}
}

// joinRoom makes the connections join, and waits until conns have. Connection 0
// stays out if joined is negative; else so many have joined before.
func joinRoom(ctx context.Context, g *generator, srv *server, conns, joined int) error {
	join := maskedFrame(opBinary, []byte{control.JoinByte})
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
		r, err := srv.call(control.Command{Name: "report"})
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
// published is delivered to the members that read.
func (r *room) publish(ctx context.Context, o *options, c control.Command) (*outcome, error) {
	before := r.g.sum()
	began, err := r.srv.call(c)
	if err != nil {
		return nil, err
	}
	w, err := r.g.measure(ctx, r.srv, o)
	if err != nil {
		return nil, err
	}
	ended, err := r.srv.call(control.Command{Name: "stop"})
	if err != nil {
		return nil, err
	}
	out := &outcome{window: w, dropped: ended.Dropped - began.Dropped}
	out.missing, out.disordered, err = r.deliver(ctx, before, ended.Published)
	return out, err
}

// deliver waits until the members that read have everything up to published, or
// until nothing more comes. before is from the time when they had all of the
// earlier loads.
func (r *room) deliver(ctx context.Context, before tally, published uint64) (missing, disordered uint64, err error) {
	want := (published - r.published) * uint64(r.reading)
	r.published = published
	progress, seen := time.Now(), uint64(0)
	for {
		t := r.g.sum()
		disordered = t.disordered - before.disordered
		have := t.messages - before.messages - disordered
		if have > seen {
			progress, seen = time.Now(), have
		}
		if missing = want - min(have, want); missing == 0 || time.Since(progress) > patience {
			return missing, disordered, r.g.err()
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
}
