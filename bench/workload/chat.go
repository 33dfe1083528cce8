//go:build linux

package workload

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

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
		random: random, until: load.Never, message: append([]byte{control.PublishByte}, make([]byte, 4+o.size)...),
		zipf: rand.NewZipf(random, roomSkew, 1, uint64(o.rooms-1)),
	}
}

// begin starts the events on a loop that has this share of all connections.
func (t *chat) begin(l *load.Loop, o *mixedRun, rate, share float64) {
	moves, reconnects := o.moving/100*float64(o.conns), o.reconnecting/100*float64(o.conns)
	all := rate + moves + reconnects
	t.mean = float64(time.Second) / (all * share)
	t.shares = [2]float64{rate / all, (rate + moves) / all}
	t.due = control.Now() + t.pause()
	l.Due, l.Tick = t.due, func(now int64) int64 { return t.tick(l, now) }
}

func (t *chat) pause() int64 { return int64(t.random.ExpFloat64() * t.mean) }

// enter asks for a room.
func (t *chat) enter(l *load.Loop, c *load.Conn) {
	c.Room, c.State = int32(t.zipf.Uint64()), chatEntering
	l.Out = append(l.Out, roomFrame(control.EnterByte, c.Room)...)
}

func (t *chat) leave(l *load.Loop, c *load.Conn) {
	c.State = chatLeaving
	l.Out = append(l.Out, roomFrame(control.LeaveByte, c.Room)...)
}

func roomFrame(first byte, room int32) []byte {
	return load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32([]byte{first}, uint32(room)))
}

// Frame checks that a member receives exactly the messages published between its
// entering and leaving. Answers may overtake messages, and be overtaken.
func (t *chat) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	seq := f.Seq()
	switch {
	case seq&control.AnswerBit != 0:
		t.answer(l, c, seq&^(control.AnswerBit|control.LeftBit), seq&control.LeftBit != 0)
	case c.State == chatEntering:
		c.State, c.Sent, c.Next = chatHearing, seq, seq
		t.heard(l, c, f, now)
	case seq < c.Next:
		load.Count(&l.Disordered, 1)
	default:
		load.Count(&l.Lost, seq-c.Next)
		c.Next = seq
		t.heard(l, c, f, now)
	}
	if c.State == chatEnding && c.Next >= c.Sent {
		c.State = chatAway
		if now < t.until {
			t.enter(l, c)
		}
	}
}

func (t *chat) heard(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	c.Next++
	if l.Measures(f.Sent()) {
		l.RTT.Record(now - f.Sent())
	}
}

// answer handles the answer to entering or leaving: the number of the room's
// next message.
func (t *chat) answer(l *load.Loop, c *load.Conn, next uint64, left bool) {
	switch {
	case left:
		c.State, c.Sent = chatEnding, next
	case c.State == chatEntering:
		c.State, c.Next = chatIn, next
	case c.State == chatHearing && c.Sent < next:
		c.State = chatIn
		load.Count(&l.Disordered, 1)
	case c.State == chatHearing:
		c.State = chatIn
		load.Count(&l.Lost, c.Sent-next)
	}
}

func (t *chat) Done(*load.Loop, *load.Conn, int64) {}

// tick runs the events that have come due.
func (t *chat) tick(l *load.Loop, now int64) int64 {
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
		return load.Never
	}
	return t.due
}

// someone returns a random connection that is in a room.
func (t *chat) someone(l *load.Loop) int {
	first := t.random.IntN(len(l.Conns))
	for i := range l.Conns {
		if index := (first + i) % len(l.Conns); l.Conns[index].State == chatIn {
			return index
		}
	}
	return -1
}

// event makes a client speak, change rooms, or reconnect.
func (t *chat) event(l *load.Loop, index int32, now int64) {
	c := &l.Conns[index]
	switch kind := t.random.Float64(); {
	case kind < t.shares[0]:
		t.sent++
		binary.LittleEndian.PutUint32(t.message[1:], uint32(c.Room))
		binary.LittleEndian.PutUint64(t.message[5+8:], uint64(t.due)) // the server numbers it
		l.Out = append(l.Out, load.MaskedFrame(load.OpBinary, t.message)...)
		if l.Measures(t.due) {
			l.Late.Record(now - t.due)
		}
	case kind < t.shares[1]:
		t.moved++
		t.leave(l, c)
	default:
		t.reconnected++
		c.State, c.Closing = chatClosing, true
		l.Out = append(l.Out, load.MaskedFrame(load.OpClose, []byte{1000 >> 8, 1000 & 0xFF})...)
		t.absent = append(t.absent, index)
	}
	l.Flush(index)
}

// reconnect goes on with the connections that the server has closed since.
func (t *chat) reconnect(l *load.Loop) {
	absent := t.absent[:0]
	for _, index := range t.absent {
		switch c := &l.Conns[index]; {
		case c.Phase == load.PhaseClosed:
			l.Reopen(index)
		case c.Phase == load.PhaseOpen && c.State == chatAway:
			if t.until == load.Never {
				t.enter(l, c)
				l.Flush(index)
			}
			continue
		}
		absent = append(absent, index)
	}
	t.absent = absent
}

// enterChat connects the clients and waits until each is in a room.
func enterChat(ctx context.Context, g *load.Generator, work []*chat, conns int) error {
	if err := g.Connect(ctx, conns); err != nil {
		return err
	}
	g.Each(func(i int, l *load.Loop) {
		l.MayEnd = true
		for index := range l.Conns {
			work[i].enter(l, &l.Conns[index])
			l.Flush(int32(index))
		}
	})
	return g.Await(ctx, func() bool { return g.States(chatIn) == conns })
}

// endChat lets all clients leave, and waits until they have all messages that were
// published before, or until no more arrive. It returns the number of missing ones.
func endChat(ctx context.Context, g *load.Generator, work []*chat) (uint64, error) {
	g.Each(func(i int, _ *load.Loop) { work[i].until = control.Now() })
	conns := uint64(g.Conns)
	// Clients on the way into a room arrive there first.
	still := func(load.Tally) (uint64, uint64) { return conns, uint64(g.States(chatIn) + g.States(chatAway)) }
	if _, err := g.Missing(ctx, still); err != nil {
		return 0, err
	}
	g.Each(func(i int, l *load.Loop) {
		for index := range l.Conns {
			if c := &l.Conns[index]; c.State == chatIn {
				work[i].leave(l, c)
				l.Flush(int32(index))
			}
		}
	})
	stuck, err := g.Missing(ctx, func(load.Tally) (uint64, uint64) { return conns, uint64(g.States(chatAway)) })
	if err != nil || stuck == 0 {
		return 0, err
	}
	missing := make([]uint64, len(g.Loops))
	g.Each(func(i int, l *load.Loop) {
		for index := range l.Conns {
			switch c := &l.Conns[index]; {
			case c.Phase == load.PhaseOpen && c.State == chatEnding:
				missing[i] += c.Sent - c.Next
			case c.Phase != load.PhaseOpen || c.State != chatAway:
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
