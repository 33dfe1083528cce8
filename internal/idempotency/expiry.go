package idempotency

import "time"

// An entry may be in two queues: of its shard, and, with a reply, of its owner.
const (
	ofShard = iota
	ofOwner
	numQueues
)

// links are the neighbors of an entry in a queue.
type links[W Asker] struct{ prev, next *Entry[W] }

// queue is a list of entries, the oldest first. Not safe for concurrent use.
type queue[W Asker] struct{ first, last *Entry[W] }

// push appends e. which is ofShard or ofOwner.
func (q *queue[W]) push(e *Entry[W], which int) {
	e.links[which] = links[W]{prev: q.last}
	if q.last == nil {
		q.first = e
	} else {
		q.last.links[which].next = e
	}
	q.last = e
}

// remove removes e, which is in the queue.
func (q *queue[W]) remove(e *Entry[W], which int) {
	l := e.links[which]
	if l.prev == nil {
		q.first = l.next
	} else {
		l.prev.links[which].next = l.next
	}
	if l.next == nil {
		q.last = l.prev
	} else {
		l.next.links[which].prev = l.prev
	}
	e.links[which] = links[W]{}
}

// over reports whether the time of e has ended, also on a clock that has gone back.
func (t *Table[W]) over(e *Entry[W], now time.Duration) bool {
	left := e.expires - now
	return e.state != running && (left <= 0 || left > t.cfg.Window)
}

// removeLocked removes e from the table.
func (s *shard[W]) removeLocked(t *Table[W], e *Entry[W]) {
	switch e.state {
	case answered:
		s.answered.remove(e, ofShard)
		e.owner.answered.remove(e, ofOwner)
	case open:
		s.open.remove(e, ofShard)
		t.unanswered.Add(-1)
	default: // it is in no queue
	}
	e.state, e.waiting, e.reply = removed, nil, nil
	delete(s.entries, e.key)
	e.owner.bytes -= e.size
	e.owner.entries--
	if e.owner.entries == 0 {
		delete(s.owners, e.key.owner)
	}
	t.requests.Add(-1)
	t.bytes.Add(-e.size)
	if len(s.entries) == 0 && s.peak > maxExpired {
		s.clear()
	}
}

// expireLocked removes up to maxExpired entries whose time has ended, and reports whether there
// may be more.
func (s *shard[W]) expireLocked(t *Table[W], now time.Duration) (more bool) {
	for range maxExpired {
		switch {
		case s.answered.first != nil && t.over(s.answered.first, now):
			s.removeLocked(t, s.answered.first)
		case s.open.first != nil && t.over(s.open.first, now):
			s.removeLocked(t, s.open.first)
		default:
			return false
		}
	}
	return true
}

// Expire removes all entries whose time has ended.
func (t *Table[W]) Expire(now time.Duration) {
	for i := range t.shards {
		s := &t.shards[i]
		for more := true; more; {
			s.mu.Lock()
			more = s.expireLocked(t, now)
			s.mu.Unlock()
		}
	}
}

// evictOwnLocked gives up the oldest replies of o until n more bytes are within PerOwner, and
// reports whether they are.
func (s *shard[W]) evictOwnLocked(t *Table[W], o *owner[W], n int64) bool {
	if n > t.cfg.PerOwner {
		return false
	}
	for o.bytes+n > t.cfg.PerOwner && o.answered.first != nil {
		s.evictLocked(t, o.answered.first)
	}
	return o.bytes+n <= t.cfg.PerOwner
}

// evictLocked removes e, which has a reply, before its time.
func (s *shard[W]) evictLocked(t *Table[W], e *Entry[W]) {
	s.removeLocked(t, e)
	t.evicted.Add(1)
}

// trim gives up old replies of anybody while all entries exceed Bytes.
func (t *Table[W]) trim() {
	for t.bytes.Load() > t.cfg.Bytes && t.evictOne() {
	}
}

// evictOne gives up the oldest reply of a shard, of each in turn. It reports whether there was
// one.
func (t *Table[W]) evictOne() bool {
	for range numShards {
		s := &t.shards[t.hand.Add(1)&(numShards-1)]
		s.mu.Lock()
		e := s.answered.first
		if e != nil {
			s.evictLocked(t, e)
		}
		s.mu.Unlock()
		if e != nil {
			return true
		}
	}
	return false
}
