package room

// InsertInLoop puts mem into the table of the loop that it joined with. It returns false, and
// does nothing, if mem was put there or removed before; after DissolveInLoop it removes mem
// instead. It panics if mem is of another room.
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

// RemoveInLoop takes mem out of the table of the loop that it joined with, or keeps it from
// getting there, and no longer counts it for the loop. It returns false if that was done
// before. It does not touch the roster. It panics if mem is of another room.
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

// RemoveVisitedInLoop is RemoveInLoop within a walk through the table that has visited its
// first n entries. It keeps the visited ones in front, so that the walk meets each member
// once, and returns how many they are now.
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

// DissolveInLoop empties that loop's table for good: a member whose entry was on its way
// does not get in any more. It does not touch the roster.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) DissolveInLoop(loop int) {
	r.DissolveSomeInLoop(loop, len(r.tables[loop]))
}

// DissolveSomeInLoop is DissolveInLoop in steps: it removes n members at most, and reports
// whether the table is empty.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) DissolveSomeInLoop(loop, n int) (empty bool) {
	r.dissolved[loop] = true
	for ; n > 0 && len(r.tables[loop]) > 0; n-- {
		r.RemoveInLoop(r.tables[loop][len(r.tables[loop])-1], loop)
	}
	return len(r.tables[loop]) == 0
}

// TableInLoop returns that loop's members, in no order. The slice is borrowed until the next
// InsertInLoop or RemoveInLoop on this room and loop: code that removes while it walks takes
// the last entry of a fresh TableInLoop until there is none.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) TableInLoop(loop int) []*Member[M, D] { return r.tables[loop] }

// minShrinkCap is the capacity up to which a slice keeps its array: 512 bytes.
const minShrinkCap = 64

// truncate cuts s to n members, clears what it cuts off for the collector, and moves to an
// array of half the size once three quarters are unused, so that a room that was once large
// does not stay so. Halving at a quarter keeps the copying constant for each removal.
func truncate[T any](s []*T, n int) []*T {
	clear(s[n:])
	s = s[:n]
	if cap(s) <= minShrinkCap || n >= cap(s)/4 {
		return s
	}
	return append(make([]*T, 0, cap(s)/2), s...)
}
