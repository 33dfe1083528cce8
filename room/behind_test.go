package room_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// behindSim runs one loop of a room, and keeps the same members in plain maps.
type behindSim struct {
	t   *testing.T
	rng *rand.Rand
	r   *intRoom

	pending []*intMember          // joined, not inserted
	behind  map[*intMember]uint64 // cursors of all that are in the table; 0 for one that is not behind
	cursor  uint64                // of the last one that fell behind

	walking bool
	visited int                 // by the walk
	due     map[*intMember]bool // members that the walk has to meet
}

func (s *behindSim) pick() *intMember {
	list := s.r.TableInLoop(0)
	if len(list) == 0 {
		return nil
	}
	return list[s.rng.IntN(len(list))]
}

// begin starts a walk: of a message of the history, which passes over the members behind, or of
// another one.
func (s *behindSim) begin() {
	s.walking, s.visited, s.due = true, 0, map[*intMember]bool{}
	if s.rng.IntN(2) == 0 {
		s.visited = s.r.BehindInLoop(0)
	}
	for _, mem := range s.r.TableInLoop(0)[s.visited:] {
		s.due[mem] = true
	}
}

// walk visits some members. A member that is met may fall behind.
func (s *behindSim) walk() {
	for range s.rng.IntN(8) {
		list := s.r.TableInLoop(0)
		if s.visited == len(list) {
			require.Empty(s.t, s.due, "the walk has not met all members")
			s.walking = false
			return
		}
		mem := list[s.visited]
		require.True(s.t, s.due[mem], "met twice")
		delete(s.due, mem)
		if s.visited >= s.r.BehindInLoop(0) && s.rng.IntN(3) == 0 {
			s.setBehind(mem, true)
		}
		s.visited++
	}
}

// setBehind lets mem fall behind or move on, or is the reverse.
func (s *behindSim) setBehind(mem *intMember, behind bool) {
	if !behind {
		s.r.DropCursorInLoop(mem)
		s.behind[mem] = 0
		return
	}
	s.cursor++
	s.r.SetCursorInLoop(mem, s.cursor)
	s.behind[mem] = s.cursor
}

// between does what may happen while a walk is suspended.
func (s *behindSim) between() {
	mem := s.pick()
	switch {
	case mem == nil:
	case s.rng.IntN(6) == 0:
		s.visited = s.r.RemoveVisitedInLoop(mem, s.visited)
		s.gone(mem)
	case s.behind[mem] > 0 && s.visited >= s.r.BehindInLoop(0):
		s.setBehind(mem, false)
	case s.behind[mem] > 0:
		s.setBehind(mem, true)
	}
}

// outside does what happens between two walks.
func (s *behindSim) outside() {
	mem := s.pick()
	switch op := s.rng.IntN(12); {
	case op < 3:
		for range s.rng.IntN(10) {
			s.pending = append(s.pending, join(s.t, s.r, len(s.pending), 0))
		}
	case op < 6 && len(s.pending) > 0:
		n := s.rng.IntN(len(s.pending))
		for _, joined := range s.pending[:n] {
			s.r.SetCursorInLoop(joined, 1) // not in the table, so without effect
			require.True(s.t, s.r.InsertInLoop(joined))
			s.behind[joined] = 0
		}
		s.pending = s.pending[n:]
	case mem == nil:
	case op < 8:
		s.setBehind(mem, s.rng.IntN(2) == 0)
	case op < 9:
		require.True(s.t, s.r.RemoveInLoop(mem))
		s.gone(mem)
	default:
		s.begin()
	}
}

func (s *behindSim) gone(mem *intMember) {
	delete(s.behind, mem)
	delete(s.due, mem)
	s.r.SetCursorInLoop(mem, 1)
	s.r.DropCursorInLoop(mem)
	_, behind := s.r.CursorInLoop(mem)
	require.False(s.t, behind)
	require.False(s.t, s.r.RemoveInLoop(mem))
	require.Equal(s.t, s.visited, s.r.RemoveVisitedInLoop(mem, s.visited))
}

