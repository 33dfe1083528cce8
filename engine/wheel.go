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
}

// cancel removes c from the wheel.
func (w *wheel) cancel(c *Conn) {
	if !c.is(scheduled) {
		return
	}
	w.walk.canceled(c)
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
