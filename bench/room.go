//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/control"
)

// seqWindow is how many publishes to one room the load generator can tell apart
// at once; with many rooms it is less, down to roomWindow.
const (
	seqWindow  = 1 << 12
	roomWindow = 1 << 6
)

// completions counts, for each publish to each room, the loops whose members all
// have it. Safe for concurrent use.
type completions struct {
	control *loop // its connection 0 carries the acknowledgements
	ack     bool
	window  uint64
	loops   []int32        // of each room: that have members who read
	done    []atomic.Int32 // see slot
}

func newCompletions(rooms, outstanding int, ack bool) *completions {
	c := &completions{ack: ack, window: roomWindow, loops: make([]int32, rooms)}
	for c.window < seqWindow && (c.window < seqWindow/uint64(rooms) || c.window < 2*uint64(outstanding)) {
		c.window *= 2
	}
	c.done = make([]atomic.Int32, c.window*uint64(rooms))
	return c
}

// slot is where a publish is counted.
func (c *completions) slot(room int32, seq uint64) uint64 {
	return uint64(room)*c.window + seq%c.window
}

// members checks what the rooms' members on one loop receive.
type members struct {
	*completions
	total []int32 // of each room: members on this loop that read
	got   []int32 // see slot: of them, how many have the publish
	sent  []int64
}

func newMembers(c *completions) *members {
	return &members{
		completions: c, total: make([]int32, len(c.loops)),
		got: make([]int32, len(c.done)), sent: make([]int64, len(c.done)),
	}
}

// add counts a member that reads.
func (m *members) add(room int32) {
	if m.total[room]++; m.total[room] == 1 {
		m.loops[room]++
	}
}

func (m *members) done(*loop, *clientConn, int64) {}

// frame checks the order: each member must receive 0, 1, 2, ... of its room.
func (m *members) frame(l *loop, c *clientConn, f *frame, now int64) {
	seq := f.seq()
	if seq < c.next {
		count(&l.disordered, 1) // a duplicate, or overtaken
		return
	}
	for ; c.next < seq; c.next++ {
		count(&l.lost, 1)
		m.complete(l, c.room, c.next, now)
	}
	c.next++
	if l.measures(f.sent()) {
		l.rtt.record(now - f.sent())
	}
	m.sent[m.slot(c.room, seq)] = f.sent()
	m.complete(l, c.room, seq, now)
}

// complete counts one member that has seq, or has lost it.
func (m *members) complete(l *loop, room int32, seq uint64, now int64) {
	slot := m.slot(room, seq)
	if m.got[slot]++; m.got[slot] < m.total[room] {
		return
	}
	m.got[slot] = 0
	if m.completions.done[slot].Add(1) < m.loops[room] {
		return
	}
	m.completions.done[slot].Store(0)
	if sent := m.sent[slot]; sent != 0 && l.measures(sent) {
		l.last.record(now - sent)
	}
	if m.ack {
		m.acknowledge(l, room, seq)
	}
}

// acknowledge tells the publisher that every member has seq.
func (m *members) acknowledge(l *loop, room int32, seq uint64) {
	body := binary.LittleEndian.AppendUint64([]byte{control.AckByte}, seq)
	frame := maskedFrame(opBinary, binary.LittleEndian.AppendUint32(body, uint32(room)))
	if l == m.control {
		l.send(0, frame)
		return
	}
	m.control.do(func() { m.control.send(0, frame) })
}

// room is a running server whose rooms every connection but one has joined, each
// one of them.
type room struct {
	srv       *server
	g         *generator
	stop      func()
	stalled   int    // members that do not read
	trickling int    // members that read a few bytes now and then
	reading   []int  // the other members, of each room
	rss       uint64 // of the server before any of them stalled

	published uint64 // by earlier loads
}

// roomSetup is how the members of rooms are.
type roomSetup struct {
	conns       int // members
	rooms       int
	size        int     // of a message, in bytes
	ack         bool    // they acknowledge
	outstanding int     // publishes that not all members have received
	stalled     float64 // percent that never read
	trickling   float64 // percent that read a few bytes now and then
	firstUser   uint64  // if not 0, they show tokens
	others      int     // members that the server has put into other rooms
}

// openRoom starts a server and fills its rooms. Members that are to stall have
// when it returns.
func openRoom(ctx context.Context, s *session, setup roomSetup) (*room, error) {
	srv, err := s.launch(ctx, setup.conns+1, control.Config{})
	if err != nil {
		return nil, err
	}
	r, err := joinRooms(ctx, s, srv, setup)
	if err != nil {
		srv.stop()
		return nil, err
	}
	r.stop = func() { r.g.stop(); srv.stop() }
	return r, nil
}

