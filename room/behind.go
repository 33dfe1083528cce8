package room

// cursors holds the cursor of each member that is behind, by its place in the table: 8 bytes for
// such a member, and none for the others. Loop-confined: use only on the event loop that owns the
// connection.
type cursors struct{ list []uint64 }

// lag returns the number of members that are behind.
func (t *table[M, D]) lag() int32 {
	if t.behind == nil {
		return 0
	}
	return int32(len(t.behind.list))
}

// cut forgets the cursors from place n on.
func (t *table[M, D]) cut(n int32) {
	if t.behind == nil {
		return
	}
	t.behind.list = truncate(t.behind.list, int(n))
	if n == 0 {
		t.behind = nil
	}
}

// BehindInLoop returns the number of members at the front of TableInLoop that are behind.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) BehindInLoop(loop int) int {
	if t := r.tableInLoop(loop); t != nil {
		return int(t.lag())
	}
	return 0
}

// SetCursorInLoop marks mem as behind: the caller delivers to it in another way, and the cursor is
// the caller's. For a member that is behind already it replaces the cursor. The members behind are
// the first of the table. A walk that has visited n entries, at least those behind, has still visited
// them afterwards if it has visited mem. It must not be called within a walk that has not visited all
// members behind, except to replace a cursor. A member that is not in the table stays as it is.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) SetCursorInLoop(mem *Member[M, D], cursor uint64) {
	r.mustOwn(mem)
	t := mem.table
	switch {
	case mem.tablePos < 0:
		return
	case mem.tablePos < t.lag():
		t.behind.list[mem.tablePos] = cursor
		return
	case t.behind == nil:
		t.behind = &cursors{}
	}
	t.swap(mem.tablePos, t.lag())
	t.behind.list = append(t.behind.list, cursor)
}

// CursorInLoop returns the cursor of a member that is behind.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) CursorInLoop(mem *Member[M, D]) (cursor uint64, behind bool) {
	r.mustOwn(mem)
	t := mem.table
	if mem.tablePos < 0 || mem.tablePos >= t.lag() {
		return 0, false
	}
	return t.behind.list[mem.tablePos], true
}

// DropCursorInLoop is the reverse of SetCursorInLoop, and has no effect on a member that is not
// behind. A walk that has visited n entries, at least those behind, has still visited them afterwards.
// It must not be called within a walk that has not visited all members behind.
// Loop-confined: use only on the event loop that owns the connection.
func (r *Room[M, D]) DropCursorInLoop(mem *Member[M, D]) {
	if _, behind := r.CursorInLoop(mem); behind {
		t := mem.table
		t.swap(mem.tablePos, t.lag()-1)
		t.cut(t.lag() - 1)
	}
}
