//go:build linux

package cluster

import (
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
	gaps      uint64           // notifications of gaps
}

func newMembers(c *workload.Completions) *members {
	return &members{Members: workload.NewMembers(c), near: result.NewHistogram(), far: result.NewHistogram()}
}

// Frame implements load.Traffic.
func (m *members) Frame(l *load.Loop, c *load.Conn, f *load.Frame, now int64) {
	if f.Op == load.OpText {
		m.gaps++
		return
	}
	if l.RTT = m.far; c.State == near {
		l.RTT = m.near
	}
	m.Members.Frame(l, c, f, now)
}
