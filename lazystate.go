package ws

import (
	"context"
	"sync"
)

// lazyState holds the parts of a client that most idle clients do not need: an idle client
// in at most one room has none. The client's mutex guards it.
type lazyState struct {
	mailbox *mailbox       // nil while no message waits for a worker
	meta    map[string]any // nil while empty
	user    string         // of WithUser, "" with a Client.UserID; immutable once connected
	rooms   memberships    // all but the first
	first   []string       // IDs of the rooms of WithRooms, until the client is connected
	left    []string       // IDs of the rooms at the beginning of the close
	ctx     context.Context
	cancel  context.CancelFunc // of ctx; both nil until Client.Context is called
}

var lazyStates = sync.Pool{New: func() any { return new(lazyState) }}

// needLazyLocked returns the client's lazy state, and creates it if there is none.
func (c *Client) needLazyLocked() *lazyState {
	if c.lazy == nil {
		c.lazy = lazyStates.Get().(*lazyState)
	}
	return c.lazy
}

// dropLazyLocked gives the client's lazy state back to the pool if it is empty.
func (c *Client) dropLazyLocked() {
	x := c.lazy
	if x == nil || !x.empty() {
		return
	}
	c.lazy = nil
	x.rooms = memberships{} // its array may be large
	lazyStates.Put(x)
}

// empty reports whether the client needs no lazy state.
func (x *lazyState) empty() bool {
	return x.mailbox == nil && x.meta == nil && x.user == "" && x.rooms.len() == 0 &&
		x.first == nil && x.left == nil && x.ctx == nil
}
