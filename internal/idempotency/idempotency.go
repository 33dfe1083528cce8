// Package idempotency keeps the first replies to requests, so that a repeat of a request gets
// the same reply, and the handler of the request runs once.
package idempotency

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Asker is a connection that asks for a reply.
type Asker interface {
	comparable
	// IsClosed reports whether the connection takes no reply any more.
	IsClosed() bool
}

// Config holds the bounds of a Table. Immutable.
type Config struct {
	Window   time.Duration // for which a reply is kept
	Bytes    int64         // of all entries
	PerOwner int64         // bytes of the entries of one owner
}

// Outcome is the decision about a request.
type Outcome uint8

// The outcomes.
const (
	Run     Outcome = iota // the request is new: run its handler, then call Finish or Leave
	Wait                   // its first request has no reply yet: Finish will name the asker
	Replay                 // its first request has the reply that Begin returns
	Differs                // its ID belongs to another request
	Gone                   // its first request has a reply that was too large to keep
	Full                   // too many requests have no reply yet: this one is not in the table
)

const (
	numShards = 64 // a power of two
	// Overhead is the number of bytes for which an entry counts, beside its strings and its
	// reply. It includes the entry's part of the maps, and an owner of its own.
	Overhead = 512
	// maxExpired is the number of entries that one call removes with a lock held.
	maxExpired = 16
)

// Table holds the requests of the last time, each with its reply. Requests are told apart by
// their owner and ID. Times are of one clock, which all callers share.
//
// An entry begins with Begin. While its handler runs, it stays. From Finish, or from Leave if
// there is no reply, it lasts for the window, unless the table needs its space: then it gives up
// old entries that have a reply, of the owner that exceeds PerOwner, or of anybody if all entries
// exceed Bytes. All entries together may exceed Bytes by one reply for each caller, for a moment.
// Locks are held for microseconds. Safe for concurrent use.
type Table[W Asker] struct {
	cfg  Config
	seed maphash.Seed

	requests, bytes, unanswered         atomic.Int64
	repeats, evicted, differed, refused atomic.Uint64
	hand                                atomic.Uint32 // the shard that gives up an entry next
	shards                              [numShards]shard[W]
}

// Stats is a snapshot of a Table.
type Stats struct {
	Requests, Bytes                     int64 // in the table now
	Repeats, Evicted, Differed, Refused uint64
}

// shard is the part of the table for some owners.
type shard[W Asker] struct {
	mu       sync.Mutex
	entries  map[key]*Entry[W]    // guarded by mu
	owners   map[string]*owner[W] // guarded by mu; those with entries
	answered queue[W]             // guarded by mu; entries with a reply, the oldest first
	open     queue[W]             // guarded by mu; entries of Leave, the oldest first
	peak     int                  // guarded by mu; most entries since the maps were made
}

type key struct{ owner, id string }

// owner holds the entries of one owner. The shard's mutex guards it.
type owner[W Asker] struct {
	bytes    int64
	entries  int
	answered queue[W] // entries with a reply, the oldest first
}

// state is the state of an entry.
type state uint8

const (
	running  state = iota // its handler runs
	open                  // its handler has returned without a reply, which may still come
	answered              // it has a reply, or had one that was too large
	removed               // it is not in the table
)

// Entry is one request. Its fields belong to the table.
type Entry[W Asker] struct {
	// Immutable.
	key   key
	sum   uint64
	owner *owner[W]

	// Guarded by the shard's mutex.
	state   state
	lost    bool // the reply was too large
	runner  W    // the connection whose request runs
	waiting []W  // other connections that ask for the reply, each once
	reply   []byte
	expires time.Duration
	size    int64
	links   [numQueues]links[W]
}

// New returns an empty table.
func New[W Asker](cfg Config) *Table[W] {
	t := &Table[W]{cfg: cfg, seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].clear()
	}
	return t
}

// clear makes new maps: a map does not shrink.
func (s *shard[W]) clear() {
	s.entries, s.owners, s.peak = make(map[key]*Entry[W]), make(map[string]*owner[W]), 0
}

func (t *Table[W]) shard(owner string) *shard[W] {
	return &t.shards[maphash.String(t.seed, owner)&(numShards-1)]
}

// Sum returns a hash of the parts of a request that a repeat must not change. Two requests have
// the same hash by chance once in 2^64 times. event is UTF-8.
func (t *Table[W]) Sum(event string, data []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(event)
	_ = h.WriteByte(0xff) // never in UTF-8
	_, _ = h.Write(data)
	return h.Sum64()
}

// Begin decides about the request of an owner with that ID, which asker has sent. The entry is
// for Finish and Leave, with the outcome Run; reply is shared, with the outcome Replay.
func (t *Table[W]) Begin(
	now time.Duration, owner, id string, sum uint64, asker W,
) (e *Entry[W], reply []byte, o Outcome) {
	s := t.shard(owner)
	k := key{owner, id}
	for {
		s.mu.Lock()
		if e = s.liveLocked(t, now, k); e != nil {
			reply, o = t.repeatLocked(e, sum, asker)
			s.mu.Unlock()
			return nil, reply, o
		}
		e, ok := s.insertLocked(t, k, sum, asker)
		s.mu.Unlock()
		switch {
		case e != nil:
			return e, nil, Run
		case !ok || !t.evictOne():
			t.refused.Add(1)
			return nil, nil, Full
		}
	}
}

