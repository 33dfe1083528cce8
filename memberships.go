package ws

import "iter"

// memberships is a list of a client's memberships, in the order of joining. The client's
// mutex guards it.
type memberships struct {
	list  []*membership  // with an index, nil in place of an ended membership
	index map[string]int // places in list by the room's ID; nil for up to maxUnindexed
	first int            // no place before it holds a membership
}

// maxUnindexed is the number of memberships up to which a search through the list is as fast
// as a map.
const maxUnindexed = 16

func (l *memberships) len() int {
	if l.index != nil {
		return len(l.index)
	}
	return len(l.list)
}

func (l *memberships) add(mem *membership) {
	l.list = append(l.list, mem)
	switch {
	case l.index != nil:
		l.index[mem.Room().ID()] = len(l.list) - 1
	case len(l.list) > maxUnindexed:
		l.reindex()
	}
}

// find returns the place of the membership in the room of that ID, or -1.
func (l *memberships) find(id string) int {
	if l.index != nil {
		if i, ok := l.index[id]; ok {
			return i
		}
		return -1
	}
	for i, mem := range l.list {
		if mem.Room().ID() == id {
			return i
		}
	}
	return -1
}

// take removes the membership at place i and returns it.
func (l *memberships) take(i int) *membership {
	mem := l.list[i]
	if l.index == nil {
		l.list = append(l.list[:i], l.list[i+1:]...)
		return mem
	}
	l.list[i] = nil
	delete(l.index, mem.Room().ID())
	if len(l.index) < len(l.list)/2 {
		l.compact()
	}
	return mem
}

// takeFirst removes the oldest membership and returns it, nil if there is none.
func (l *memberships) takeFirst() *membership {
	for ; l.first < len(l.list); l.first++ {
		if l.list[l.first] != nil {
			return l.take(l.first)
		}
	}
	return nil
}

// compact removes the places of ended memberships.
func (l *memberships) compact() {
	kept := make([]*membership, 0, len(l.index)+1)
	for _, mem := range l.list {
		if mem != nil {
			kept = append(kept, mem)
		}
	}
	l.list, l.index, l.first = kept, nil, 0
	if len(kept) > maxUnindexed/2 {
		l.reindex()
	}
}

func (l *memberships) reindex() {
	l.index = make(map[string]int, 2*len(l.list))
	for i, mem := range l.list {
		l.index[mem.Room().ID()] = i
	}
}

// roomsLocked yields the client's memberships in the order of joining.
func (c *Client) roomsLocked() iter.Seq[*membership] {
	return func(yield func(*membership) bool) {
		if c.room == nil || !yield(c.room) || c.lazy == nil {
			return
		}
		for _, mem := range c.lazy.rooms.list {
			if mem != nil && !yield(mem) {
				return
			}
		}
	}
}

// addRoomLocked adds mem behind the client's other memberships.
func (c *Client) addRoomLocked(mem *membership) {
	if c.room == nil {
		c.room = mem
		return
	}
	x := c.needLazyLocked()
	x.rooms.add(mem)
}

// roomLocked returns the client's membership in the room of that ID, nil for none, and the
// number of the client's rooms.
func (c *Client) roomLocked(id string) (mem *membership, rooms int) {
	if c.room == nil {
		return nil, 0
	}
	rooms = 1
	if c.room.Room().ID() == id {
		mem = c.room
	}
	if x := c.lazy; x != nil {
		rooms += x.rooms.len()
		if mem == nil {
			if i := x.rooms.find(id); i >= 0 {
				mem = x.rooms.list[i]
			}
		}
	}
	return mem, rooms
}

// forgetRoomLocked removes the client's membership in r and returns it; nil if the client is
// not in r.
func (c *Client) forgetRoomLocked(r *roomEntry) *membership {
	x, mem := c.lazy, c.room
	switch {
	case mem == nil:
		return nil
	case x == nil && mem.Room() != r:
		return nil
	case x == nil:
		c.room = nil
		return mem
	case mem.Room() == r:
		c.room = x.rooms.takeFirst()
	default:
		i := x.rooms.find(r.ID())
		if i < 0 || x.rooms.list[i].Room() != r {
			return nil
		}
		mem = x.rooms.take(i)
	}
	c.dropLazyLocked()
	return mem
}
