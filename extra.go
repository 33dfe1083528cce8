package ws

import (
	"context"
	"iter"
	"sync"
)

// extra holds the parts of a client that most idle clients do not need: an idle client with
// no more than one room does without. The client's mutex guards it.
type extra struct {
	mailbox *mailbox       // nil while no message waits for a worker
	meta    map[string]any // nil while empty
	user    string         // of WithUser, unless Client.UserID says it; immutable once connected
	rooms   memberships    // all but the first
	first   []string       // IDs of the rooms of WithRooms, until the client is connected
	left    []string       // IDs of the rooms that the client was in when its closing began
	ctx     context.Context
	cancel  context.CancelFunc // of ctx; both nil until Client.Context is called
}

var extraPool = sync.Pool{New: func() any { return new(extra) }}

// needExtraLocked returns the client's extra, which it gets if it has none.
func (c *Client) needExtraLocked() *extra {
	if c.extra == nil {
		c.extra = extraPool.Get().(*extra)
	}
	return c.extra
}

// dropExtraLocked gives the client's extra back if nothing is in it.
func (c *Client) dropExtraLocked() {
	if x := c.extra; x != nil && x.mailbox == nil && x.meta == nil && x.user == "" && x.rooms.len() == 0 && x.first == nil && x.left == nil && x.ctx == nil {
		c.extra = nil
		x.rooms = memberships{} // its array is as large as it was once
		extraPool.Put(x)
	}
}

// roomsLocked are the client's memberships, in the order in which it joined.
func (c *Client) roomsLocked() iter.Seq[*membership] {
	return func(yield func(*membership) bool) {
		if c.room == nil || !yield(c.room) || c.extra == nil {
			return
		}
		for _, mem := range c.extra.rooms.list {
			if mem != nil && !yield(mem) {
				return
			}
		}
	}
}

// addRoomLocked puts mem behind the client's other memberships.
func (c *Client) addRoomLocked(mem *membership) {
	if c.room == nil {
		c.room = mem
		return
	}
	x := c.needExtraLocked()
	x.rooms.add(mem)
}

// roomLocked returns the client's membership in the room of that ID, nil if there is none (there is
// one at most), and in how many rooms the client is.
func (c *Client) roomLocked(id string) (mem *membership, rooms int) {
	if c.room == nil {
		return nil, 0
	}
	rooms = 1
	if c.room.Room().ID() == id {
		mem = c.room
	}
	if x := c.extra; x != nil {
		rooms += x.rooms.len()
		if mem == nil {
			if i := x.rooms.find(id); i >= 0 {
				mem = x.rooms.list[i]
			}
		}
	}
	return mem, rooms
}

// forgetRoomLocked takes the membership of r off the client's list and returns
// it; nil if the client is not in r.
func (c *Client) forgetRoomLocked(r *roomEntry) *membership {
	x, mem := c.extra, c.room
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
	c.dropExtraLocked()
	return mem
}
