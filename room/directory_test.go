package room_test

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/room"
)

// roomData is the data that these tests keep with a room.
type roomData struct{ topic string }

func newDirectory(loops, maxSize int) *room.Directory[int, roomData] {
	return room.NewDirectory(room.Config[int, roomData]{Shards: 4, Loops: loops, MaxSize: maxSize})
}

func TestNewDirectoryPanics(t *testing.T) {
	tests := []struct {
		name string
		cfg  room.Config[int, roomData]
		want string // empty for no panic
	}{
		{"smallest", room.Config[int, roomData]{Shards: 1, Loops: 1}, ""},
		{"shards by default", room.Config[int, roomData]{Loops: 3}, ""},
		{"most loops", room.Config[int, roomData]{Shards: 1, Loops: 65536}, ""},
		{"no loops", room.Config[int, roomData]{Shards: 1}, "room: Config.Loops is 0, want 1 to 65536"},
		{
			"too many loops",
			room.Config[int, roomData]{Shards: 1, Loops: 65537},
			"room: Config.Loops is 65537, want 1 to 65536",
		},
		{
			"shards not a power of two",
			room.Config[int, roomData]{Shards: 6, Loops: 1},
			"room: Config.Shards is 6, want a power of two",
		},
		{
			"negative shards",
			room.Config[int, roomData]{Shards: -4, Loops: 1},
			"room: Config.Shards is -4, want a power of two",
		},
		{"negative size", room.Config[int, roomData]{Loops: 1, MaxSize: -1}, "room: Config.MaxSize is -1, want 0 or more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			create := func() { room.NewDirectory(tt.cfg) }
			if tt.want == "" {
				require.NotPanics(t, create)
			} else {
				require.PanicsWithValue(t, tt.want, create)
			}
		})
	}
}

func TestCreateGetDelete(t *testing.T) {
	d := newDirectory(2, 7)
	r, err := d.Create("lobby", nil)
	require.NoError(t, err)
	assert.Equal(t, "lobby", r.ID())
	assert.Equal(t, 7, r.MaxSize())
	assert.Equal(t, 1, d.Len())

	_, err = d.Create("lobby", nil)
	require.ErrorIs(t, err, room.ErrExists)
	again, created := d.GetOrCreate("lobby")
	assert.Same(t, r, again)
	assert.False(t, created)
	other, created := d.GetOrCreate("kitchen")
	assert.True(t, created)
	assert.NotSame(t, r, other)
	assert.Equal(t, 2, d.Len())

	_, err = r.Join(1, 0)
	require.NoError(t, err)
	deleted, ok := d.Delete("lobby")
	require.True(t, ok)
	assert.Same(t, r, deleted)
	assert.True(t, r.Deleted())
	assert.Equal(t, []int{1}, r.Members(), "the roster stays for the caller to dissolve")
	_, err = r.Join(2, 0)
	require.ErrorIs(t, err, room.ErrDeleted)
	_, ok = d.Get("lobby")
	assert.False(t, ok)
	_, ok = d.Delete("lobby")
	assert.False(t, ok)
	assert.Equal(t, 1, d.Len())

	second, err := d.Create("lobby", nil)
	require.NoError(t, err)
	assert.NotSame(t, r, second)
	assert.False(t, second.Deleted())
}

func TestDataIsTheRoomsOwn(t *testing.T) {
	d := newDirectory(1, 0)
	r, err := d.Create("lobby", func(data *roomData) { data.topic = "tea" })
	require.NoError(t, err)
	assert.Equal(t, "tea", r.Data().topic)
	again, _ := d.GetOrCreate("lobby")
	assert.Same(t, r.Data(), again.Data())
	other, _ := d.GetOrCreate("kitchen")
	assert.Empty(t, other.Data().topic)
}

func TestRange(t *testing.T) {
	d := newDirectory(1, 0)
	want := map[string]bool{}
	for i := range 100 {
		id := fmt.Sprint(i)
		want[id] = true
		_, err := d.Create(id, nil)
		require.NoError(t, err)
	}
	got := map[string]bool{}
	d.Range(func(r *room.Room[int, roomData]) bool {
		got[r.ID()] = true
		_, ok := d.Delete(r.ID()) // would deadlock under a lock
		return ok
	})
	assert.Equal(t, want, got)
	assert.Zero(t, d.Len())

	d.GetOrCreate("a")
	d.GetOrCreate("b")
	visits := 0
	d.Range(func(*room.Room[int, roomData]) bool { visits++; return false })
	assert.Equal(t, 1, visits)
}

func TestDeleteEmpty(t *testing.T) {
	const ttl = 10 * time.Minute
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := room.NewDirectory(room.Config[int, roomData]{Loops: 1, Now: func() time.Time { return now }})
	never, _ := d.Create("never joined", nil)
	busy, _ := d.Create("busy", nil)
	left, _ := d.Create("left", nil)
	_, err := busy.Join(1, 0)
	require.NoError(t, err)
	mem, err := left.Join(2, 0)
	require.NoError(t, err)

	now = now.Add(time.Minute)
	require.True(t, left.Leave(mem))
	now = now.Add(ttl - time.Minute - 1)
	assert.Empty(t, d.DeleteEmpty(now, ttl), "a nanosecond early")
	now = now.Add(1)
	assert.Equal(t, []*room.Room[int, roomData]{never}, d.DeleteEmpty(now, ttl))
	assert.True(t, never.Deleted())
	_, err = never.Join(3, 0)
	require.ErrorIs(t, err, room.ErrDeleted)

	// A member that comes and goes starts the time anew.
	mem, err = left.Join(2, 0)
	require.NoError(t, err)
	now = now.Add(time.Hour)
	assert.Empty(t, d.DeleteEmpty(now, ttl))
	require.True(t, left.Leave(mem))
	assert.Empty(t, d.DeleteEmpty(now, ttl))
	assert.Equal(t, []*room.Room[int, roomData]{left}, d.DeleteEmpty(now, 0))
	assert.Equal(t, 1, d.Len())
	assert.False(t, busy.Deleted())
}

