package room

import (
	"slices"
	"sync/atomic"
)

// table holds the members of a room on one event loop. It exists while the loop has members,
// or will have them. Loop-confined: use only on the event loop that owns the connection.
type table[M, D any] struct {
	room      *Room[M, D]     // immutable
	entries   atomic.Int32    // members whose entry is or will be in the table; raised with room.mu held
	dissolved bool            // the table was emptied for good
	behind    *cursors        // of the members behind, the first of members; nil if there are none
	members   []*Member[M, D] // the members behind, then the others; each part in no order
}

// loopTable is a table with its loop. Immutable.
type loopTable[M, D any] struct {
	loop  int
	table *table[M, D]
}

// loopTables returns the tables of the room, which must not be changed.
func (r *Room[M, D]) loopTables() []loopTable[M, D] {
	if list := r.tables.Load(); list != nil {
		return *list
	}
	return nil
}

// find returns the place of the loop's table in list, or the place for it. It goes through the list,
// which has an entry for each loop at most: up to about 100 that is faster than slices.BinarySearchFunc.
func find[M, D any](list []loopTable[M, D], loop int) (i int, found bool) {
	for i < len(list) && list[i].loop < loop {
		i++
	}
	return i, i < len(list) && list[i].loop == loop
}

// tableInLoop returns the table of the loop, or nil.
func (r *Room[M, D]) tableInLoop(loop int) *table[M, D] {
	list := r.loopTables()
	if i, ok := find(list, loop); ok {
		return list[i].table
	}
	return nil
}

// needTableLocked returns the table of the loop, which it makes if it is missing. The list is
// copied, because publishers and loops read it without a lock.
func (r *Room[M, D]) needTableLocked(loop int) *table[M, D] {
	old := r.loopTables()
	i, ok := find(old, loop)
	if ok {
		return old[i].table
	}
	t := &table[M, D]{room: r}
	list := slices.Concat(old[:i], []loopTable[M, D]{{loop, t}}, old[i:])
	r.tables.Store(&list)
	return t
}

// dropTable takes t off the room if it is empty. It must not be called with r.mu held.
func (r *Room[M, D]) dropTable(t *table[M, D]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.entries.Load() > 0 {
		return // a Join came between
	}
	old := r.loopTables()
	i := slices.IndexFunc(old, func(other loopTable[M, D]) bool { return other.table == t })
	switch {
	case i < 0: // dropped already
	case len(old) == 1:
		r.tables.Store(nil)
	default:
		list := slices.Concat(old[:i], old[i+1:])
		r.tables.Store(&list)
	}
}

// Loops yields the event loops that have members, or will have them, in their order. A
// publisher posts to these. Safe for concurrent use.
func (r *Room[M, D]) Loops(yield func(loop int) bool) {
	for _, t := range r.loopTables() {
		if !yield(t.loop) {
			return
		}
	}
}

// InsertInLoop puts mem into the table of the loop that it joined with. If mem was inserted or
// removed before, InsertInLoop does nothing and returns false. After DissolveSomeInLoop it removes
// mem and returns false. It panics if mem is a member of another room.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) InsertInLoop(mem *Member[M, D]) bool {
	r.mustOwn(mem)
	t := mem.table
	if mem.tablePos != pending {
		return false
	}
	if t.dissolved {
		r.RemoveInLoop(mem)
		return false
	}
	mem.tablePos = int32(len(t.members))
	t.members = append(t.members, mem)
	return true
}

// RemoveInLoop takes mem out of the table of the loop that it joined with, and no longer counts
// it for the loop. A later InsertInLoop of mem does nothing. RemoveInLoop returns false if mem
// was removed before. It does not touch the roster. It panics if mem is a member of another
// room.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) RemoveInLoop(mem *Member[M, D]) bool {
	r.mustOwn(mem)
	t := mem.table
	if mem.tablePos == gone {
		return false
	}
	if mem.tablePos != pending {
		t.remove(mem, 0)
	}
	mem.tablePos = gone
	if t.entries.Add(-1) == 0 {
		r.dropTable(t)
	}
	return true
}

// remove takes mem out of the members, and returns the new number of members that a walk has
// visited: visited, or one less. The members behind stay together, and so do the visited ones:
// the last of the smaller part takes the place that becomes free, then the last of the larger
// part takes its place, then the last of all.
func (t *table[M, D]) remove(mem *Member[M, D], visited int) int {
	parts := [2]int32{t.lag(), int32(visited)}
	inner, outer := 0, 1
	if parts[inner] > parts[outer] {
		inner, outer = outer, inner
	}
	for _, part := range [2]int{inner, outer} {
		if mem.tablePos < parts[part] {
			parts[part]--
			t.swap(mem.tablePos, parts[part])
		}
	}
	last := len(t.members) - 1
	t.swap(mem.tablePos, int32(last))
	t.cut(parts[0])
	t.members = truncate(t.members, last)
	return int(parts[1])
}

// swap exchanges two members, and their cursors if both are behind. A member that comes out of the
// part behind loses its cursor with cut.
func (t *table[M, D]) swap(i, j int32) {
	a, b := t.members[i], t.members[j]
	t.members[i], t.members[j] = b, a
	a.tablePos, b.tablePos = j, i
	if max(i, j) < t.lag() {
		list := t.behind.list
		list[i], list[j] = list[j], list[i]
	}
}

// RemoveVisitedInLoop is RemoveInLoop within a walk through the table that has visited the
// first n entries. It keeps the visited entries in front, so that the walk meets each member
// once, and returns their new number.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) RemoveVisitedInLoop(mem *Member[M, D], n int) int {
	r.mustOwn(mem)
	if mem.tablePos >= 0 {
		n = mem.table.remove(mem, n)
		mem.tablePos = pending // counted, and out of the table
	}
	r.RemoveInLoop(mem)
	return n
}

// DissolveSomeInLoop empties the loop's table of a deleted room in steps, and for good: a later
// InsertInLoop adds no member. It removes at most n members, calls left with each that was behind
// and its cursor, and reports whether the table is empty. It does not touch the roster.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) DissolveSomeInLoop(loop, n int, left func(*Member[M, D], uint64)) (empty bool) {
	t := r.tableInLoop(loop)
	if t == nil {
		return true
	}
	t.dissolved = true
	for ; n > 0 && len(t.members) > 0; n-- {
		mem := t.members[len(t.members)-1]
		cursor, behind := r.CursorInLoop(mem)
		r.RemoveInLoop(mem)
		if behind {
			left(mem, cursor)
		}
	}
	return len(t.members) == 0
}

// TableInLoop returns the members of the loop: those behind (see SetCursorInLoop), then the
// others, each part in no order. The slice is borrowed until the
// next InsertInLoop or RemoveInLoop on this room and loop. To remove while it walks, code
// takes the last entry of a fresh TableInLoop until the table is empty.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) TableInLoop(loop int) []*Member[M, D] {
	if t := r.tableInLoop(loop); t != nil {
		return t.members
	}
	return nil
}

// minShrinkCap is the capacity up to which a slice keeps its array: 512 bytes.
const minShrinkCap = 64

// truncate cuts s to n members and clears the rest for the collector. An empty s keeps no
// array. Once three quarters of the array are unused, truncate moves s to an array of half the
// size, so that a large room that has become small gives its memory back. Halving at a quarter
// keeps the cost of copying constant for each removal.
func truncate[T any](s []T, n int) []T {
	if n == 0 {
		return nil
	}
	clear(s[n:])
	s = s[:n]
	if cap(s) <= minShrinkCap || n >= cap(s)/4 {
		return s
	}
	return append(make([]T, 0, cap(s)/2), s...)
}
