//go:build linux

package workload

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// move is the way of a client from a server that drains to another one; times are
// those of control.Now, 0 for never. Its two connections have the same index on two
// loops: each loop writes fields of its own.
type move struct {
	aware bool // it reads the notice, opens its new connection, and then closes the old one

	// Of the old loop.
	slot  int64  // the notice or, without one, the close frame came
	ended int64  // it closed the old connection, or the close frame came
	asked uint32 // requests on the old connection
	heard uint32 // their answers
	// must is the number of messages that it must have had at the end.
	must uint64

	opened int64 // of the new loop
}

// moving is the clients of one loop of the old server. Loop-confined.
type moving struct {
	moves []move
	to    *load.Loop // of the new server
	sent  []int64    // when each message of the room was due
	turn  int        // of the client that sends the next request

	slowest int64 // time from the due time of a message of the room to its arrival
}

// askFrame is a request whose answer is the number of the room's next message.
var askFrame = load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32([]byte{control.EnterByte}, 0))

func (m *moving) Done(*load.Loop, *load.Conn, int64) {}

// Frame handles a message of the room, the answer to a request, or the notice.
func (m *moving) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	index := c.Room // of the connection, see begin
	v := &m.moves[index]
	switch {
	case f.Op == load.OpText:
		if bytes.Contains(f.Head, []byte(`"ws.reconnect"`)) && v.slot == 0 {
			v.slot = now
			m.open(index, 0)
			m.ask(l, index) // the answer says which messages it must have before it closes
		}
	case f.Seq()&control.AnswerBit != 0:
		v.heard++
		v.must = f.Seq() &^ control.AnswerBit
		if v.heard == 1 {
			c.Next = v.must
		}
		m.leave(l, index)
	default:
		m.message(l, c, f, now)
		m.leave(l, index)
	}
}

func (m *moving) message(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	seq := f.Seq()
	m.slowest = max(m.slowest, now-f.Sent())
	for uint64(len(m.sent)) <= seq {
		m.sent = append(m.sent, 0)
	}
	m.sent[seq] = f.Sent()
	if seq < c.Next {
		load.Count(&l.Disordered, 1)
		return
	}
	load.Count(&l.Lost, seq-c.Next)
	c.Next = seq + 1
}

// ask sends a request.
func (m *moving) ask(l *load.Loop, index int32) {
	m.moves[index].asked++
	l.Send(index, askFrame)
}

// open opens the new connection after a time.
func (m *moving) open(index int32, after time.Duration) {
	reopen := func() { m.to.Do(func() { m.to.Reopen(index) }) }
	if after <= 0 {
		reopen()
		return
	}
	time.AfterFunc(after, reopen) // it comes before the run ends: all clients are waited for
}

// leave closes the old connection of a client that has read the notice, when it has its
// new one, all answers, and all messages that were published before the last of them.
func (m *moving) leave(l *load.Loop, index int32) {
	c, v := &l.Conns[index], &m.moves[index]
	if v.slot == 0 || !v.aware || c.State != movingOpened || c.Closing || v.heard < v.asked || c.Next < v.must {
		return
	}
	c.Closing, v.ended = true, control.Now()
	l.Send(index, load.MaskedFrame(load.OpClose, []byte{1000 >> 8, 1000 & 0xFF}))
}

// missing counts the messages that clients should have had before their ends, behind
// the last ones that they had: those that were due a margin before.
func (m *moving) missing(l *load.Loop, margin int64) (n uint64) {
	for index := range m.moves {
		v, next := &m.moves[index], l.Conns[index].Next
		last := max(next, v.must)
		for last < uint64(len(m.sent)) && m.sent[last] != 0 && m.sent[last] < v.ended-margin {
			last++
		}
		n += last - next
	}
	return n
}

// movingOpened is the state of an old connection whose client has its new one.
const movingOpened = 1

// closed handles the close frame of a server that drains: the client connects again
// after the time that the reason says.
func (m *moving) closed(index int32, body []byte) {
	v := &m.moves[index]
	if v.ended != 0 {
		return
	}
	now := control.Now()
	v.ended = now
	if v.slot != 0 {
		return // its new connection is under way
	}
	v.slot = now
	var reason struct {
		Retry int64 `json:"retry_ms"`
	}
	if len(body) > 2 {
		_ = json.Unmarshal(body[2:], &reason) // without a time it connects at once
	}
	m.open(index, time.Duration(reason.Retry)*time.Millisecond)
}

// begin sends requests, each client one in that time. The first joins the room, in which
// nobody speaks yet.
func (m *moving) begin(l *load.Loop, every time.Duration) {
	for index := range l.Conns {
		l.Conns[index].Room = int32(index)
		m.ask(l, int32(index))
	}
	pause := int64(every) / int64(max(1, len(l.Conns)))
	if len(l.Conns) == 0 {
		return
	}
	l.Due, l.Tick = control.Now()+pause, func(now int64) int64 {
		index := int32(m.turn % len(l.Conns))
		m.turn++
		if c := &l.Conns[index]; c.Phase == load.PhaseOpen && m.moves[index].slot == 0 && !c.Closing {
			m.ask(l, index)
		}
		return now + pause
	}
}
