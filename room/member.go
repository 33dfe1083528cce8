package room

// offRoster is Member.rosterPos of a member that left.
const offRoster = -1

// The values of Member.tablePos of a member that is not in its table. It only ever goes
// forward: on its way, in the table, gone.
const (
	pending = -1 // counted for the loop, not yet in its table
	gone    = -2 // neither counted nor in the table
)

// Member is one membership: what joined, and its places in the roster and in a table. Join
// makes it; it never joins again. At most 24 bytes with a pointer as Value, since there is
// one for each connection in each room. Safe for concurrent use.
type Member[M, D any] struct {
	// Value is what joined. Immutable after Join.
	Value M

	room *Room[M, D] // immutable

	rosterPos int32 // guarded by room.mu
	tablePos  int32 // loop-confined
}

// Room returns the room that m is or was a member of. Safe for concurrent use.
func (m *Member[M, D]) Room() *Room[M, D] { return m.room }

// mustOwn panics if mem is of another room: the positions in it would corrupt this one.
func (r *Room[M, D]) mustOwn(mem *Member[M, D]) {
	if mem.room != r {
		panic("room: member of another room")
	}
}