// check compares the table with the model.
func (s *behindSim) check() {
	list, behind := s.r.TableInLoop(0), 0
	require.Len(s.t, list, len(s.behind))
	for i, mem := range list {
		want, ok := s.behind[mem]
		require.True(s.t, ok)
		cursor, isBehind := s.r.CursorInLoop(mem)
		require.Equal(s.t, want, cursor, "place %d", i)
		require.Equal(s.t, want > 0, isBehind)
		require.Equal(s.t, isBehind, i < s.r.BehindInLoop(0), "place %d", i)
		if isBehind {
			behind++
		}
		if s.walking && i < s.visited {
			require.False(s.t, s.due[mem], "a place before the walk that it has not visited")
		}
	}
	require.Equal(s.t, behind, s.r.BehindInLoop(0))
	require.LessOrEqual(s.t, s.r.CursorsCap(0), max(64, 4*behind), "one behind is 8 bytes")
}

// dissolve empties the room in steps, with members that go meanwhile.
func (s *behindSim) dissolve() {
	for empty := false; !empty; {
		left := map[*intMember]uint64{}
		empty = s.r.DissolveSomeInLoop(0, s.rng.IntN(4), func(mem *intMember, cursor uint64) { left[mem] = cursor })
		kept := map[*intMember]uint64{}
		for _, mem := range s.r.TableInLoop(0) {
			kept[mem] = s.behind[mem]
		}
		for mem, cursor := range s.behind {
			if _, ok := kept[mem]; !ok {
				require.Equal(s.t, cursor, left[mem])
			}
			_, reported := left[mem]
			require.Equal(s.t, cursor > 0 && !slices.Contains(s.r.TableInLoop(0), mem), reported)
		}
		s.behind = kept
		s.check()
		require.Equal(s.t, empty, len(kept) == 0)
		if mem := s.pick(); mem != nil && s.rng.IntN(2) == 0 {
			s.setBehind(mem, s.behind[mem] == 0)
		}
	}
	for _, mem := range s.pending {
		require.False(s.t, s.r.InsertInLoop(mem))
	}
	require.Zero(s.t, s.r.BehindInLoop(0))
	require.Zero(s.t, s.r.LoopLen(0))
}

// TestBehindAgainstMaps runs random operations with members behind and suspended walks. A walk
// meets each member once, and the members behind are the first of the table.
func TestBehindAgainstMaps(t *testing.T) {
	for seed := range uint64(25) {
		s := &behindSim{
			t: t, rng: rand.New(rand.NewPCG(seed, 3)), r: newRoom(t, 1, 0), behind: map[*intMember]uint64{},
		}
		for range 300 {
			switch {
			case !s.walking:
				s.outside()
			case s.rng.IntN(2) == 0:
				s.between()
			default:
				s.walk()
			}
			s.check()
		}
		for s.walking {
			s.walk()
		}
		s.dissolve()
	}
}

// A member that is behind costs 8 bytes, and one that is not costs none.
func TestMemoryOfMembersBehind(t *testing.T) {
	const members = 1024
	r := newRoom(t, 1, 0)
	for i := range members {
		require.True(t, r.InsertInLoop(join(t, r, i, 0)))
	}
	require.Zero(t, r.CursorsCap(0))
	for i, mem := range r.TableInLoop(0) {
		r.SetCursorInLoop(mem, uint64(i))
	}
	require.Equal(t, members, r.BehindInLoop(0))
	require.Less(t, r.CursorsCap(0), 2*members)
	for _, mem := range r.TableInLoop(0) {
		r.SetCursorInLoop(mem, 7)
		require.Equal(t, members, r.BehindInLoop(0))
	}
	for r.BehindInLoop(0) > 0 {
		r.DropCursorInLoop(r.TableInLoop(0)[0])
	}
	require.Zero(t, r.CursorsCap(0))
}
