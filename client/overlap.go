package client

import (
	"encoding/json"
	"hash/maphash"
	"slices"
	"time"

	"github.com/qi-realtime/ws/codec"
)

// maxOverlap bounds the lists of an overlap.
const maxOverlap = 1024

// plain is a message without an offset: a notification, or a message of OnRaw. Immutable.
type plain struct {
	in      *incoming // nil for OnRaw
	text    bool
	payload []byte // of OnRaw
}

// isGap reports whether m is a gap. Two equal ones stand for losses at two servers.
func (m plain) isGap() bool { return m.in != nil && m.in.Event == eventGap }

// overlap is the time of a move in which both connections may carry the same message. An offset
// shows the second copy; a message without one is compared by its bytes. Until the old connection has
// answered a ws.sync that was sent after the last join on the new one, all messages are taken from the old
// one, and those of the new one wait. Guarded by Client.mu.
type overlap struct {
	seed maphash.Seed
	// synced: the new connection has answered a ws.sync. What it carries before that was published before, so
	// the old connection brings it, or has brought it before the move.
	synced  bool
	drained bool     // the ws.sync was sent on the old connection
	seen    []uint64 // taken from the old connection, not read from the new one
	held    []held   // read from the new connection, not from the old one
}

// held is a message that waits for the old connection.
type held struct {
	hash    uint64
	message plain
}

// take removes a hash from the list, and reports whether it was there.
func take[T any](list *[]T, is func(T) bool) bool {
	i := slices.IndexFunc(*list, is)
	if i < 0 {
		return false
	}
	*list = slices.Delete(*list, i, i+1)
	return true
}

func (o *overlap) takeSeen(hash uint64) bool {
	return take(&o.seen, func(h uint64) bool { return h == hash })
}

// isNew notes a message of the current connection, and reports whether it is new.
func (o *overlap) isNew(hash uint64, moving bool) bool {
	if !moving { // any more
		return !o.takeSeen(hash)
	}
	if !take(&o.held, func(h held) bool { return h.hash == hash }) {
		o.seen = append(o.seen[max(0, len(o.seen)-maxOverlap+1):], hash)
	}
	return true
}

// plainLocked handles a message without an offset on l.
func (c *Client) plainLocked(l *link, room *roomState, m plain, payload []byte) {
	if room != nil && !room.wanted {
		room = nil // the server has joined the client, or it has left
	}
	o := c.overlap
	switch {
	case room != nil && l != room.source && l != room.before: // it was left and joined again
	case l == c.current:
		if o == nil || m.isGap() || o.isNew(maphash.Bytes(o.seed, payload), c.next != nil) {
			c.deliverLocked(m)
		}
	case l != c.next: // it was replaced
	case room != nil && room.before != c.current: // only this connection has joined it
		c.deliverLocked(m)
	default:
		c.holdLocked(maphash.Bytes(o.seed, payload), m)
	}
}

// holdLocked keeps a message of the new connection, unless the old one has brought it. Of too many
// messages the oldest is left to the old connection.
func (c *Client) holdLocked(hash uint64, m plain) {
	o := c.overlap
	if o.takeSeen(hash) || !o.synced && !m.isGap() {
		return
	}
	o.held = append(o.held, held{hash, m})
	if len(o.held) > maxOverlap {
		o.held = slices.Delete(o.held, 0, 1)
	}
}

// deliverLocked queues the callbacks for a message without an offset.
func (c *Client) deliverLocked(m plain) {
	switch {
	case m.in == nil:
		for _, fn := range c.raw {
			c.callLocked(func() { (*fn)(m.text, m.payload) })
		}
	case m.in.Room == "":
		c.handlers.deliverLocked(c, m.in.notify())
	default:
		if r := c.rooms[m.in.Room]; r != nil && r.takesPlainLocked() {
			r.deliverPlainLocked(m.in)
		}
	}
}

// drainLocked asks the old connection for the end of its messages, after the last join on the new
// one: each message that was published before comes before the answer, or a gap.
func (c *Client) drainLocked() {
	o, old, l := c.overlap, c.current, c.next
	if o.drained {
		return
	}
	o.drained = true
	takeOver := func() {
		if c.next == l {
			c.takeOverLocked()
		}
	}
	c.syncLocked(old, takeOver)
	old.grace = time.AfterFunc(graceTime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.next == l {
			c.reportMoveLocked()
		}
		takeOver()
		if old != c.current { // otherwise the new one has failed
			old.closeLocked(codec.CloseNormal)
		}
	})
}

// reportMoveLocked reports a gap without a room, and one in the rooms without a history: the old connection has
// possibly not brought all of its messages.
func (c *Client) reportMoveLocked() {
	c.handlers.deliverLocked(c, Notify{Event: eventGap, Data: json.RawMessage(gapOfMove)})
	for _, r := range c.joined {
		if r.source != nil && !r.cursor.known {
			r.reportLocked(Gap{Reason: gapMoved})
		}
	}
}

const (
	gapMoved  = "moved"
	gapOfMove = `{"epoch":"","after":0,"next":0,"reason":"` + gapMoved + `"}`
)

// syncLocked calls fn when the server has answered a ws.sync on l, behind all that was published before.
func (c *Client) syncLocked(l *link, fn func()) {
	c.askLocked(l, eventSync, nil, func(a answer) {
		if a.err == nil {
			fn()
		}
	})
}

// takeOverLocked replaces the current connection by the next one.
func (c *Client) takeOverLocked() {
	old := c.current
	c.current, c.next = c.next, nil
	c.releaseLocked()
	c.retireLocked(old)
	c.flushLocked()
}

// releaseLocked delivers the messages of the new connection that have waited for the old one. Later
// copies of the old one's messages are dropped until the new one has answered a ping.
func (c *Client) releaseLocked() {
	o := c.overlap
	for _, h := range o.held {
		c.deliverLocked(h.message)
	}
	o.held = nil
	if len(o.seen) == 0 || !c.current.open {
		c.overlap = nil
		return
	}
	c.syncLocked(c.current, func() {
		if c.overlap == o {
			c.overlap = nil
		}
	})
}
