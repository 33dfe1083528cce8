package engine

// laggards are a shard's connections whose socket is full, as a heap: first
// the one whose queue takes the most memory. A connection's queue knows its
// place.
//
// Loop-confined: use only on the event loop that owns the connections.
type laggards struct {
	conns []*Conn
}

func (l *laggards) cost(i int) int { return l.conns[i].out.cost }

// worst returns the memory that the largest queue takes.
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

// lag puts c, whose socket has just become full, among the laggards.
func (s *Shard) lag(c *Conn) {
	s.laggards.add(c)
	s.stats.blocked.add(1)
	s.weighed(c.out.cost)
}

// catchUp takes c from the laggards.
func (s *Shard) catchUp(c *Conn) {
	s.laggards.remove(c)
	s.stats.blocked.add(^uint64(0))
	s.weighed(-c.out.cost)
}

// reweigh takes into account that the queue of c, a laggard, has grown by so
// many bytes of memory.
func (s *Shard) reweigh(c *Conn, growth int) {
	s.laggards.fix(c)
	s.weighed(growth)
}

// weighed adds to what the laggards of this shard, and of all, hold.
func (s *Shard) weighed(growth int) {
	s.stats.queuedMemory.add(uint64(growth)) // wraps around for a negative one
	if s.eng.cfg.QueueBudget > 0 {
		s.worst.Store(int64(s.laggards.worst()))
		s.eng.backlog.Add(int64(growth))
	}
}

// keepBudget makes the worst laggards lose while all of them hold more than
// seven eighths of the budget. If the worst is on another loop, it is asked to
// act, for which it has the last eighth: beyond the budget this loop takes from
// its own.
//
// Two loops whose laggards hold about the same would hand the work back and
// forth, so a loop acts itself if its worst is within an eighth of the worst of
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

// newest is a message that was just queued on a connection, while it may already
// be lost: to the budget, or with all that its connection has queued.
//
// Loop-confined: use only on the event loop that owns the connection.
type newest struct {
	conn  *Conn
	frame *Frame
	lost  bool
}

// keeps runs settle and reports whether f, which was just queued on c, was not
// lost in it.
func (s *Shard) keeps(c *Conn, f *Frame, settle func()) bool {
	s.newest = newest{conn: c, frame: f}
	settle()
	kept := !s.newest.lost
	s.newest = newest{}
	return kept
}

// worstShard returns the shard with the laggard that holds the most.
func (e *Engine) worstShard() *Shard {
	worst := e.shards[0]
	for _, s := range e.shards[1:] {
		if s.worst.Load() > worst.worst.Load() {
			worst = s
		}
	}
	return worst
}

// askToTrim makes the shard look at its own laggards.
func (s *Shard) askToTrim() {
	if !s.trimming.Swap(true) {
		s.postUrgent(trimTask{})
	}
}

// trimTask is posted by a shard that found the budget exceeded.
type trimTask struct{}

func (trimTask) RunInLoop(s *Shard) {
	s.trimming.Store(false)
	s.keepBudget()
}

// trim takes from c, the worst laggard: the message that the policy drops, or
// all that waits if the policy is to disconnect. If nothing waits but the rest of
// a frame half sent, the connection is cut off: no close frame can follow half
// a frame.
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
		s.disconnect(c, DropBudget) // or only answers wait, which are not skipped
		return
	}
	if c.end() == nil {
		c.setEnd(slowEnd())
	}
	s.discard(c, DropBudget)
	s.doom(c, nil)
}
