package room

import (
	"time"
	"unsafe"
)

// DeleteCandidate is the second half of DeleteEmpty for one room that the first half found.
func (d *Directory[M, D]) DeleteCandidate(candidate *Room[M, D], now time.Time, ttl time.Duration) bool {
	return len(d.deleteEmpty(d.shard(candidate.id), []*Room[M, D]{candidate}, now, ttl)) == 1
}

// LoopLen returns the number of members whose entry is or will be in the loop's table.
func (r *Room[M, D]) LoopLen(loop int) int {
	if t := r.tableInLoop(loop); t != nil {
		return int(t.entries.Load())
	}
	return 0
}

// RosterCap returns the capacity of the roster.
func (r *Room[M, D]) RosterCap() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return cap(r.roster)
}

// CursorsCap returns the capacity of the loop's cursors.
func (r *Room[M, D]) CursorsCap(loop int) int {
	if t := r.tableInLoop(loop); t != nil && t.behind != nil {
		return cap(t.behind.list)
	}
	return 0
}

// TableSize returns the memory of a table without its members.
func TableSize() uintptr { return unsafe.Sizeof(table[*int, struct{}]{}) }
