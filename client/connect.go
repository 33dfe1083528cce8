package client

import (
	"encoding/json"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// graceTime is the longest time that a replaced connection waits for the answers to its requests.
const graceTime = 5 * time.Second

// dialLocked begins to connect, when there is no connection.
func (c *Client) dialLocked() {
	c.current = c.newLinkLocked()
	c.setStateLocked(State{Phase: Connecting})
}

// stopRetryLocked stops the timer of an attempt or of a move.
func (c *Client) stopRetryLocked() {
	if c.retry != nil {
		c.retry.Stop()
		c.retry = nil
	}
}

// retryLocked calls fn after a time, unless the timer is stopped.
func (c *Client) retryLocked(after time.Duration, fn func()) {
	c.stopRetryLocked()
	var t *time.Timer
	t = time.AfterFunc(after, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.retry == t {
			c.retry = nil
			fn()
		}
	})
	c.retry = t
}

// prepared notes that the application has given credentials for l.
func (c *Client) prepared(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.refresh {
		c.refresh = false
	}
}

// linkOpened begins to use l. It reports whether l is of use.
func (c *Client) linkOpened(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l != c.current && l != c.next {
		return false // closed in the meantime
	}
	l.open, l.openedAt, l.heard = true, time.Now(), true
	l.startBeatLocked()
	if l == c.current {
		c.setStateLocked(State{Phase: Open})
	}
	if o := c.overlap; l == c.next {
		c.syncLocked(l, func() {
			o.synced = true
			c.switchLocked()
		})
	}
	c.joinLocked()
	if l == c.current {
		c.flushLocked()
	}
	return true
}

// linkEnded reacts to the end of l, or of its attempt.
func (c *Client) linkEnded(l *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.open = false
	c.links = slices.DeleteFunc(c.links, func(other *link) bool { return other == l })
	c.loseLocked(l)
	switch {
	case c.state.Phase == Closed:
	case l == c.next:
		c.nextEndedLocked(l)
	case l == c.current:
		c.currentEndedLocked(l, err)
	default: // it was replaced
		c.flushLocked()
	}
}

// currentEndedLocked uses the next connection, if there is one, or decides when to connect
// again.
func (c *Client) currentEndedLocked(l *link, err error) {
	if !l.openedAt.IsZero() && time.Since(l.openedAt) >= stableTime {
		c.failures = 0
	}
	d := decide(err, c.failures, c.random())
	closed, ok := errors.AsType[*CloseError](err)
	takenOver := ok && closed.Code == closeTakenOver && c.next != nil // the next connection has taken the ID
	if d.stop && !takenOver && !l.left {
		c.current = nil
		c.closeLocked(err)
		return
	}
	c.refresh = c.refresh || d.refresh
	c.current, c.next = c.next, nil
	switch {
	case c.current == nil:
		c.failures++
		c.setStateLocked(State{Phase: Waiting, RetryAt: time.Now().Add(d.after), Err: err})
		c.retryLocked(d.after, c.dialLocked)
	case c.current.open:
		c.reportMoveLocked()
		c.joinLocked()
		c.releaseLocked()
		c.flushLocked()
	default:
		c.overlap = nil
		c.setStateLocked(State{Phase: Connecting})
	}
}

// noticeLocked handles ws.reconnect: the server asks the client to move to a new connection.
func (c *Client) noticeLocked(l *link, data json.RawMessage) {
	if !c.makeBefore || l != c.current || c.next != nil || c.retry != nil {
		return
	}
	var notice struct {
		RetryMS int64 `json:"retry_ms"`
	}
	_ = json.Unmarshal(data, &notice) // at once, if the server says nothing
	c.retryLocked(retryTime(notice.RetryMS), c.moveLocked)
}

// moveLocked begins a move, but not before the end of the last one.
func (c *Client) moveLocked() {
	switch {
	case c.overlap != nil:
		c.retryLocked(movePoll, c.moveLocked)
	case c.current.open && !c.current.closing:
		c.next, c.overlap = c.newLinkLocked(), &overlap{seed: maphash.MakeSeed()}
	}
}

// movePoll is the time between two looks at the end of the last move.
const movePoll = 50 * time.Millisecond

// nextEndedLocked stays on the current connection, if it still reads all rooms with a history that
// it has joined.
func (c *Client) nextEndedLocked(l *link) {
	c.next, c.overlap = nil, nil
	for _, r := range c.joined {
		switch {
		case r.source != l:
		case r.before == c.current && r.cursor.Epoch != "":
			c.current.left = true
			c.current.closeLocked(codec.CloseNormal) // the room has lost messages
			return
		default:
			r.source = r.before
		}
	}
	for _, r := range c.joined {
		if r.target == l {
			r.target = r.source
		}
	}
	c.joinLocked()
}

// switchLocked begins to replace the current connection, if the next one has joined all rooms.
func (c *Client) switchLocked() {
	l := c.next
	if l == nil || !l.open || l.joins > 0 || !c.overlap.synced {
		return
	}
	if !slices.ContainsFunc(c.joined, func(r *roomState) bool { return r.target != l }) {
		c.drainLocked()
	}
}

// retireLocked closes a connection that was replaced, if no request waits for its answer on it.
func (c *Client) retireLocked(l *link) {
	if l == c.current || l == c.next {
		return
	}
	for _, r := range c.sent {
		if r.link == l {
			return
		}
	}
	l.closeLocked(codec.CloseNormal)
}
