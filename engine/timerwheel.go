package engine

// wheelSlots is a power of two. With the default tick of 250 ms, one revolution
// of the wheel takes 128 s, longer than any default timeout, so each connection
// is looked at once for each of its deadlines.
const wheelSlots = 512

// wheel is a shard's timer wheel with one deadline for each connection, in
// lists that run through the connections themselves, so a timer costs no
// memory. Every connection of a shard always has a deadline, so the wheel is
// also the shard's list of connections.
//
// Loop-confined: use only on the event loop that owns the connection.
type wheel struct {
	slots [wheelSlots]*Conn
	now   uint32 // the last processed tick
	size  int
	walk  walk
	drain *drain // nil while none is in progress
}

// schedule sets c's deadline, in ticks, in place of the old one. A deadline
// that is not after now fires at the next tick.
func (w *wheel) schedule(c *Conn, deadline uint32) {
	if c.is(scheduled) {
		w.cancel(c)
	}
	if int32(deadline-w.now) <= 0 {
		deadline = w.now + 1
	}
	c.deadline = deadline
	c.set(scheduled)
	head := &w.slots[deadline%wheelSlots]
	c.prev, c.next = nil, *head
	if *head != nil {
		(*head).prev = c
	}
	*head = c
	w.size++
	w.walk.scheduled(c, int(deadline%wheelSlots))
	w.drain.scheduled()
}

// cancel removes c from the wheel.
func (w *wheel) cancel(c *Conn) {
	if !c.is(scheduled) {
		return
	}
	w.walk.canceled(c)
	w.drain.canceled(c)
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		w.slots[c.deadline%wheelSlots] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	c.unset(scheduled)
	w.size--
}

// advance moves the wheel to tick now, and removes each connection whose
// deadline has come and calls fire for it. It returns false as soon as fire
// does; then it is called again to continue. fire may schedule that connection
// again, beyond now, and must not cancel another one.
func (w *wheel) advance(now uint32, fire func(*Conn) (more bool)) (done bool) {
	if behind := now - w.now; behind > wheelSlots {
		w.now = now - wheelSlots
	}
	for w.now != now {
		w.now++
		for c := w.slots[w.now%wheelSlots]; c != nil; {
			next := c.next
			if int32(c.deadline-now) <= 0 {
				w.cancel(c)
				if !fire(c) {
					w.now-- // the rest of the slot follows
					return false
				}
			}
			c = next
		}
	}
	return true
}

// each calls fn for every connection. fn must not schedule or cancel.
func (w *wheel) each(fn func(*Conn)) {
	for _, c := range w.slots {
		for ; c != nil; c = c.next {
			fn(c)
		}
	}
}

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
func (k *walk) setVisited(c *Conn)   { c.flags = c.flags&^walked | k.seen }

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
	k := &s.wheel.walk
	if !k.running {
		k.begin(&s.wheel)
	}
	for c := k.step(&s.wheel); c != nil; c = k.step(&s.wheel) {
		if c.takesDataInLoop() {
			fn(c)
		}
		if s.clock.work += walkWork; s.clock.outOfTime() {
			return false
		}
	}
	return true
}
