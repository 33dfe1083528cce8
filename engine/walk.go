package engine

// walk is a visit to all connections of a wheel, which may take several turns.
// A connection that moves to another slot meanwhile is visited once, one that
// ends is not, and a new one may be.
//
// Loop-confined: use only on the event loop that owns the connections.
type walk struct {
	running bool
	seen    connFlags // walked or 0: the value of that flag in visited connections
	slot    int
	next    *Conn   // in slot
	moved   []*Conn // unvisited connections that have moved to slots behind the walk
}

// begin starts a walk of w.
func (k *walk) begin(w *wheel) {
	*k = walk{running: true, seen: k.seen ^ walked, next: w.slots[0]}
}

// visited reports whether c has been visited, or came after the walk began.
func (k *walk) visited(c *Conn) bool { return c.flags&walked == k.seen }

func (k *walk) setVisited(c *Conn) { c.flags = c.flags&^walked | k.seen }

// scheduled records that c has come to the head of slot.
func (k *walk) scheduled(c *Conn, slot int) {
	if k.running && slot <= k.slot && !k.visited(c) {
		k.moved = append(k.moved, c)
	}
}

// canceled records that c is about to leave its slot.
func (k *walk) canceled(c *Conn) {
	if k.next == c {
		k.next = c.next
	}
}

// step returns the next unvisited connection, or nil at the end.
func (k *walk) step(w *wheel) *Conn {
	for {
		c := k.next
		switch {
		case c != nil:
			k.next = c.next
		case k.slot < wheelSlots-1:
			k.slot++
			k.next = w.slots[k.slot]
			continue
		case len(k.moved) > 0:
			last := len(k.moved) - 1
			c = k.moved[last]
			k.moved[last] = nil
			k.moved = k.moved[:last]
		default:
			*k = walk{seen: k.seen}
			return nil
		}
		if !k.visited(c) && c.is(scheduled) {
			k.setVisited(c)
			return c
		}
	}
}

// walkWork is the work of a step with fn; see clockStep.
const walkWork = 256

// WalkInLoop calls fn for every connection of s that takes data. fn may queue
// frames on it. It returns false when the turn's time is over: then the caller
// suspends its task, and calls it again to continue.
func (s *Shard) WalkInLoop(fn func(*Conn)) (done bool) {
	return s.walkAll(func(c *Conn) {
		if c.takesDataInLoop() {
			fn(c)
		}
	})
}

// walkAll is WalkInLoop for all connections. fn may schedule the connection
// that it gets.
func (s *Shard) walkAll(fn func(*Conn)) (done bool) {
	k := &s.wheel.walk
	if !k.running {
		k.begin(&s.wheel)
	}
	for c := k.step(&s.wheel); c != nil; c = k.step(&s.wheel) {
		fn(c)
		if s.clock.work += walkWork; s.clock.outOfTime() {
			return false
		}
	}
	return true
}

// closeAllTask begins the close handshakes of all connections of a shard.
type closeAllTask struct{}

func (t closeAllTask) RunInLoop(s *Shard) {
	done := s.walkAll(func(c *Conn) {
		switch {
		case c.is(opened):
			s.beginCloseInLoop(c, s.eng.drainEnd)
		case !c.is(lingering):
			s.endAdmitting(c)
			s.refuseRequest(c, errStopping)
		}
	})
	if !done {
		s.SuspendInLoop(t)
	}
}