// liveLocked returns the entry of k, if there is one. It also removes some old entries.
func (s *shard[W]) liveLocked(t *Table[W], now time.Duration, k key) *Entry[W] {
	s.expireLocked(t, now)
	e := s.entries[k]
	if e != nil && t.over(e, now) {
		s.removeLocked(t, e)
		return nil
	}
	return e
}

// repeatLocked decides about a repeat of the request of e.
func (t *Table[W]) repeatLocked(e *Entry[W], sum uint64, asker W) (reply []byte, o Outcome) {
	switch {
	case e.sum != sum:
		t.differed.Add(1)
		return nil, Differs
	case e.lost:
		t.repeats.Add(1)
		return nil, Gone
	case e.state == answered:
		t.repeats.Add(1)
		return e.reply, Replay
	}
	t.repeats.Add(1)
	e.waitLocked(asker)
	return nil, Wait
}

// insertLocked adds an entry. Without space for it, it returns nil and reports whether entries
// of other owners could give it.
func (s *shard[W]) insertLocked(t *Table[W], k key, sum uint64, asker W) (e *Entry[W], ok bool) {
	size := int64(Overhead + len(k.owner) + len(k.id))
	o := s.owners[k.owner]
	switch {
	case o != nil && !s.evictOwnLocked(t, o, size), size > t.cfg.PerOwner:
		return nil, false
	case t.bytes.Load()+size > t.cfg.Bytes:
		return nil, true
	}
	if o = s.owners[k.owner]; o == nil { // its last entry may have gone just now
		o = &owner[W]{}
		s.owners[k.owner] = o
	}
	e = &Entry[W]{key: k, sum: sum, owner: o, runner: asker}
	s.entries[k] = e
	s.peak = max(s.peak, len(s.entries))
	o.entries++
	t.requests.Add(1)
	t.unanswered.Add(1)
	t.growLocked(e, size)
	return e, true
}

// growLocked adds n bytes to the size of e.
func (t *Table[W]) growLocked(e *Entry[W], n int64) {
	e.size += n
	e.owner.bytes += n
	t.bytes.Add(n)
}

// waitLocked notes that w asks for the reply of e. Those that have closed are forgotten when
// the list is full, so that its length is bounded by the open connections of the owner.
func (e *Entry[W]) waitLocked(w W) {
	if e.runner == w || slices.Contains(e.waiting, w) {
		return
	}
	if len(e.waiting) == cap(e.waiting) {
		e.waiting = slices.DeleteFunc(e.waiting, W.IsClosed)
	}
	e.waiting = append(e.waiting, w)
}

// Finish stores a copy of the first reply to the request of e. It returns the connections other
// than the first one that have asked for the reply. For a later reply it reports false, and
// stores nothing.
func (t *Table[W]) Finish(now time.Duration, e *Entry[W], reply []byte) (waiting []W, first bool) {
	kept := bytes.Clone(reply)
	s := t.shard(e.key.owner)
	s.mu.Lock()
	waiting, first = s.finishLocked(t, now, e, kept)
	s.mu.Unlock()
	t.trim()
	return waiting, first
}

// FinishOf is Finish for the request of an owner that runner has sent and that has no reply yet.
func (t *Table[W]) FinishOf(now time.Duration, owner, id string, runner W, reply []byte) (waiting []W, first bool) {
	s := t.shard(owner)
	s.mu.Lock()
	e := s.liveLocked(t, now, key{owner, id})
	found := e != nil && e.runner == runner
	s.mu.Unlock()
	if !found {
		return nil, false
	}
	return t.Finish(now, e, reply)
}

// finishLocked stores reply, which the table owns.
func (s *shard[W]) finishLocked(t *Table[W], now time.Duration, e *Entry[W], reply []byte) (waiting []W, first bool) {
	if e.state >= answered {
		return nil, false
	}
	if e.state == open {
		s.open.remove(e, ofShard)
	}
	var none W
	waiting = e.waiting
	e.state, e.runner, e.waiting, e.expires = answered, none, nil, now+t.cfg.Window
	t.unanswered.Add(-1)
	size := int64(cap(reply))
	if s.evictOwnLocked(t, e.owner, size) {
		e.reply = reply
		t.growLocked(e, size)
	} else {
		e.lost = true
		t.evicted.Add(1)
	}
	s.answered.push(e, ofShard)
	e.owner.answered.push(e, ofOwner)
	return waiting, true
}

// Leave notes that the handler of e has returned. Without a reply, the entry ends with the window.
func (t *Table[W]) Leave(now time.Duration, e *Entry[W]) {
	s := t.shard(e.key.owner)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.state == running {
		e.state, e.expires = open, now+t.cfg.Window
		s.open.push(e, ofShard)
	}
}

// Unanswered reports whether any request has no reply yet.
func (t *Table[W]) Unanswered() bool { return t.unanswered.Load() > 0 }

// Stats returns a snapshot.
func (t *Table[W]) Stats() Stats {
	return Stats{
		Requests: t.requests.Load(), Bytes: t.bytes.Load(), Repeats: t.repeats.Load(),
		Evicted: t.evicted.Load(), Differed: t.differed.Load(), Refused: t.refused.Load(),
	}
}
