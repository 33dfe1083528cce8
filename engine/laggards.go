package engine

// laggards is the heap of a shard's blocked connections: first the one whose
// queue takes the most memory. Each queue knows its position.
//
// Loop-confined: use only on the event loop that owns the connections.
type laggards struct {
	conns []*Conn
}

func (l *laggards) cost(i int) int { return l.conns[i].out.cost }

// worst returns the memory of the largest queue.
func (l *laggards) worst() int {
	if len(l.conns) == 0 {
		return 0
	}
	return l.cost(0)
}

func (l *laggards) add(c *Conn) {
	c.out.rank = int32(len(l.conns))
	l.conns = append(l.conns, c)
	l.up(int(c.out.rank))
}

func (l *laggards) remove(c *Conn) {
	i, last := int(c.out.rank), len(l.conns)-1
	l.swap(i, last)
	l.conns[last] = nil
	l.conns = l.conns[:last]
	if i < last {
		l.fix(l.conns[i])
	}
}

// fix restores the order after c's queue has changed.
func (l *laggards) fix(c *Conn) {
	l.up(int(c.out.rank))
	l.down(int(c.out.rank))
}

func (l *laggards) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if l.cost(parent) >= l.cost(i) {
			return
		}
		l.swap(i, parent)
		i = parent
	}
}

func (l *laggards) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(l.conns) {
			return
		}
		if child+1 < len(l.conns) && l.cost(child+1) > l.cost(child) {
			child++
		}
		if l.cost(i) >= l.cost(child) {
			return
		}
		l.swap(i, child)
		i = child
	}
}

func (l *laggards) swap(i, j int) {
	l.conns[i], l.conns[j] = l.conns[j], l.conns[i]
	l.conns[i].out.rank, l.conns[j].out.rank = int32(i), int32(j)
}

// lag adds c, which has just become blocked, to the heap.
func (s *Shard) lag(c *Conn) {
	s.laggards.add(c)
	s.stats.blocked.add(1)
	s.weighed(c.out.cost)
}

// catchUp removes c from the heap.
func (s *Shard) catchUp(c *Conn) {
	s.laggards.remove(c)
	s.stats.blocked.add(^uint64(0))
	s.weighed(-c.out.cost)
}

// reweigh updates the heap after the queue of c, a blocked connection, has
// grown by growth bytes of memory.
func (s *Shard) reweigh(c *Conn, growth int) {
	s.laggards.fix(c)
	s.weighed(growth)
}

// weighed adds growth to the queued memory of the blocked connections of this
// shard and of all shards.
func (s *Shard) weighed(growth int) {
	s.stats.queuedMemory.add(uint64(growth)) // wraps around for a negative one
	if s.eng.cfg.QueueBudget > 0 {
		s.worst.Store(int64(s.laggards.worst()))
		s.eng.backlog.Add(int64(growth))
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
	for held := s.eng.backlog.Load(); held > budget-budget/8; held = s.eng.backlog.Load() {
		mine, worst := int64(s.laggards.worst()), s.eng.worstShard()
		if theirs := worst.worst.Load(); mine < theirs-theirs/8 {
			worst.askToTrim()
			if held <= budget {
				return
			}
		}
		if mine == 0 {
			return
		}
		s.trim(s.laggards.conns[0])
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

// worstShard returns the shard with the largest queue of a blocked connection.
func (e *Engine) worstShard() *Shard {
	worst := e.shards[0]
	for _, s := range e.shards[1:] {
		if s.worst.Load() > worst.worst.Load() {
			worst = s
		}
	}
	return worst
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
	policy := s.eng.cfg.Policy
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
	s.doom(c, nil)
}
