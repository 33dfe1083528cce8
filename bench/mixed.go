//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

var mixedCommand = command{
	name:  "mixed",
	about: "chat: clients speak in rooms of skewed sizes, change rooms, reconnect",
	help: `Chat: clients in rooms of skewed sizes say something at random times, and the
server sends it to the speaker's room; some change rooms or reconnect meanwhile.
Each must get all that is said in its room while it is there, and that is counted.`,
	example: "bench mixed -conns 10000 -rate 200",
	new:     func() runner { return newMixedRun() },
}

// The states of a chatting client.
const (
	chatAway     = iota // in no room, or not connected
	chatEntering        // has asked for a room
	chatHearing         // the same, and has had messages of it
	chatIn              // in a room
	chatLeaving         // has asked to leave it
	chatEnding          // knows which message is the last that it must get
	chatClosing         // has sent a close frame
)

// roomSkew is the exponent of the Zipf distribution of room sizes.
const roomSkew = 1.1

// chat is the traffic of mixed on one loop: clients that speak in rooms, change
// rooms and reconnect, each at random (a Poisson process), whatever the server
// does. Loop-confined.
type chat struct {
	random  *rand.Rand
	zipf    *rand.Zipf
	mean    float64    // nanoseconds between two events
	shares  [2]float64 // of the events that are messages, and these or changes of room
	due     int64      // of the next event
	until   int64      // no event from then on
	message []byte     // control.PublishByte, room, stamp, padding
	absent  []int32    // connections that are about to reconnect

	sent, moved, reconnected uint64
}

func newChat(o *mixedRun, l int) *chat {
	random := rand.New(rand.NewPCG(uint64(o.conns), uint64(l)))
	return &chat{
		random: random, until: never, message: append([]byte{control.PublishByte}, make([]byte, 4+o.size)...),
		zipf: rand.NewZipf(random, roomSkew, 1, uint64(o.rooms-1)),
	}
}

// begin starts the events on a loop that has this share of all connections.
func (t *chat) begin(l *loop, o *mixedRun, rate, share float64) {
	moves, reconnects := o.moving/100*float64(o.conns), o.reconnecting/100*float64(o.conns)
	all := rate + moves + reconnects
	t.mean = float64(time.Second) / (all * share)
	t.shares = [2]float64{rate / all, (rate + moves) / all}
	t.due = control.Now() + t.pause()
	l.due, l.tick = t.due, func(now int64) int64 { return t.tick(l, now) }
}

func (t *chat) pause() int64 { return int64(t.random.ExpFloat64() * t.mean) }

// enter asks for a room.
func (t *chat) enter(l *loop, c *clientConn) {
	c.room, c.state = int32(t.zipf.Uint64()), chatEntering
	l.out = append(l.out, roomFrame(control.EnterByte, c.room)...)
}

func (t *chat) leave(l *loop, c *clientConn) {
	c.state = chatLeaving
	l.out = append(l.out, roomFrame(control.LeaveByte, c.room)...)
}

func roomFrame(first byte, room int32) []byte {
	return maskedFrame(opBinary, binary.LittleEndian.AppendUint32([]byte{first}, uint32(room)))
}

// frame checks that a member gets exactly what was published between entering
// and leaving. Answers may overtake messages, and be overtaken.
func (t *chat) frame(l *loop, c *clientConn, f *frame, now int64) {
	seq := f.seq()
	switch {
	case seq&control.AnswerBit != 0:
		t.answer(l, c, seq&^(control.AnswerBit|control.LeftBit), seq&control.LeftBit != 0)
	case c.state == chatEntering:
		c.state, c.sent, c.next = chatHearing, seq, seq
		t.heard(l, c, f, now)
	case seq < c.next:
		count(&l.disordered, 1)
	default:
		count(&l.lost, seq-c.next)
		c.next = seq
		t.heard(l, c, f, now)
	}
	if c.state == chatEnding && c.next >= c.sent {
		c.state = chatAway
		if now < t.until {
			t.enter(l, c)
		}
	}
}

func (t *chat) heard(l *loop, c *clientConn, f *frame, now int64) {
	c.next++
	if l.measures(f.sent()) {
		l.rtt.record(now - f.sent())
	}
}

