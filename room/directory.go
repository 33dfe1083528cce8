package room

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// maxLoops bounds the tables of a room.
const maxLoops = 1 << 16

// Config holds the settings of a Directory, which copies it. Not safe for concurrent use.
type Config[M, D any] struct {
	// Shards is the number of directory shards, a power of two. Zero means four for each
	// loop, rounded up to a power of two.
	Shards int

	// Loops is the number of event loops, 1 to 65,536. A room has a table for each loop with
	// members.
	Loops int

	// MaxSize is the most members a room takes. Zero means no limit.
	MaxSize int

	// Now returns the time at which a room became empty. Nil means time.Now. Now is called
	// with Room.mu held. It must not block and must not call into this package.
	Now func() time.Time

	// Keep, if set, returns the least time for which DeleteEmpty leaves an empty room of that
	// data. It is called with Room.mu held. It must not block and must not call into this package.
	Keep func(*D) time.Duration

	// OnEnd, if set, is called with the ID of each room that leaves the directory. A lock is
	// held, so that a new room of the ID comes later. OnEnd must not block and must not call
	// into this package.
	OnEnd func(id string)

	// OnJoin and OnLeave, if set, are called with each member that joins or leaves, and the
	// number of members afterwards: 1 for the first to join, 0 for the last to leave. Room.mu
	// is held, so that the calls for a room come in the order of the decisions. They must
	// not block. Of this package they may call Room.ID and Room.Data only.
	OnJoin, OnLeave func(r *Room[M, D], m M, members int)

	began time.Time // of the directory: a room keeps times since then, in a third of the space
}

// age returns the time since the directory began.
func (c *Config[M, D]) age() time.Duration { return c.Now().Sub(c.began) }

// Directory maps room IDs to rooms. It consists of hashed shards with a lock each, which is
// held for the lookup only. Safe for concurrent use.
type Directory[M, D any] struct {
	// Immutable after NewDirectory.
	cfg    Config[M, D]
	seed   maphash.Seed
	shards []shard[M, D] // their number is a power of two

	// Atomic.
	size atomic.Int64 // rooms in all shards
}

// shard is one part of the directory. Safe for concurrent use under its mu.
type shard[M, D any] struct {
	mu    sync.RWMutex
	rooms map[string]*Room[M, D]
	kept  []*Room[M, D] // the rooms that Create made, in no order
	peak  int           // the most rooms that the map has held

	_ [56]byte // keeps the locks of two shards off one 64-byte cache line
}

