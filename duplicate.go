package ws

import (
	"context"
	"time"
)

// DuplicateIDPolicy decides between two clients with one ID.
// Whichever it is, one that is closing, whoever began that, keeps its ID for half a second
// at most: then its connection is ended, however the close handshake stands. The new
// client waits for that before it is answered. Its EventClientConnected comes after the
// EventClientDisconnected of the other.
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
	// replaceTimeout is how long a connection that is closing keeps its ID while another
	// client waits for that.
	replaceTimeout = 500 * time.Millisecond
	// replacePoll is how often the other client looks. Few wait, and not for long.
	replacePoll = 5 * time.Millisecond
)

// register takes c in. It may wait, until ctx ends, for the end of an older connection
// with its ID. On an event loop it does not: an ID of the application's comes from user
// code, which runs elsewhere.
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

// isLeaving reports whether the client is closing: by us, or by a close frame of its own
// that waits for its handlers.
func (c *Client) isLeaving() bool {
	return c.conn.Closed() || c.closesWhenRead()
}

// giveWay ends the connection soon.
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