// answer handles the answer to entering or leaving: the number of the room's
// next message.
func (t *chat) answer(l *loop, c *clientConn, next uint64, left bool) {
	switch {
	case left:
		c.state, c.sent = chatEnding, next
	case c.state == chatEntering:
		c.state, c.next = chatIn, next
	case c.state == chatHearing && c.sent < next:
		c.state = chatIn
		count(&l.disordered, 1)
	case c.state == chatHearing:
		c.state = chatIn
		count(&l.lost, c.sent-next)
	}
}

func (t *chat) done(*loop, *clientConn, int64) {}

// tick runs the events that have come due.
func (t *chat) tick(l *loop, now int64) int64 {
	t.reconnect(l)
	for t.due <= now && t.due < t.until {
		if index := t.someone(l); index >= 0 {
			t.event(l, int32(index), now)
		}
		t.due += t.pause()
	}
	switch {
	case len(t.absent) > 0:
		return min(t.due, now+int64(2*time.Millisecond))
	case t.due >= t.until:
		return never
	}
	return t.due
}

// someone returns a connection at random that is in a room.
func (t *chat) someone(l *loop) int {
	first := t.random.IntN(len(l.conns))
	for i := range l.conns {
		if index := (first + i) % len(l.conns); l.conns[index].state == chatIn {
			return index
		}
	}
	return -1
}

// event makes a client speak, change rooms, or reconnect.
func (t *chat) event(l *loop, index int32, now int64) {
	c := &l.conns[index]
	switch kind := t.random.Float64(); {
	case kind < t.shares[0]:
		t.sent++
		binary.LittleEndian.PutUint32(t.message[1:], uint32(c.room))
		binary.LittleEndian.PutUint64(t.message[5+8:], uint64(t.due)) // the server numbers it
		l.out = append(l.out, maskedFrame(opBinary, t.message)...)
		if l.measures(t.due) {
			l.late.record(now - t.due)
		}
	case kind < t.shares[1]:
		t.moved++
		t.leave(l, c)
	default:
		t.reconnected++
		c.state = chatClosing
		l.out = append(l.out, maskedFrame(opClose, []byte{1000 >> 8, 1000 & 0xFF})...)
		t.absent = append(t.absent, index)
	}
	l.flush(index)
}

// reconnect goes on with the connections that the server has closed since.
func (t *chat) reconnect(l *loop) {
	absent := t.absent[:0]
	for _, index := range t.absent {
		switch c := &l.conns[index]; {
		case c.phase == phaseClosed:
			l.reopen(index)
		case c.phase == phaseOpen && c.state == chatAway:
			if t.until == never {
				t.enter(l, c)
				l.flush(index)
			}
			continue
		}
		absent = append(absent, index)
	}
	t.absent = absent
}

// mixedRun is a run of mixed.
type mixedRun struct {
	conns, size, rounds, rooms int
	rates                      string
	moving, reconnecting       float64 // percent of the clients a second
	timing
}

func newMixedRun() *mixedRun {
	return &mixedRun{size: 512, rounds: 1, rooms: 1, moving: 1, reconnecting: 0.5, timing: defaultTiming()}
}

func (o *mixedRun) flags(fs *flag.FlagSet) {
	connsFlag(fs, &o.conns)
	sizeFlag(fs, &o.size)
	roundsFlag(fs, &o.rounds)
	roomsFlag(fs, &o.rooms)
	ratesFlag(fs, &o.rates)
	o.timing.flags(fs)
	fs.Float64Var(&o.moving, "moving", o.moving, "mixed: so many `percent` of the clients change rooms each second")
	fs.Float64Var(&o.reconnecting, "reconnecting", o.reconnecting, "mixed: so many `percent` of the clients reconnect each second")
}

func (o *mixedRun) validate(*session) error {
	return cmp.Or(validSize(o.size), atLeast("-rounds", o.rounds, 1), atLeast("-rooms", o.rooms, 1), validRates(o.rates),
		atLeast("-moving", o.moving, 0), atLeast("-reconnecting", o.reconnecting, 0))
}

