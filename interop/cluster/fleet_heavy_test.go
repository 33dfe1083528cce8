//go:build heavy

package cluster_test

import (
	"slices"
	"testing"
	"time"
)

// goHome lets the clients that have left their first address come back, and waits until all of
// them are in their rooms.
func (f *fleet) goHome(t *testing.T, publishers []string) {
	t.Helper()
	for _, m := range f.members {
		m.mu.Lock()
		if m.current != m.home && m.conn != nil {
			m.goHome = true
			_ = m.conn.Close()
		}
		m.mu.Unlock()
	}
	f.recover(t, publishers, time.Now())
}

// complete waits until each client has read the last message of each publisher, or a gap or cut
// behind those that it has read.
func (f *fleet) complete(t *testing.T, states []nodeState) {
	t.Helper()
	waiting := slices.Clone(f.members)
	eventually(t, func() bool {
		waiting = slices.DeleteFunc(waiting, func(m *member) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return !slices.ContainsFunc(states, func(s nodeState) bool {
				return !m.record.complete(s.Publisher, s.Last[m.room])
			})
		})
		return len(waiting) == 0
	}, "a loss without a gap: %v", describer(func() string { return describe(waiting) }))
}

// complete reports whether the client has read the last message of a publisher, or knows that it has
// lost messages behind those that it has read.
func (r *record) complete(publisher string, last int) bool {
	h := r.publishers[publisher]
	if h == nil {
		return last == 0
	}
	return h.n >= last || h.cuts < r.Cuts && !r.history || h.gaps < r.Gaps
}

// settle checks the holes of histories.
func (f *fleet) settle(states []nodeState) {
	for _, m := range f.members {
		m.note(func(r *record) {
			r.settle(func(h hole) bool {
				return slices.ContainsFunc(states, func(s nodeState) bool {
					return s.Publisher == h.publisher && slices.Contains(s.Unsure[m.room], h.n)
				})
			})
		})
	}
}

// behind returns the messages of a dead publisher that some client has read, and others in the same
// room, which know of no loss, have not: they died with the node.
func (f *fleet) behind(publisher string) (missing int) {
	most := make(map[string]int)
	each := func(visit func(m *member, h *heard)) {
		for _, m := range f.members {
			m.mu.Lock()
			if h := m.record.publishers[publisher]; h != nil {
				visit(m, h)
			}
			m.mu.Unlock()
		}
	}
	each(func(m *member, h *heard) { most[m.room] = max(most[m.room], h.n) })
	each(func(m *member, h *heard) {
		if (h.cuts == m.record.Cuts || m.record.history) && h.gaps == m.record.Gaps {
			missing += most[m.room] - h.n
		}
	})
	return missing
}
