package ws

import (
	"context"
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
