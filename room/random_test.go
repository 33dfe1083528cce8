package room_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/room"
)

type (
	intRoom   = room.Room[int, roomData]
	intMember = room.Member[int, roomData]
)

// sim drives a directory like the caller does, with a plain slice of tasks as each loop's
// inbox, and keeps the same membership in plain maps.
type sim struct {
	t       *testing.T
	rng     *rand.Rand
	d       *room.Directory[int, roomData]
	maxSize int
	now     time.Time

	rooms map[string]*intRoom             // in the directory
	all   []*intRoom                      // ever created
	on    map[*intRoom]map[*intMember]int // roster: member to value
	inbox [][]func()                      // for each loop, oldest first
	owed  map[*intMember]int              // loop of each on the roster, or with a removal on its way
	empty map[*intRoom]time.Time          // since when
	kept  map[*intRoom]bool               // made by Create
	seen  map[*intRoom]map[int]bool       // members by OnJoin and OnLeave
	next  int                             // next value
}

func (s *sim) post(loop int, task func()) { s.inbox[loop] = append(s.inbox[loop], task) }

func (s *sim) onJoin(r *intRoom, m, members int) {
	if s.seen[r] == nil {
		s.seen[r] = map[int]bool{}
	}
	require.False(s.t, s.seen[r][m])
	s.seen[r][m] = true
	require.Len(s.t, s.seen[r], members)
}

func (s *sim) onLeave(r *intRoom, m, members int) {
	require.True(s.t, s.seen[r][m])
	delete(s.seen[r], m)
	require.Len(s.t, s.seen[r], members)
}

func (s *sim) id() string { return fmt.Sprint("room.", s.rng.IntN(12)) }

func (s *sim) added(r *intRoom) {
	require.NotContains(s.t, s.rooms, r.ID())
	s.rooms[r.ID()] = r
	s.all = append(s.all, r)
	s.on[r] = map[*intMember]int{}
	s.empty[r] = s.now
}

func (s *sim) join() {
	id := s.id()
	if s.rng.IntN(4) == 0 {
		r, err := s.d.Create(id, nil)
		if s.rooms[id] != nil {
			require.ErrorIs(s.t, err, room.ErrExists)
			return
		}
		require.NoError(s.t, err)
		s.added(r)
		s.kept[r] = true
	}
	r, created := s.d.GetOrCreate(id)
	if created {
		s.added(r)
	}
	require.Same(s.t, s.rooms[r.ID()], r)
	s.joinRoom(r)
}

func (s *sim) joinRoom(r *intRoom) {
	s.next++
	loop := s.rng.IntN(len(s.inbox))
	mem, err := r.Join(s.next, loop)
	switch {
	case s.rooms[r.ID()] != r:
		require.ErrorIs(s.t, err, room.ErrDeleted)
		return
	case len(s.on[r]) == s.maxSize:
		require.ErrorIs(s.t, err, room.ErrFull)
		return
	}
	require.NoError(s.t, err)
	s.on[r][mem] = s.next
	s.owed[mem] = loop
	s.post(loop, func() { r.InsertInLoop(mem) })
}

func (s *sim) leave() {
	r := s.all[s.rng.IntN(len(s.all))]
	for mem := range s.on[r] { // any
		s.leaveRoom(r, mem)
		require.False(s.t, r.Leave(mem), "second leave")
		return
	}
}

func (s *sim) leaveRoom(r *intRoom, mem *intMember) {
	left, ended := s.d.Leave(mem)
	require.True(s.t, left)
	delete(s.on[r], mem)
	if len(s.on[r]) == 0 {
		s.empty[r] = s.now
	}
	require.Equal(s.t, len(s.on[r]) == 0 && !s.kept[r] && s.rooms[r.ID()] == r, ended)
	if ended {
		delete(s.rooms, r.ID())
	}
	loop := s.owed[mem]
	s.post(loop, func() {
		require.True(s.t, r.RemoveInLoop(mem))
		require.False(s.t, r.RemoveInLoop(mem))
		delete(s.owed, mem)
	})
}

func (s *sim) delete() {
	id := s.id()
	r, ok := s.d.Delete(id)
	require.Equal(s.t, s.rooms[id], r)
	require.Equal(s.t, s.rooms[id] != nil, ok)
	if !ok {
		return
	}
	delete(s.rooms, id)
	for mem := range s.on[r] {
		s.leaveRoom(r, mem)
	}
}

func (s *sim) deleteEmpty() {
	ttl := time.Duration(s.rng.IntN(40)) * time.Second
	var want []string
	for id, r := range s.rooms {
		if len(s.on[r]) == 0 && s.now.Sub(s.empty[r]) >= ttl {
			want = append(want, id)
		}
	}
	var got []string
	for _, r := range s.d.DeleteEmpty(s.now, ttl) {
		require.Same(s.t, s.rooms[r.ID()], r)
		delete(s.rooms, r.ID())
		got = append(got, r.ID())
	}
	require.ElementsMatch(s.t, want, got)
}

// drain runs up to n tasks of one loop.
func (s *sim) drain(loop, n int) {
	n = min(n, len(s.inbox[loop]))
	for _, task := range s.inbox[loop][:n] {
		task()
	}
	s.inbox[loop] = s.inbox[loop][n:]
}

