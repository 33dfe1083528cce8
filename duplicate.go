package ws

import (
	"context"
	"time"
)

// DuplicateIDPolicy decides between two clients with one ID.
//
// Under each policy, an older client that is closing keeps its ID for half a second at most,
// whichever side began the close: then its connection ends, even in the middle of the close
// handshake. The new client waits for this end before it is answered. Its
// EventClientConnected comes after the EventClientDisconnected of the other client.
type DuplicateIDPolicy uint8

const (
	// RefuseNew refuses the new client with HTTP 409 and ErrClientIDExists.
	RefuseNew DuplicateIDPolicy = iota
	// ReplaceOld closes the older connection with code 4409 (CloseReplaced), and ends it
	// if it does not answer within half a second. Its messages that wait for a worker are
	// not handled.
	ReplaceOld
)

const (
	// replaceTimeout is the longest time that a closing connection keeps its ID while
	// another client waits for the ID.
	replaceTimeout = 500 * time.Millisecond
	// replacePoll is the interval at which the other client looks. Few clients wait, and
	// not for long.
	replacePoll = 5 * time.Millisecond
)

// register adds c to the registry. It may wait, until ctx ends, for the end of an older
// connection with the same ID. It never waits on an event loop, because an ID comes from
// code of the application, which runs elsewhere.
func (m *Manager) register(ctx context.Context, c *Client) error {
	for {
		old, err := m.clients.admit(c, m.cfg.MaxConnections)
		if old == nil {
			return err
		}
		if m.cfg.DuplicateID != ReplaceOld && !old.isLeaving() {
			return err
		}
		old.giveWay()
		select {
		case <-ctx.Done():
			return m.lateError(ctx.Err())
		case <-time.After(replacePoll):
		}
	}
}

// isLeaving reports whether the client is closing, by this side, or by its own close frame,
// which waits for its handlers.
func (c *Client) isLeaving() bool {
	return c.conn.Closed() || c.closesWhenRead()
}

// giveWay makes the connection end within replaceTimeout.
func (c *Client) giveWay() {
	switch {
	case c.conn.Closed():
	case c.closesWhenRead():
		c.conn.Resume() // its close frame is answered now
		return
	case c.conn.Open():
		c.mu.Lock()
		c.shut = true
		c.mu.Unlock()
	}
	c.conn.CloseWithin(CloseReplaced, "replaced by a new connection", replaceTimeout)
}
