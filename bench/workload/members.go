//go:build linux

package workload

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
)

// seqWindow is the number of publishes to one room that the load generator keeps
// apart at once. With many rooms the number is lower, down to roomWindow.
const (
	seqWindow  = 1 << 12
	roomWindow = 1 << 6
)

// Completions counts, for each publish to each room, the loops whose members all
// have it. Safe for concurrent use.
type Completions struct {
	// control are loops whose connection 0 carries the acknowledgements; rooms take them in turn.
	control   []*load.Loop
	ack       bool
	publisher *clientPublisher // gets no acknowledgements: it answers; or nil
	window    uint64
	loops     []int32        // of each room: the loops with members that read
	done      []atomic.Int32 // see slot
}

// NewCompletions returns one for as many rooms, and for as many publishes to all of them that not all
// members have received. With ack, members acknowledge.
func NewCompletions(rooms, outstanding int, ack bool) *Completions {
	c := &Completions{ack: ack, window: roomWindow, loops: make([]int32, rooms)}
	for c.window < seqWindow && (c.window < seqWindow/uint64(rooms) || c.window < 2*uint64(outstanding)) {
		c.window *= 2
	}
	c.done = make([]atomic.Int32, c.window*uint64(rooms))
	return c
}

// Control adds a loop, whose connection 0 carries acknowledgements. Rooms take these loops in turn.
func (c *Completions) Control(l *load.Loop) { c.control = append(c.control, l) }

// slot is where a publish is counted.
func (c *Completions) slot(room int32, seq uint64) uint64 {
	return uint64(room)*c.window + seq%c.window
}

// Members checks the messages that the rooms' members on one loop receive.
type Members struct {
	*Completions
	total []int32 // of each room: members on this loop that read
	got   []int32 // see slot: of them, how many have the publish
	sent  []int64
	acks  [][]byte // by control: frames that are to be sent
}

// NewMembers returns the members of one loop, without any. All loops have one Completions.
func NewMembers(c *Completions) *Members {
	return &Members{
		Completions: c, total: make([]int32, len(c.loops)),
		got: make([]int32, len(c.done)), sent: make([]int64, len(c.done)),
	}
}

// Add counts a member that reads.
func (m *Members) Add(room int32) {
	if m.total[room]++; m.total[room] == 1 {
		m.loops[room]++
	}
}

// Done implements load.Traffic. It sends the acknowledgements of one read together.
func (m *Members) Done(l *load.Loop, _ *load.Conn, _ int64) {
	for i, frames := range m.acks {
		if len(frames) == 0 {
			continue
		}
		control := m.control[i]
		if l == control {
			l.Send(0, frames)
		} else {
			own := bytes.Clone(frames)
			control.Do(func() { control.Send(0, own) })
		}
		m.acks[i] = frames[:0]
	}
}

// Frame implements load.Traffic. It checks the order: each member must receive 0, 1, 2, ... of its
// room.
func (m *Members) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	seq := f.Seq()
	if seq < c.Next {
		load.Count(&l.Disordered, 1) // a duplicate, or overtaken
		return
	}
	for ; c.Next < seq; c.Next++ {
		load.Count(&l.Lost, 1)
		m.complete(l, c.Room, c.Next, now)
	}
	c.Next++
	m.Take(l, c.Room, seq, f.Sent(), now)
}

// Take counts one member that has seq, which was due at the time sent.
func (m *Members) Take(l *load.Loop, room int32, seq uint64, sent, now int64) {
	if l.Measures(sent) {
		l.RTT.Record(now - sent)
	}
	m.sent[m.slot(room, seq)] = sent
	m.complete(l, room, seq, now)
}

// complete counts one member that has seq, or has lost it.
func (m *Members) complete(l *load.Loop, room int32, seq uint64, now int64) {
	slot := m.slot(room, seq)
	if m.got[slot]++; m.got[slot] < m.total[room] {
		return
	}
	m.got[slot] = 0
	if m.Completions.done[slot].Add(1) < m.loops[room] {
		return
	}
	m.Completions.done[slot].Store(0)
	if sent := m.sent[slot]; sent != 0 && l.Measures(sent) {
		l.Last.Record(now - sent)
	}
	if m.ack {
		m.acknowledge(room, seq)
	}
}

// acknowledge lets Done send the publisher the acknowledgement of seq, which every
// member has; or the message that a client publishes then.
func (m *Members) acknowledge(room int32, seq uint64) {
	if m.acks == nil {
		m.acks = make([][]byte, len(m.control))
	}
	to := &m.acks[int(room)%len(m.control)]
	if m.publisher != nil {
		*to = m.publisher.answer(*to, m.sent[m.slot(room, seq)])
		return
	}
	body := binary.LittleEndian.AppendUint64([]byte{control.AckByte}, seq)
	frame := load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32(body, uint32(room)))
	*to = append(*to, frame...)
}
