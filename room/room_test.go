package room_test

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/room"
)

func TestMemberSize(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(room.Member[*int, roomData]{}), uintptr(24))
	assert.LessOrEqual(t, room.TableSize(), uintptr(48), "a room on a loop, without members behind")
}

func newRoom(t testing.TB, loops, maxSize int) *room.Room[int, roomData] {
	t.Helper()
	r, err := newDirectory(loops, maxSize).Create("lobby", nil)
	require.NoError(t, err)
	return r
}

func join(t testing.TB, r *room.Room[int, roomData], value, loop int) *room.Member[int, roomData] {
	t.Helper()
	mem, err := r.Join(value, loop)
	require.NoError(t, err)
	return mem
}

func table(r *room.Room[int, roomData], loop int) []int {
	values := []int{}
	for _, mem := range r.TableInLoop(loop) {
		values = append(values, mem.Value)
	}
	return values
}

func TestJoinLeave(t *testing.T) {
	r := newRoom(t, 3, 2)
	a := join(t, r, 1, 2)
	assert.Same(t, r, a.Room())
	b := join(t, r, 2, 0)
	_, err := r.Join(3, 1)
	require.ErrorIs(t, err, room.ErrFull)
	assert.Zero(t, r.LoopLen(1), "a refused join is not counted")
	assert.Equal(t, []int{1, 2}, r.Members())
	assert.Equal(t, 2, r.Len())

	assert.True(t, r.Leave(a))
	assert.False(t, r.Leave(a), "second leave")
	assert.Equal(t, []int{2}, r.Members())
	join(t, r, 3, 1)
	assert.True(t, r.Leave(b))
	assert.Equal(t, []int{3}, r.Members())
}

func TestLeaveSwapsWithLast(t *testing.T) {
	for _, first := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("position=", first), func(t *testing.T) {
			r := newRoom(t, 1, 0)
			var mems []*room.Member[int, roomData]
			for v := range 3 {
				mems = append(mems, join(t, r, v, 0))
				require.True(t, r.InsertInLoop(mems[v]))
			}
			left := map[int]bool{0: true, 1: true, 2: true}
			for i := range 3 {
				v := (first + i) % 3
				require.True(t, r.Leave(mems[v]))
				require.True(t, r.RemoveInLoop(mems[v]))
				delete(left, v)
				assert.Len(t, r.Members(), len(left))
				assert.Equal(t, len(left), r.LoopLen(0))
				for _, got := range [][]int{r.Members(), table(r, 0)} {
					for _, v := range got {
						assert.True(t, left[v], "%d left", v)
					}
				}
			}
		})
	}
}

// The entry follows the roster: each order of the two tasks ends in the same state.
func TestTable(t *testing.T) {
	tests := []struct {
		name string
		ops  string // i insert, r remove; a capital one returns false
		want []int
		n    int // LoopLen
	}{
		{"pending", "", []int{}, 1},
		{"present", "i", []int{1}, 1},
		{"inserted twice", "iI", []int{1}, 1},
		{"removed", "ir", []int{}, 0},
		{"removed twice", "irR", []int{}, 0},
		{"removed before the insert", "r", []int{}, 0},
		{"insert after remove", "rI", []int{}, 0},
		{"insert after both", "irI", []int{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRoom(t, 2, 0)
			mem := join(t, r, 1, 1)
			for _, op := range tt.ops {
				switch op {
				case 'i', 'I':
					assert.Equal(t, op == 'i', r.InsertInLoop(mem))
				case 'r', 'R':
					assert.Equal(t, op == 'r', r.RemoveInLoop(mem))
				}
			}
			assert.Equal(t, tt.want, table(r, 1))
			assert.Equal(t, tt.n, r.LoopLen(1))
			assert.Empty(t, table(r, 0))
			assert.Zero(t, r.LoopLen(0))
			assert.Equal(t, []int{1}, r.Members(), "the roster is apart")
		})
	}
}

func TestPanicsOnCallersBug(t *testing.T) {
	r, other := newRoom(t, 1, 0), newRoom(t, 1, 0)
	mem := join(t, r, 1, 0)
	for name, call := range map[string]func(){
		"Leave":        func() { other.Leave(mem) },
		"InsertInLoop": func() { other.InsertInLoop(mem) },
		"RemoveInLoop": func() { other.RemoveInLoop(mem) },
	} {
		assert.PanicsWithValue(t, "room: member of another room", call, name)
	}
	assert.Panics(t, func() { _, _ = r.Join(2, 1) }, "no such loop")
	assert.Equal(t, 1, r.Len(), "and no lock stays held")
}

// A room that was once large gives its memory back, and keeps enough on the way.
func TestCapacityIsReleased(t *testing.T) {
	const n = 10_000
	r := newRoom(t, 1, 0)
	var mems []*room.Member[int, roomData]
	for v := range n {
		mems = append(mems, join(t, r, v, 0))
		r.InsertInLoop(mems[v])
	}
	require.GreaterOrEqual(t, r.RosterCap(), n)
	for v, mem := range mems {
		require.True(t, r.Leave(mem))
		require.True(t, r.RemoveInLoop(mem))
		left := n - v - 1
		for name, c := range map[string]int{"roster": r.RosterCap(), "table": cap(r.TableInLoop(0))} {
			require.LessOrEqual(t, c, max(64, 4*left), "%s of %d members", name, left)
		}
	}
	assert.Empty(t, r.Members())
	assert.Empty(t, r.TableInLoop(0))
}

func BenchmarkJoinLeave(b *testing.B) {
	for _, others := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			r := newRoom(b, 4, 0)
			for v := range others {
				r.InsertInLoop(join(b, r, v, v%4))
			}
			b.ReportAllocs()
			for b.Loop() {
				mem, err := r.Join(1, 3)
				if err != nil {
					b.Fatal(err)
				}
				r.InsertInLoop(mem)
				r.Leave(mem)
				r.RemoveInLoop(mem)
			}
		})
	}
}

func BenchmarkFanOut(b *testing.B) {
	const members = 10_000
	type conn struct{ queued int }
	d := room.NewDirectory(room.Config[*conn, roomData]{Loops: 1})
	r, _ := d.GetOrCreate("lobby")
	for range members {
		mem, err := r.Join(&conn{}, 0)
		require.NoError(b, err)
		r.InsertInLoop(mem)
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, mem := range r.TableInLoop(0) {
			mem.Value.queued++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/members, "ns/member")
}

func BenchmarkGet(b *testing.B) {
	d := room.NewDirectory(room.Config[int, roomData]{Loops: 4})
	for i := range 1000 {
		d.GetOrCreate(fmt.Sprint("room.", i))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d.Get("room.42")
		}
	})
}
