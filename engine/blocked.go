package engine

// blockedHeap is the heap of a shard's blocked connections: first the one whose
// queue takes the most memory. Each queue knows its position.
//
// Loop-confined: use only on the event loop that owns the connections.
type blockedHeap struct {
	conns []*Conn
}

func (h *blockedHeap) cost(i int) int { return h.conns[i].out.cost }

// largest returns the memory of the largest queue.
func (h *blockedHeap) largest() int {
	if len(h.conns) == 0 {
		return 0
	}
	return h.cost(0)
}

func (h *blockedHeap) add(c *Conn) {
	c.out.rank = int32(len(h.conns))
	h.conns = append(h.conns, c)
	h.up(int(c.out.rank))
}

func (h *blockedHeap) remove(c *Conn) {
	i, last := int(c.out.rank), len(h.conns)-1
	h.swap(i, last)
	h.conns[last] = nil
	h.conns = h.conns[:last]
	if i < last {
		h.fix(h.conns[i])
	}
}

// fix restores the order after c's queue has changed.
func (h *blockedHeap) fix(c *Conn) {
	h.up(int(c.out.rank))
	h.down(int(c.out.rank))
}

func (h *blockedHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.cost(parent) >= h.cost(i) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *blockedHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.conns) {
			return
		}
		if child+1 < len(h.conns) && h.cost(child+1) > h.cost(child) {
			child++
		}
		if h.cost(i) >= h.cost(child) {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h *blockedHeap) swap(i, j int) {
	h.conns[i], h.conns[j] = h.conns[j], h.conns[i]
	h.conns[i].out.rank, h.conns[j].out.rank = int32(i), int32(j)
}

// addBlocked adds c, which has just become blocked, to the heap.
func (s *Shard) addBlocked(c *Conn) {
	s.blocked.add(c)
	s.stats.blocked.add(1)
	s.weighed(c.out.cost)
}

// removeBlocked removes c from the heap.
func (s *Shard) removeBlocked(c *Conn) {
	s.blocked.remove(c)
	s.stats.blocked.add(^uint64(0))
	s.weighed(-c.out.cost)
}

// reweigh updates the heap after the queue of c, a blocked connection, has
// grown by growth bytes of memory.
func (s *Shard) reweigh(c *Conn, growth int) {
	s.blocked.fix(c)
	s.weighed(growth)
}

// weighed adds growth to the queued memory of the blocked connections of this
// shard and of all shards.
func (s *Shard) weighed(growth int) {
	s.stats.queuedMemory.add(uint64(growth)) // wraps around for a negative one
	if s.eng.cfg.QueueBudget > 0 {
		s.largestQueue.Store(int64(s.blocked.largest()))
		s.eng.blockedMemory.Add(int64(growth))
	}
}

// keepBudget drops messages of the largest queues while all blocked connections
// hold more than seven eighths of the budget. If the largest queue is on
// another loop, that loop is asked to act, and has the last eighth of the
// budget for it; beyond the budget this loop drops from its own queues.
//
// Two loops whose queues are about equal would hand the work back and forth, so
// a loop acts itself if its largest queue is within an eighth of the largest of
// all.
func (s *Shard) keepBudget() {
	budget := s.eng.cfg.QueueBudget
	for held := s.eng.blockedMemory.Load(); held > budget-budget/8; held = s.eng.blockedMemory.Load() {
		mine, other := int64(s.blocked.largest()), s.eng.largestShard()
		if theirs := other.largestQueue.Load(); mine < theirs-theirs/8 {
			other.askToTrim()
			if held <= budget {
				return
			}
		}
		if mine == 0 {
			return
		}
		s.trim(s.blocked.conns[0])
	}
}

// newest is a message that was just queued, while it may already be lost: to
// the budget, or with all queued messages of its connection.
//
// Loop-confined: use only on the event loop that owns the connection.
type newest struct {
	conn  *Conn
	frame *Frame
	lost  bool
}

// keeps runs settle and reports whether f, which was just queued on c, is still
// queued or sent.
func (s *Shard) keeps(c *Conn, f *Frame, settle func()) bool {
	s.newest = newest{conn: c, frame: f}
	settle()
	kept := !s.newest.lost
	s.newest = newest{}
	return kept
}

// largestShard returns the shard with the largest queue of a blocked connection.
func (e *Engine) largestShard() *Shard {
	largest := e.shards[0]
	for _, s := range e.shards[1:] {
		if s.largestQueue.Load() > largest.largestQueue.Load() {
			largest = s
		}
	}
	return largest
}

// askToTrim makes the shard look at its own blocked connections.
func (s *Shard) askToTrim() {
	if !s.trimming.Swap(true) {
		s.postUrgent(trimTask{})
	}
}

// trimTask is posted by a shard that has found the budget exceeded.
type trimTask struct{}

func (trimTask) RunInLoop(s *Shard) {
	s.trimming.Store(false)
	s.keepBudget()
}

// trim drops from c, the blocked connection with the largest queue: the message
// that the policy selects, or all queued ones if the policy is to disconnect.
// If only the rest of a partly sent frame is left, the connection is closed at
// once, because no close frame can follow half a frame.
func (s *Shard) trim(c *Conn) {
	s.noteSlow(c)
	policy := s.eng.cfg.OverflowPolicy
	for lane := range Lane(dataLanes) {
		if c.end() != nil || c.out.lanes[lane].len() == 0 {
			continue
		}
		if policy != Disconnect {
			if s.evict(c, lane, policy == DropOldest, DropBudget) != nil {
				return
			}
		}
		s.disconnect(c, DropBudget) // also if only protected answers are queued
		return
	}
	if c.end() == nil {
		c.setEnd(slowEnd())
	}
	s.discard(c, DropBudget)
	s.closeLater(c, nil)
}