// NewDirectory returns an empty directory. It panics if a field of cfg is out of range.
func NewDirectory[M, D any](cfg Config[M, D]) *Directory[M, D] {
	if cfg.Loops < 1 || cfg.Loops > maxLoops {
		panic(fmt.Sprintf("room: Config.Loops is %d, want 1 to %d", cfg.Loops, maxLoops))
	}
	if cfg.Shards == 0 {
		cfg.Shards = 1 << bits.Len(uint(4*cfg.Loops-1))
	}
	if cfg.Shards < 0 || cfg.Shards&(cfg.Shards-1) != 0 {
		panic(fmt.Sprintf("room: Config.Shards is %d, want a power of two", cfg.Shards))
	}
	if cfg.MaxSize < 0 {
		panic(fmt.Sprintf("room: Config.MaxSize is %d, want 0 or more", cfg.MaxSize))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.began = cfg.Now()
	d := &Directory[M, D]{cfg: cfg, seed: maphash.MakeSeed(), shards: make([]shard[M, D], cfg.Shards)}
	for i := range d.shards {
		d.shards[i].rooms = make(map[string]*Room[M, D])
	}
	return d
}

func (d *Directory[M, D]) shard(id string) *shard[M, D] {
	return &d.shards[maphash.String(d.seed, id)&uint64(len(d.shards)-1)]
}

// Create adds an empty room. The room stays when its last member has left, until DeleteEmpty.
// init, which may be nil, fills in the room's Data before other goroutines see the room. A
// lock is held: init must not block and must not call into this package. Create returns
// ErrExists if the directory has a room with that ID. Safe for concurrent use.
func (d *Directory[M, D]) Create(id string, init func(*D)) (*Room[M, D], error) {
	s := d.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.rooms[id]; ok {
		return nil, ErrExists
	}
	r := d.addLocked(s, id)
	r.kept, r.place = true, int32(len(s.kept))
	s.kept = append(s.kept, r)
	if init != nil {
		init(&r.data)
	}
	return r, nil
}

// GetOrCreate returns the room with that ID, and whether it has added it. An added room ends
// with its last member, see Leave, or by EndIfEmpty. The room may be deleted before the caller
// joins it: on ErrDeleted from Join, call GetOrCreate again.
// Safe for concurrent use.
func (d *Directory[M, D]) GetOrCreate(id string) (r *Room[M, D], created bool) {
	if r, ok := d.Get(id); ok {
		return r, false
	}
	s := d.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.rooms[id]; ok {
		return r, false
	}
	return d.addLocked(s, id), true
}

// addLocked puts a new room into s. The caller holds s.mu and has found the ID free.
func (d *Directory[M, D]) addLocked(s *shard[M, D], id string) *Room[M, D] {
	r := newRoom[M, D](id, &d.cfg)
	s.rooms[r.id] = r
	s.peak = max(s.peak, len(s.rooms))
	d.size.Add(1)
	return r
}

// Get returns the room with that ID. Safe for concurrent use.
func (d *Directory[M, D]) Get(id string) (*Room[M, D], bool) {
	s := d.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.rooms[id]
	return r, ok
}

// Leave takes mem off the roster of its room and reports whether mem was on it. A room of
// GetOrCreate ends with its last member. The caller then posts RemoveInLoop to the member's
// loop. Safe for concurrent use.
func (d *Directory[M, D]) Leave(mem *Member[M, D]) (left, ended bool) {
	r := mem.Room()
	if !r.Leave(mem) {
		return false, false
	}
	return true, d.EndIfEmpty(r)
}

// anyTime is a TTL that every empty room has reached.
const anyTime = time.Duration(math.MinInt64)

// EndIfEmpty deletes a room of GetOrCreate if it has no members, and reports whether it did.
// Safe for concurrent use.
func (d *Directory[M, D]) EndIfEmpty(r *Room[M, D]) bool { return !r.kept && d.EndKeptIfEmpty(r) }

// EndKeptIfEmpty is EndIfEmpty for a room of Create, too. Safe for concurrent use.
func (d *Directory[M, D]) EndKeptIfEmpty(r *Room[M, D]) bool {
	if r.Len() > 0 {
		return false
	}
	s := d.shard(r.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rooms[r.id] != r || !r.markDeletedIfEmpty(time.Time{}, anyTime) {
		return false
	}
	d.dropLocked(s, r)
	return true
}

// Delete takes the room with that ID out of the directory and marks it deleted: from then
// on Join returns ErrDeleted. Delete leaves roster and tables as they are. The caller removes
// the members: Members lists them, and a task posted to each of the room's Loops empties the
// loop's table. The entry of an earlier Join may reach its table behind that task, so a caller
// checks Deleted after each InsertInLoop.
// Safe for concurrent use.
func (d *Directory[M, D]) Delete(id string) (*Room[M, D], bool) {
	s := d.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rooms[id]
	if !ok {
		return nil, false
	}
	r.markDeleted()
	d.dropLocked(s, r)
	return r, true
}

func (d *Directory[M, D]) dropLocked(s *shard[M, D], r *Room[M, D]) {
	delete(s.rooms, r.id)
	d.size.Add(-1)
	if d.cfg.OnEnd != nil {
		d.cfg.OnEnd(r.id)
	}
	if r.kept {
		last := len(s.kept) - 1
		s.kept[r.place] = s.kept[last]
		s.kept[r.place].place = r.place
		s.kept = truncate(s.kept, last)
	}
	if s.peak > minShrinkRooms && len(s.rooms) <= minShrinkRooms/8 {
		s.peak = len(s.rooms)
		rooms := make(map[string]*Room[M, D], len(s.rooms)) // maps.Clone keeps the size
		maps.Copy(rooms, s.rooms)
		s.rooms = rooms
	}
}

// minShrinkRooms is the smallest size of a shard's map that is replaced when an eighth of its
// rooms are left, because a map does not shrink. These few are copied in a short time.
const minShrinkRooms = 8192

// Len returns the number of rooms. Safe for concurrent use.
func (d *Directory[M, D]) Len() int { return int(d.size.Load()) }

// rangeStep is the number of rooms that Range collects with a lock held.
const rangeStep = 256

// Range calls fn for each room until fn returns false, in no order. A room added or deleted
// meanwhile may be visited or not. fn runs on the caller's goroutine with no lock held and may
// call the whole package. Safe for concurrent use.
func (d *Directory[M, D]) Range(fn func(*Room[M, D]) bool) {
	step := make([]*Room[M, D], 0, rangeStep)
	for i := range d.shards {
		if !d.shards[i].each(step, fn) {
			return
		}
	}
}

// each calls fn for each room of s until fn returns false, and returns its last result. It
// collects the rooms in steps, because the lock is not to be held for the time of a large map.
func (s *shard[M, D]) each(step []*Room[M, D], fn func(*Room[M, D]) bool) (more bool) {
	s.mu.RLock()
	for _, r := range s.rooms { // a map may change between two rounds of its loop
		if step = append(step, r); len(step) < rangeStep {
			continue
		}
		s.mu.RUnlock()
		if !visit(step, fn) {
			return false
		}
		step = step[:0]
		s.mu.RLock()
	}
	s.mu.RUnlock()
	return visit(step, fn)
}

// visit calls fn for each of the rooms until fn returns false, and returns its last result.
func visit[M, D any](rooms []*Room[M, D], fn func(*Room[M, D]) bool) (more bool) {
	for _, r := range rooms {
		if !fn(r) {
			return false
		}
	}
	return true
}

// deleteStep is the number of rooms that DeleteEmpty looks at, or deletes, with a lock held.
const deleteStep = 256

// DeleteEmpty deletes and returns the rooms of Create that at now have been empty for ttl or
// longer, or for the time of Config.Keep if that is more, counted from their creation or from the
// leave of their last member. An earlier Join keeps the room; a later Join returns ErrDeleted.
// DeleteEmpty holds a lock for a few rooms at a time, so it may miss a room that moves meanwhile.
// Safe for concurrent use.
func (d *Directory[M, D]) DeleteEmpty(now time.Time, ttl time.Duration) []*Room[M, D] {
	var candidates, deleted []*Room[M, D]
	for i := range d.shards {
		s := &d.shards[i]
		// From the end, because the last room takes the place of a deleted one.
		for end := s.keptRooms(); end > 0; end -= deleteStep {
			candidates = s.emptyRooms(candidates[:0], max(end-deleteStep, 0), end, now, ttl)
			if len(candidates) > 0 {
				deleted = append(deleted, d.deleteEmpty(s, candidates, now, ttl)...)
			}
		}
	}
	return deleted
}

func (s *shard[M, D]) keptRooms() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.kept)
}

// emptyRooms appends to dst the rooms of s.kept[start:end] that have been empty for ttl.
func (s *shard[M, D]) emptyRooms(dst []*Room[M, D], start, end int, now time.Time, ttl time.Duration) []*Room[M, D] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.kept[min(start, len(s.kept)):min(end, len(s.kept))] {
		if r.emptyFor(now, ttl) {
			dst = append(dst, r)
		}
	}
	return dst
}

// deleteEmpty deletes and returns the candidates that are still in s and still empty. Since
// they were collected, a member may have joined, or Delete and Create may have replaced a room.
func (d *Directory[M, D]) deleteEmpty(
	s *shard[M, D], candidates []*Room[M, D], now time.Time, ttl time.Duration,
) []*Room[M, D] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var deleted []*Room[M, D]
	for _, r := range candidates {
		if s.rooms[r.id] == r && r.markDeletedIfEmpty(now, ttl) {
			d.dropLocked(s, r)
			deleted = append(deleted, r)
		}
	}
	return deleted
}
