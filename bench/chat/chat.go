//go:build linux

package chat

import (
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
	chatResuming        // has asked for the room that it was in before its connection ended
	chatAsking          // is in a room, and has asked for the number of the next message
	chatAwaiting        // the same, and knows which message is the last that it must get
)

// roomSkew is the exponent of the Zipf distribution of room sizes.
const roomSkew = 1.1

// traffic is the clients on one loop: they speak in rooms, change rooms and
// reconnect, each at random (a Poisson process), whatever the server does.
// Loop-confined.
type traffic struct {
	random  *rand.Rand
	zipf    *rand.Zipf
	mean    float64    // nanoseconds between two events
	shares  [2]float64 // of the events that are messages, and these or changes of room
	due     int64      // of the next event
	until   int64      // no event from then on
	message *load.PublishPayload
	absent  []int32 // connections that are about to reconnect

	sent, moved, reconnected uint64
}

func newTraffic(o *Options, l int) *traffic {
	random := rand.New(rand.NewPCG(uint64(o.Conns), uint64(l)))
	return &traffic{
		random: random, until: load.Never, message: load.NewPublishPayload(o.Size),
		zipf: rand.NewZipf(random, roomSkew, 1, uint64(o.Rooms-1)),
	}
}

// begin starts the events on a loop that has this share of all connections.
// Clients that are in no room enter one.
func (t *traffic) begin(l *load.Loop, o *Options, share float64) {
	for index := range l.Conns {
		if c := &l.Conns[index]; c.Phase == load.PhaseOpen && c.State == chatAway {
			t.enter(l, c)
			l.Flush(int32(index))
		}
	}
	moves, reconnects := o.Moving/100*float64(o.Conns), o.Reconnecting/100*float64(o.Conns)
	all := o.Rate + moves + reconnects
	t.mean = float64(time.Second) / (all * share)
	t.shares = [2]float64{o.Rate / all, (o.Rate + moves) / all}
	t.due, t.until = control.Now()+t.pause(), load.Never
	l.Due, l.Tick = t.due, func(now int64) int64 { return t.tick(l, now) }
}

func (t *traffic) pause() int64 { return int64(t.random.ExpFloat64() * t.mean) }

// enter asks for a room.
func (t *traffic) enter(l *load.Loop, c *load.Conn) {
	c.Room, c.State = int32(t.zipf.Uint64()), chatEntering
	t.ask(l, c)
}

// ask asks for the client's room.
func (t *traffic) ask(l *load.Loop, c *load.Conn) {
	l.Out = append(l.Out, roomFrame(control.EnterByte, c.Room)...)
}

func (t *traffic) leave(l *load.Loop, c *load.Conn) {
	c.State = chatLeaving
	l.Out = append(l.Out, roomFrame(control.LeaveByte, c.Room)...)
}

func roomFrame(first byte, room int32) []byte {
	return load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32([]byte{first}, uint32(room)))
}

// Frame checks that a member receives exactly the messages published between its
// entering and leaving. Answers may overtake messages, and be overtaken.
func (t *traffic) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
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
	switch {
	case c.State == chatEnding && c.Next >= c.Sent:
		c.State = chatAway
		if now < t.until {
			t.enter(l, c)
		}
	case c.State == chatAwaiting && c.Next >= c.Sent:
		c.State = chatIn
	}
}

func (t *traffic) heard(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	c.Next++
	if l.Measures(f.Sent()) {
		l.RTT.Record(now - f.Sent())
	}
}

// answer handles the answer to entering or leaving: the number of the room's
// next message.
func (t *traffic) answer(l *load.Loop, c *load.Conn, next uint64, left bool) {
	switch {
	case left:
		c.State, c.Sent = chatEnding, next
	case c.State == chatAsking:
		c.State, c.Sent = chatAwaiting, next
	case c.State == chatResuming: // nobody has spoken since
		c.State = chatIn
		if next < c.Next {
			load.Count(&l.Disordered, 1)
			break
		}
		load.Count(&l.Lost, next-c.Next)
		c.Next = next
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

func (t *traffic) Done(*load.Loop, *load.Conn, int64) {}

// tick runs the events that have come due.
func (t *traffic) tick(l *load.Loop, now int64) int64 {
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
func (t *traffic) someone(l *load.Loop) int {
	first := t.random.IntN(len(l.Conns))
	for i := range l.Conns {
		if index := (first + i) % len(l.Conns); l.Conns[index].State == chatIn {
			return index
		}
	}
	return -1
}

// event makes a client speak, change rooms, or reconnect.
func (t *traffic) event(l *load.Loop, index int32, now int64) {
	c := &l.Conns[index]
	switch kind := t.random.Float64(); {
	case kind < t.shares[0]:
		t.sent++
		l.Out = t.message.Append(l.Out, c.Room, t.due)
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
func (t *traffic) reconnect(l *load.Loop) {
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
