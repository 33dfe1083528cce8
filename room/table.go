package room

// InsertInLoop puts mem into the table of the loop that it joined with. If mem was inserted or
// removed before, InsertInLoop does nothing and returns false. After DissolveInLoop it removes
// mem and returns false. It panics if mem is a member of another room.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) InsertInLoop(mem *Member[M, D], loop int) bool {
	r.mustOwn(mem)
	if mem.tablePos != pending {
		return false
	}
	if r.dissolved[loop] {
		r.RemoveInLoop(mem, loop)
		return false
	}
	table := &r.tables[loop]
	mem.tablePos = int32(len(*table))
	*table = append(*table, mem)
	return true
}

// RemoveInLoop takes mem out of the table of the loop that it joined with, and no longer counts
// it for the loop. A later InsertInLoop of mem does nothing. RemoveInLoop returns false if mem
// was removed before. It does not touch the roster. It panics if mem is a member of another
// room.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) RemoveInLoop(mem *Member[M, D], loop int) bool {
	r.mustOwn(mem)
	if mem.tablePos == gone {
		return false
	}
	if mem.tablePos != pending {
		table := &r.tables[loop]
		last := len(*table) - 1
		moved := (*table)[last]
		(*table)[mem.tablePos] = moved
		moved.tablePos = mem.tablePos
		*table = truncate(*table, last)
	}
	mem.tablePos = gone
	r.loopLens[loop].Add(-1)
	return true
}

// RemoveVisitedInLoop is RemoveInLoop within a walk through the table that has visited the
// first n entries. It keeps the visited entries in front, so that the walk meets each member
// once, and returns their new number.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) RemoveVisitedInLoop(mem *Member[M, D], loop, n int) int {
	r.mustOwn(mem)
	if table := r.tables[loop]; mem.tablePos >= 0 && int(mem.tablePos) < n {
		n--
		last := table[n]
		table[mem.tablePos], last.tablePos = last, mem.tablePos
		table[n], mem.tablePos = mem, int32(n)
	}
	r.RemoveInLoop(mem, loop)
	return n
}

// DissolveInLoop empties the loop's table for good: a later InsertInLoop adds no member. It
// does not touch the roster.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) DissolveInLoop(loop int) {
	r.DissolveSomeInLoop(loop, len(r.tables[loop]))
}

// DissolveSomeInLoop is one step of DissolveInLoop. It removes at most n members and reports
// whether the table is empty.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) DissolveSomeInLoop(loop, n int) (empty bool) {
	r.dissolved[loop] = true
	for ; n > 0 && len(r.tables[loop]) > 0; n-- {
		r.RemoveInLoop(r.tables[loop][len(r.tables[loop])-1], loop)
	}
	return len(r.tables[loop]) == 0
}

// TableInLoop returns the members of the loop, in no order. The slice is borrowed until the
// next InsertInLoop or RemoveInLoop on this room and loop. To remove while it walks, code
// takes the last entry of a fresh TableInLoop until the table is empty.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) TableInLoop(loop int) []*Member[M, D] { return r.tables[loop] }

// minShrinkCap is the capacity up to which a slice keeps its array: 512 bytes.
const minShrinkCap = 64

// truncate cuts s to n members and clears the rest for the collector. Once three quarters of
// the array are unused, it moves s to an array of half the size, so that a large room that has
// become small gives its memory back. Halving at a quarter keeps the cost of copying constant
// for each removal.
func truncate[T any](s []*T, n int) []*T {
	clear(s[n:])
	s = s[:n]
	if cap(s) <= minShrinkCap || n >= cap(s)/4 {
		return s
	}
	return append(make([]*T, 0, cap(s)/2), s...)
}