// run measures chat-like traffic.
func (o *mixedRun) run(ctx context.Context, s *session) ([]*table, error) {
	s.setDefaults(&o.conns, 2000)
	if o.rooms == 1 {
		o.rooms = max(1, o.conns/10)
	}
	t := &table{command: "mixed", title: "Chat: clients speak in rooms of skewed sizes, change rooms, reconnect", columns: []column{
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
	}, charts: []chart{
		{Kind: report.Bars, X: []string{"path", "conns", "rooms", "rate"}, Y: []string{"server_us", "p99_ms", "per_second"}},
	}}
	rates, err := rateList(o.rates)
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
	return []*table{t}, nil
}

func (o *mixedRun) round(ctx context.Context, s *session, rate float64, t *table) error {
	work := make([]*chat, s.clientLoops)
	srv, g, stop, err := s.start(ctx, s.path, o.conns, control.Config{}, func(i int) traffic {
		work[i] = newChat(o, i)
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
		l.mayEnd = true
		for index := range l.conns {
			work[i].enter(l, &l.conns[index])
			l.flush(int32(index))
		}
	})
	if err := g.await(ctx, func() bool { return g.states(chatIn) == o.conns }); err != nil {
		return err
	}
	entered, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	g.each(func(i int, l *loop) {
		if len(l.conns) > 0 {
			work[i].begin(l, o, rate, float64(len(l.conns))/float64(o.conns))
		}
	})
	w, err := g.measure(ctx, srv, &o.timing)
	if err != nil {
		return err
	}
	missing, err := endChat(ctx, g, work)
	if err != nil {
		return err
	}
	w.collect(g)
	r, err := srv.call(control.Command{Name: "report"})
	if err != nil {
		return err
	}
	var sum chat
	for _, c := range work {
		sum.sent, sum.moved, sum.reconnected = sum.sent+c.sent, sum.moved+c.moved, sum.reconnected+c.reconnected
	}
	if n := sum.sent - min(sum.sent, r.Published+r.PublishErrors); n > 0 {
		return fmt.Errorf("%d messages of clients never reached the server", n)
	}
	all := g.sum()
	t.add(s.path, o.conns, o.rooms, rate, o.size, w.perSecond(w.client.messages),
		ratio(float64(all.messages), float64(r.Published)), w.serverMicros(), micros(w.client.cpu)/float64(max(w.client.messages, 1)),
		w.perMessage(float64(w.server.Writes)), w.perMessage(float64(w.server.WriteCalls)),
		millis(w.rtt.quantile(0.5)), millis(w.rtt.quantile(0.99)), millis(w.rtt.quantile(0.999)), millis(w.rtt.max()),
		millis(w.late.quantile(0.99)), sum.moved, sum.reconnected, r.PublishErrors, missing+all.lost, all.disordered, w.server.Dropped-entered.Dropped)
	return nil
}

// states counts the connections in a state.
func (g *generator) states(state uint8) int {
	counts := make([]int, len(g.loops))
	g.each(func(i int, l *loop) {
		for index := range l.conns {
			if c := &l.conns[index]; c.state == state && c.phase == phaseOpen {
				counts[i]++
			}
		}
	})
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

// endChat lets everybody leave, and waits until all have what was published
// before, or until nothing more comes. It returns what is missing then.
func endChat(ctx context.Context, g *generator, work []*chat) (uint64, error) {
	g.each(func(i int, _ *loop) { work[i].until = control.Now() })
	conns := uint64(g.conns)
	// Who is on the way into a room arrives there first.
	still := func(tally) (uint64, uint64) { return conns, uint64(g.states(chatIn) + g.states(chatAway)) }
	if _, err := g.missing(ctx, still); err != nil {
		return 0, err
	}
	g.each(func(i int, l *loop) {
		for index := range l.conns {
			if c := &l.conns[index]; c.state == chatIn {
				work[i].leave(l, c)
				l.flush(int32(index))
			}
		}
	})
	stuck, err := g.missing(ctx, func(tally) (uint64, uint64) { return conns, uint64(g.states(chatAway)) })
	if err != nil || stuck == 0 {
		return 0, err
	}
	missing := make([]uint64, len(g.loops))
	g.each(func(i int, l *loop) {
		for index := range l.conns {
			switch c := &l.conns[index]; {
			case c.phase == phaseOpen && c.state == chatEnding:
				missing[i] += c.sent - c.next
			case c.phase != phaseOpen || c.state != chatAway:
				missing[i]++ // at least an answer
			}
		}
	})
	var sum uint64
	for _, n := range missing {
		sum += n
	}
	return sum, nil
}