func (s *sim) check() {
	require.Equal(s.t, len(s.rooms), s.d.Len())
	counts := map[*intRoom][]int{}
	for _, r := range s.all {
		counts[r] = make([]int, len(s.inbox))
	}
	for mem, loop := range s.owed {
		counts[mem.Room()][loop]++
	}
	for _, r := range s.all {
		require.Equal(s.t, s.rooms[r.ID()] != r, r.Deleted())
		require.Equal(s.t, len(s.on[r]), r.Len())
		require.ElementsMatch(s.t, values(s.on[r]), r.Members())
		require.ElementsMatch(s.t, values(s.on[r]), slices.Collect(maps.Keys(s.seen[r])))
		require.Equal(s.t, withMembers(counts[r]), slices.Collect(r.Loops))
		for loop := range s.inbox {
			require.Equal(s.t, counts[r][loop], r.LoopLen(loop), "%s loop %d", r.ID(), loop)
			require.LessOrEqual(s.t, len(r.TableInLoop(loop)), r.LoopLen(loop))
		}
	}
}

// checkDrained holds the tables to the rosters once no task is on its way.
func (s *sim) checkDrained() {
	for loop := range s.inbox {
		s.drain(loop, len(s.inbox[loop]))
	}
	s.check()
	for _, r := range s.all {
		var inTables []int
		for loop := range s.inbox {
			for _, mem := range r.TableInLoop(loop) {
				require.Equal(s.t, loop, s.owed[mem])
				inTables = append(inTables, mem.Value)
			}
			require.Len(s.t, r.TableInLoop(loop), r.LoopLen(loop))
		}
		require.ElementsMatch(s.t, values(s.on[r]), inTables)
	}
}

// withMembers returns the loops with a count above 0.
func withMembers(counts []int) (loops []int) {
	for loop, n := range counts {
		if n > 0 {
			loops = append(loops, loop)
		}
	}
	return loops
}

func values(m map[*intMember]int) []int {
	out := []int{}
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func TestRandomOperations(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := &sim{
				t: t, rng: rand.New(rand.NewPCG(seed, 0)), maxSize: 25, now: time.Unix(0, 0),
				rooms: map[string]*intRoom{}, on: map[*intRoom]map[*intMember]int{},
				owed: map[*intMember]int{}, empty: map[*intRoom]time.Time{}, kept: map[*intRoom]bool{},
				seen:  map[*intRoom]map[int]bool{},
				inbox: make([][]func(), 1+seed%5),
			}
			s.d = room.NewDirectory(room.Config[int, roomData]{
				Shards: 2, Loops: len(s.inbox), MaxSize: s.maxSize, Now: func() time.Time { return s.now },
				OnJoin: s.onJoin, OnLeave: s.onLeave,
			})
			for op := range 4000 {
				s.now = s.now.Add(time.Second)
				switch n := s.rng.IntN(1000); {
				case n < 400 || len(s.all) == 0:
					s.join()
				case n < 420:
					s.joinRoom(s.all[s.rng.IntN(len(s.all))])
				case n < 700:
					s.leave()
				case n < 720:
					s.delete()
				case n < 730:
					s.deleteEmpty()
				default:
					s.drain(s.rng.IntN(len(s.inbox)), s.rng.IntN(6))
				}
				if op%50 == 0 {
					s.check()
				}
				if op%1000 == 999 {
					s.checkDrained()
				}
			}
		})
	}
}

// Goroutines join, leave and delete while each loop runs the posted tasks. A publisher after a
// join finds the member, or its loop counted.
func TestConcurrent(t *testing.T) {
	const loops, clients, rounds = 3, 6, 1500
	d := newDirectory(loops, 0)
	inbox := make([]chan func(), loops)
	var looping, working sync.WaitGroup
	for i := range inbox {
		inbox[i] = make(chan func(), 64)
		looping.Go(func() {
			for task := range inbox[i] {
				task()
			}
		})
	}
	var mu sync.Mutex
	var all []*intRoom
	for c := range clients {
		working.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 1))
			type joined struct {
				*intMember
				loop int
			}
			var mine []joined
			leave := func(i int) {
				mem, loop := mine[i].intMember, mine[i].loop
				mine = slices.Delete(mine, i, i+1)
				left, _ := d.Leave(mem)
				assert.True(t, left)
				inbox[loop] <- func() { assert.True(t, mem.Room().RemoveInLoop(mem)) }
			}
			for range rounds {
				switch n := rng.IntN(100); {
				case n < 50:
					r, created := d.GetOrCreate(fmt.Sprint(rng.IntN(4)))
					if created {
						mu.Lock()
						all = append(all, r)
						mu.Unlock()
					}
					loop := rng.IntN(loops)
					mem, err := r.Join(c, loop)
					if err != nil {
						assert.ErrorIs(t, err, room.ErrDeleted)
						continue
					}
					mine = append(mine, joined{mem, loop})
					assert.Positive(t, r.LoopLen(loop), "a publisher would skip the loop")
					inbox[loop] <- func() { assert.True(t, r.InsertInLoop(mem)) }
					inbox[loop] <- func() { assert.NotEmpty(t, r.TableInLoop(loop)) }
				case n < 98 && len(mine) > 0:
					leave(rng.IntN(len(mine)))
				case n == 98:
					d.Delete(fmt.Sprint(rng.IntN(4)))
				default:
					d.DeleteEmpty(time.Now(), 0)
					d.Range(func(r *intRoom) bool { return len(r.Members()) >= 0 && r.Len() >= 0 })
				}
			}
			for len(mine) > 0 {
				leave(len(mine) - 1)
			}
		})
	}
	working.Wait()
	for i := range inbox {
		close(inbox[i])
	}
	looping.Wait()
	for _, r := range all {
		checkEmpty(t, r, loops)
	}
}

// checkEmpty asserts that r has no member, in its roster and on each loop.
func checkEmpty(t *testing.T, r *intRoom, loops int) {
	assert.Zero(t, r.Len())
	for loop := range loops {
		assert.Zero(t, r.LoopLen(loop))
		assert.Empty(t, r.TableInLoop(loop))
	}
}
