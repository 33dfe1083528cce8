package room

// offRoster is the Member.rosterPos of a member that left.
const offRoster = -1

// The values of Member.tablePos outside the table. A member only goes forward: pending, in
// the table, gone.
const (
	pending = -1 // counted for the loop, not yet in its table
	gone    = -2 // neither counted nor in the table
)

// Member is one membership: a value with its places in the roster and in a table. Join makes
// it, and it never joins again. It takes at most 24 bytes with a pointer as Value, because
// each connection has one in each of its rooms. Safe for concurrent use.
type Member[M, D any] struct {
	// Value is the argument of Join. Immutable after Join.
	Value M

	table *table[M, D] // of the member's loop; immutable

	rosterPos int32 // guarded by room.mu
	tablePos  int32 // loop-confined
}

// Room returns the room that m is or was a member of. Safe for concurrent use.
func (m *Member[M, D]) Room() *Room[M, D] { return m.table.room }

// mustOwn panics if mem is a member of another room, because its positions would corrupt r.
func (r *Room[M, D]) mustOwn(mem *Member[M, D]) {
	if mem.table.room != r {
		panic("room: member of another room")
	}
}