// DeleteEmpty looks again at a room that changed before it took the shard's lock.
func TestDeleteEmptyLooksAgain(t *testing.T) {
	tests := []struct {
		name    string
		before  func(*testing.T, *room.Directory[int, roomData], *room.Room[int, roomData])
		deleted bool
		rooms   int
	}{
		{"nothing", func(*testing.T, *room.Directory[int, roomData], *room.Room[int, roomData]) {}, true, 0},
		{
			"joined",
			func(t *testing.T, _ *room.Directory[int, roomData], r *room.Room[int, roomData]) { join(t, r, 1, 0) },
			false, 1,
		},
		{
			"deleted",
			func(_ *testing.T, d *room.Directory[int, roomData], r *room.Room[int, roomData]) { d.Delete(r.ID()) },
			false, 0,
		},
		{"replaced", func(_ *testing.T, d *room.Directory[int, roomData], r *room.Room[int, roomData]) {
			d.Delete(r.ID())
			_, _ = d.Create(r.ID(), nil)
		}, false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirectory(1, 0)
			r, _ := d.Create("lobby", nil)
			tt.before(t, d, r)
			assert.Equal(t, tt.deleted, d.DeleteCandidate(r, time.Now(), 0))
			assert.Equal(t, tt.rooms, d.Len())
			if now, ok := d.Get("lobby"); tt.rooms == 1 && assert.True(t, ok) {
				assert.False(t, now.Deleted())
			}
		})
	}
}

// A room is deleted or joined, never both. A caller that meets a deleted room gets another.
func TestDeleteEmptyAgainstJoin(t *testing.T) {
	const joiners, rounds = 4, 2000
	d := newDirectory(joiners, 0) // each joiner is a loop of its own
	var stop atomic.Bool
	var deleting, joining sync.WaitGroup
	deleting.Go(func() {
		for !stop.Load() {
			for _, r := range d.DeleteEmpty(time.Now(), 0) {
				assert.True(t, r.Deleted())
				assert.Empty(t, r.Members(), "a room with a member was deleted")
			}
		}
	})
	var lost atomic.Int64
	for j := range joiners {
		joining.Go(func() {
			for range rounds {
				var mem *room.Member[int, roomData]
				for mem == nil {
					_, _ = d.Create("lobby", nil)
					r, ok := d.Get("lobby")
					if !ok {
						continue // deleted just now
					}
					var err error
					if mem, err = r.Join(j, j); err != nil {
						assert.ErrorIs(t, err, room.ErrDeleted)
						lost.Add(1)
					}
				}
				assert.False(t, mem.Room().Deleted(), "deleted with a member in it")
				assert.True(t, mem.Room().Leave(mem))
				assert.True(t, mem.Room().RemoveInLoop(mem))
			}
		})
	}
	joining.Wait()
	stop.Store(true)
	deleting.Wait()
	d.DeleteEmpty(time.Now(), 0)
	assert.Zero(t, d.Len())
	t.Logf("%d joins met a deleted room", lost.Load())
}

// A room of GetOrCreate ends with its last member, or by EndIfEmpty; one of Create stays.
func TestTransientRooms(t *testing.T) {
	d := newDirectory(1, 0)
	r, _ := d.GetOrCreate("made")
	first, err := r.Join(1, 0)
	require.NoError(t, err)
	second, err := r.Join(2, 0)
	require.NoError(t, err)
	assert.False(t, d.EndIfEmpty(r))
	left, ended := d.Leave(first)
	assert.True(t, left && !ended)
	left, ended = d.Leave(second)
	assert.True(t, left && ended)
	assert.Zero(t, d.Len())
	left, ended = d.Leave(second)
	assert.False(t, left || ended)

	unused, _ := d.GetOrCreate("unused")
	assert.True(t, d.EndIfEmpty(unused))
	assert.False(t, d.EndIfEmpty(unused))
	_, err = unused.Join(1, 0)
	require.ErrorIs(t, err, room.ErrDeleted)

	kept, err := d.Create("kept", nil)
	require.NoError(t, err)
	assert.False(t, d.EndIfEmpty(kept))
	assert.Equal(t, 1, d.Len())
}

// Many rooms are deleted in steps, and the directory gives their memory back.
func TestDeleteEmptyMany(t *testing.T) {
	const rooms = 100_000
	d := newDirectory(1, 0)
	for i := range rooms {
		_, err := d.Create(fmt.Sprint(i), nil)
		require.NoError(t, err)
	}
	assert.Len(t, d.DeleteEmpty(time.Now(), 0), rooms)
	assert.Zero(t, d.Len())
}

// A directory that once held many rooms gives back their memory and the memory of its maps.
func TestDirectoryShrinks(t *testing.T) {
	const rooms = 200_000
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	d := newDirectory(1, 0)
	before := heap()
	for i := range rooms {
		_, err := d.Create(strconv.Itoa(i), nil)
		require.NoError(t, err)
	}
	held := heap() - before
	assert.Len(t, d.DeleteEmpty(time.Now(), 0), rooms)
	assert.Less(t, heap()-before, held/50)
	assert.Zero(t, d.Len()) // and keeps d reachable
}
