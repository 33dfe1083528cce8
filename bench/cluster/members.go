//go:build linux

package cluster

import (
	"bytes"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/load"
	"github.com/qi-realtime/ws/bench/result"
	"github.com/qi-realtime/ws/bench/workload"
)

// near is the state of a connection whose room has its publisher on the connection's node.
const near = 1

// members are the members of rooms on one loop. Loop-confined: use only on the loop that owns the
// connections.
type members struct {
	*workload.Members
	near, far result.Histogram // latency within a node, and across nodes
	joined    int              // members of rooms with a history
	gaps      uint64           // notifications of gaps
	broken    string           // the first message of a history that does not follow the one before
}

func newMembers(c *workload.Completions) *members {
	return &members{Members: workload.NewMembers(c), near: result.NewHistogram(), far: result.NewHistogram()}
}

// Frame implements load.Traffic.
func (m *members) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	if l.RTT = m.far; c.State == near {
		l.RTT = m.near
	}
	if f.Op == load.OpText {
		m.text(l, c, f.Head, now)
		return
	}
	m.Members.Frame(l, c, f, now)
}

// The texts of the server begin with these.
var (
	message  = []byte(`{"type":"notify","event":"` + control.HistoryEvent + `"`)
	gap      = []byte(`{"type":"notify","event":"ws.gap"`)
	response = []byte(`{"type":"response"`)

	codeKey   = []byte(`"code":`)
	offsetKey = []byte(`"offset":`)
	prevKey   = []byte(`"prev":`)
	nextKey   = []byte(`"next":`)
	seqKey    = []byte(`"seq":`)
	sentKey   = []byte(`"sent":`)
)

// text handles a text. The plain loop sees the first bytes of one only, and gets none but gaps.
// Conn.Next is the offset behind the last message of the member.
func (m *members) text(l *load.Loop, c *load.Conn, b []byte, now int64) {
	switch {
	case bytes.HasPrefix(b, message):
		m.stored(l, c, b, now)
	case bytes.HasPrefix(b, response):
		if load.Number(b, codeKey) != 200 {
			load.Count(&l.Lost, 1)
			return
		}
		m.joined++
		c.Next = load.Number(b, offsetKey) + 1
	case !l.Whole:
		m.gaps++
	case bytes.HasPrefix(b, gap):
		m.gaps++
		if next := load.Number(b, nextKey); next > 0 { // 0 is a gap of plain messages
			c.Next = next
		}
	}
}

// stored handles a message of a history: it has to follow the one before. A plain message, without an
// offset, does not.
func (m *members) stored(l *load.Loop, c *load.Conn, b []byte, now int64) {
	offset := load.Number(b, offsetKey)
	prev := offset - 1
	if bytes.Contains(b, prevKey) {
		prev = load.Number(b, prevKey)
	}
	if m.broken == "" && (offset < c.Next || prev >= c.Next) {
		m.broken = fmt.Sprintf("a message does not follow offset %d: %.*s", c.Next-1, brokenBytes, b)
	}
	switch {
	case offset < c.Next:
		load.Count(&l.Disordered, 1)
		return
	case prev >= c.Next:
		load.Count(&l.Lost, 1)
	}
	c.Next = offset + 1
	seq, ok1 := load.FindDigits(b, seqKey)
	sent, ok2 := load.FindDigits(b, sentKey)
	if ok1 && ok2 {
		m.Take(l, c.Room, seq, int64(sent), now)
	}
}

// brokenBytes is the length of the shown part of a message that does not follow.
const brokenBytes = 120

// joinFrame returns the masked request to join a room with a history.
func joinFrame(room int32) []byte {
	return load.MaskedFrame(load.OpText, fmt.Appendf(nil,
		`{"type":"request","event":"ws.join","request_id":"1","data":{"room":"bench-%d"}}`, room))
}
