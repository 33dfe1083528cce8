package ws

import (
	"context"
	"iter"
	"slices"
	"sync"
)

// extra is what a client has only while it uses it, so that an idle client with
// no more than one room does without. The client's mutex guards it.
type extra struct {
	mailbox *mailbox       // nil while no message waits for a worker
	meta    map[string]any // nil while empty
	rooms   []*membership  // all but the first
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
	if x := c.extra; x != nil && x.mailbox == nil && x.meta == nil && len(x.rooms) == 0 && x.left == nil && x.ctx == nil {
		c.extra = nil
		x.rooms = nil // its array is as large as it was once
		extraPool.Put(x)
	}
}

// roomsLocked are the client's memberships, in the order in which it joined.
func (c *Client) roomsLocked() iter.Seq[*membership] {
	return func(yield func(*membership) bool) {
		if c.room == nil || !yield(c.room) || c.extra == nil {
			return
		}
		for _, mem := range c.extra.rooms {
			if !yield(mem) {
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
	x.rooms = append(x.rooms, mem)
}

// forgetRoomLocked takes the membership of r off the client's list and returns
// it; nil if the client is not in r.
func (c *Client) forgetRoomLocked(r *roomEntry) *membership {
	if c.room == nil {
		return nil
	}
	x := c.extra
	if mem := c.room; mem.Room() == r {
		c.room = nil
		if x != nil && len(x.rooms) > 0 {
			c.room = x.rooms[0]
			x.rooms = slices.Delete(x.rooms, 0, 1)
			c.dropExtraLocked()
		}
		return mem
	}
	if x == nil {
		return nil
	}
	for i, mem := range x.rooms {
		if mem.Room() == r {
			x.rooms = slices.Delete(x.rooms, i, i+1)
			c.dropExtraLocked()
			return mem
		}
	}
	return nil
}