// joinRooms is openRoom on a server that runs, and goes on when the generator is
// stopped.
func joinRooms(ctx context.Context, s *session, srv *server, setup roomSetup) (*room, error) {
	comp := newCompletions(setup.rooms, setup.outstanding, setup.ack)
	work := make([]*members, s.clientLoops)
	g, err := newGenerator(srv.addr(s.path), s.clientLoops, setup.conns+1, false, func(i int) traffic {
		work[i] = newMembers(comp)
		return work[i]
	})
	if err != nil {
		return nil, err
	}
	if setup.firstUser > 0 {
		g.authenticate(setup.firstUser)
	}
	comp.control = g.loops[0]
	// Connection 0 is the control connection. The slow ones are spread evenly
	// over the others.
	stalled := evenly(setup.conns, setup.stalled+setup.trickling)
	stalls := func(n int) bool { return n > 0 && stalled[n-1] }
	r := &room{srv: srv, g: g, stop: g.stop, reading: make([]int, setup.rooms), trickling: int(float64(setup.conns) * setup.trickling / 100)}
	rooms := spread(setup.conns, setup.rooms)
	for n := 1; n <= setup.conns; n++ {
		if stalls(n) {
			r.stalled++
			continue
		}
		r.reading[rooms[n-1]]++
		work[n%s.clientLoops].add(rooms[n-1])
	}
	g.chooseStalled(stalls)
	if err := r.enter(ctx, setup, rooms); err != nil {
		g.stop()
		return nil, err
	}
	return r, nil
}

// evenly marks so many percent of n.
func evenly(n int, percent float64) []bool {
	marks := make([]bool, n)
	for i := range marks {
		marks[i] = int(float64(i+1)*percent/100) > int(float64(i)*percent/100)
	}
	return marks
}

// spread deals n members out to rooms of equal size, at random, so that a room's
// members are on all event loops of the server; the same every time.
func spread(n, rooms int) []int32 {
	of := make([]int32, n)
	for i := range of {
		of[i] = int32(i % rooms)
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(n, func(i, j int) { of[i], of[j] = of[j], of[i] })
	return of
}

// enter makes the members connect and join their rooms, and the stalled ones
// stall.
func (r *room) enter(ctx context.Context, setup roomSetup, rooms []int32) error {
	if i := slices.Index(r.reading, 0); i >= 0 {
		return fmt.Errorf("room %d has no member that reads: fewer rooms or stalled members are needed", i)
	}
	if err := r.g.connect(ctx, setup.conns+1); err != nil {
		return err
	}
	r.g.each(func(_ int, l *loop) {
		for index := range l.conns {
			if n := l.number(index); n > 0 {
				l.conns[index].room = rooms[n-1]
			}
		}
	})
	if err := joinRoom(ctx, r.g, r.srv, setup.conns+setup.others, -1); err != nil {
		return err
	}
	before, err := r.srv.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	if r.rss = before.RSS; r.stalled == 0 {
		return nil
	}
	r.g.stall()
	if err := r.fillStalled(ctx, setup.size); err != nil {
		return err
	}
	r.g.trickle(r.trickling)
	r.stalled -= r.trickling
	return nil
}

// fillStalled publishes until each stalled member's socket and queue are full:
// until exactly these have something queued, and drop all that is published.
func (r *room) fillStalled(ctx context.Context, size int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// Small enough for the socket buffers of the members that read.
	fill := control.Command{Name: "fill", Size: size, Rooms: len(r.reading), Count: max(1, min(16, (64<<10)/size))}
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

// joinRoom makes the connections join their rooms, and waits until the server has
// so many members. Connection 0 stays out if joined is negative; else so many have joined before.
func joinRoom(ctx context.Context, g *generator, srv *server, members, joined int) error {
	g.each(func(i int, l *loop) {
		first := g.share(i, max(joined, 0))
		if joined < 0 && i == 0 {
			first = 1
		}
		for index := first; index < len(l.conns); index++ {
			room := uint32(l.conns[index].room)
			l.send(int32(index), maskedFrame(opBinary, binary.LittleEndian.AppendUint32([]byte{control.JoinByte}, room)))
		}
	})
	for {
		r, err := srv.call(control.Command{Name: "report"})
		if err != nil || r.Members == members {
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

	rssGrowth int64 // of the server, since before any member stalled
}

// publish runs one load on the room, measures it, and waits until all that was
// published is delivered to the members that read.
func (r *room) publish(ctx context.Context, o *timing, c control.Command) (*outcome, error) {
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
	out := &outcome{window: w, dropped: ended.Dropped - began.Dropped, rssGrowth: int64(ended.RSS) - int64(r.rss)}
	out.missing, out.disordered, err = r.deliver(ctx, before, ended.Published)
	out.collect(r.g)
	return out, err
}

// deliver waits until the members that read have everything up to published, or
// until nothing more comes. before is from the time when they had all of the
// earlier loads.
func (r *room) deliver(ctx context.Context, before tally, published uint64) (missing, disordered uint64, err error) {
	n := published - r.published
	r.published = published
	want, rooms := uint64(0), uint64(len(r.reading))
	for i, reading := range r.reading { // the publisher took them in turn
		of := n / rooms
		if uint64(i) < n%rooms {
			of++
		}
		want += of * uint64(reading)
	}
	missing, err = r.g.missing(ctx, func(t tally) (uint64, uint64) {
		disordered = t.disordered - before.disordered
		return want, t.messages - before.messages - disordered
	})
	return missing, disordered, err
}
