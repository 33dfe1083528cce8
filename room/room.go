package room

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Room has a roster, which is decided at once, and a member table for each event loop with
// members, which follows. The methods that end in InLoop are loop-confined, as each of them says.
// Safe for concurrent use.
type Room[M, D any] struct {
	// Immutable after newRoom.
	id  string
	cfg *Config[M, D]

	data D // the caller's

	// Immutable once the room is in the directory.
	kept bool // made by Create: the room stays when its last member has left

	// Guarded by the directory shard's mu.
	place int32 // in shard.kept

	// Atomic, written with mu held.
	tables  atomic.Pointer[[]loopTable[M, D]] // in the order of the loops; replaced as a whole
	deleted atomic.Bool

	// Guarded by mu.
	mu         sync.RWMutex
	roster     []*Member[M, D]
	emptySince time.Duration // since cfg.began; valid while roster is empty
}

func newRoom[M, D any](id string, cfg *Config[M, D]) *Room[M, D] {
	return &Room[M, D]{
		id:         strings.Clone(id), // id may be a part of a message
		cfg:        cfg,
		emptySince: cfg.age(),
	}
}

// ID returns the room's ID. Safe for concurrent use.
func (r *Room[M, D]) ID() string { return r.id }

// Data returns the data that the caller keeps with the room. Safe for concurrent use as far
// as D is.
func (r *Room[M, D]) Data() *D { return &r.data }

// MaxSize returns the most members that the room takes, 0 for no limit.
// Safe for concurrent use.
func (r *Room[M, D]) MaxSize() int { return r.cfg.MaxSize }

// Deleted reports whether the room has left the directory. Safe for concurrent use.
func (r *Room[M, D]) Deleted() bool { return r.deleted.Load() }

// Len returns the number of members on the roster. Safe for concurrent use.
func (r *Room[M, D]) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.roster)
}

// Members returns a snapshot of the roster, in no order. Safe for concurrent use.
func (r *Room[M, D]) Members() []M {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]M, len(r.roster))
	for i, mem := range r.roster {
		out[i] = mem.Value
	}
	return out
}

// Join puts m on the roster and counts it for its event loop, so that a publisher after Join
// sees that loop. The caller then posts InsertInLoop to the loop. Join does not look for m on
// the roster: a caller that must not join twice checks that itself. Join returns ErrFull and
// ErrDeleted. It panics if loop is not one of the Loops.
// Safe for concurrent use.
func (r *Room[M, D]) Join(m M, loop int) (*Member[M, D], error) {
	if loop < 0 || loop >= r.cfg.Loops {
		panic("room: no such loop")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deleted.Load() {
		return nil, ErrDeleted
	}
	if r.cfg.MaxSize > 0 && len(r.roster) >= r.cfg.MaxSize {
		return nil, ErrFull
	}
	t := r.needTableLocked(loop)
	t.entries.Add(1)
	mem := &Member[M, D]{Value: m, table: t, rosterPos: int32(len(r.roster)), tablePos: pending}
	r.roster = append(r.roster, mem)
	if r.cfg.OnJoin != nil {
		r.cfg.OnJoin(r, m, len(r.roster))
	}
	return mem, nil
}

// Leave takes mem off the roster and reports whether mem was on it. The caller then posts
// RemoveInLoop to the member's loop. It panics if mem is a member of another room.
// Safe for concurrent use.
func (r *Room[M, D]) Leave(mem *Member[M, D]) bool {
	r.mustOwn(mem)
	r.mu.Lock()
	defer r.mu.Unlock()
	if mem.rosterPos == offRoster {
		return false
	}
	last := len(r.roster) - 1
	moved := r.roster[last]
	r.roster[mem.rosterPos] = moved
	moved.rosterPos = mem.rosterPos
	mem.rosterPos = offRoster // after moved.rosterPos, because moved may be mem
	r.roster = truncate(r.roster, last)
	if last == 0 {
		r.emptySince = r.cfg.age()
	}
	if r.cfg.OnLeave != nil {
		r.cfg.OnLeave(r, mem.Value, last)
	}
	return true
}

// markDeleted makes every Join from here on return ErrDeleted.
func (r *Room[M, D]) markDeleted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deleted.Store(true)
}

// markDeletedIfEmpty is markDeleted for a room that has been empty for ttl. It holds mu once,
// so that either it or a Join comes first.
func (r *Room[M, D]) markDeletedIfEmpty(now time.Time, ttl time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.emptyForLocked(now, ttl) {
		return false
	}
	r.deleted.Store(true)
	return true
}

func (r *Room[M, D]) emptyFor(now time.Time, ttl time.Duration) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.emptyForLocked(now, ttl)
}

func (r *Room[M, D]) emptyForLocked(now time.Time, ttl time.Duration) bool {
	if ttl != anyTime && r.cfg.Keep != nil {
		ttl = max(ttl, r.cfg.Keep(&r.data))
	}
	return len(r.roster) == 0 && now.Sub(r.cfg.began.Add(r.emptySince)) >= ttl
}
