//go:build linux

package workload

import (
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

// completions counts, for each publish to each room, the loops whose members all
// have it. Safe for concurrent use.
type completions struct {
	control *load.Loop // its connection 0 carries the acknowledgements
	ack     bool
	window  uint64
	loops   []int32        // of each room: the loops with members that read
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

// members checks the messages that the rooms' members on one loop receive.
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

func (m *members) Done(*load.Loop, *load.Conn, int64) {}

// Frame checks the order: each member must receive 0, 1, 2, ... of its room.
func (m *members) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
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
	if l.Measures(f.Sent()) {
		l.RTT.Record(now - f.Sent())
	}
	m.sent[m.slot(c.Room, seq)] = f.Sent()
	m.complete(l, c.Room, seq, now)
}

// complete counts one member that has seq, or has lost it.
func (m *members) complete(l *load.Loop, room int32, seq uint64, now int64) {
	slot := m.slot(room, seq)
	if m.got[slot]++; m.got[slot] < m.total[room] {
		return
	}
	m.got[slot] = 0
	if m.completions.done[slot].Add(1) < m.loops[room] {
		return
	}
	m.completions.done[slot].Store(0)
	if sent := m.sent[slot]; sent != 0 && l.Measures(sent) {
		l.Last.Record(now - sent)
	}
	if m.ack {
		m.acknowledge(l, room, seq)
	}
}

// acknowledge sends the publisher the acknowledgement of seq, which every
// member has.
func (m *members) acknowledge(l *load.Loop, room int32, seq uint64) {
	body := binary.LittleEndian.AppendUint64([]byte{control.AckByte}, seq)
	frame := load.MaskedFrame(load.OpBinary, binary.LittleEndian.AppendUint32(body, uint32(room)))
	if l == m.control {
		l.Send(0, frame)
		return
	}
	m.control.Do(func() { m.control.Send(0, frame) })
}
