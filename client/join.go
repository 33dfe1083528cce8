package client

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	// maxJoins is the number of joins without an answer: a server's rate limit tolerates more.
	maxJoins = 8
	// leastPause is the least time before a refused join is sent again, without retry_ms.
	leastPause = time.Second
)

// joinData is the data of ws.join and ws.leave.
type joinData struct {
	Room   string    `json:"room"`
	Device string    `json:"device,omitempty"`
	Since  *Position `json:"since,omitempty"`
	Last   int       `json:"last,omitempty"`
	Strict bool      `json:"strict,omitempty"`
	// Presence is set with each join.
	Presence *PresenceVersion `json:"presence,omitempty"`

	autoAck  bool
	presence func() PresenceVersion // or nil
}

// JoinOption changes a join.
type JoinOption func(*joinData)

// Since asks for the messages behind a position.
func Since(p Position) JoinOption { return func(d *joinData) { d.Since = &p } }

// Last asks for the newest n messages of the history. Since takes precedence.
func Last(n int) JoinOption { return func(d *joinData) { d.Last = n } }

// Strict lets the join fail with code 409 if a message behind the position is lost, instead of a
// gap. It holds for later joins after a reconnect, too: see OnLost.
func Strict() JoinOption { return func(d *joinData) { d.Strict = true } }

// PresenceVersion is a version of the list of users in a room, from the notifications ws.presence.
type PresenceVersion struct {
	Epoch   string `json:"epoch"`
	Version uint64 `json:"version"`
}

// Presence names the list of users that the application has, with each join, also after a
// reconnect; fn returns the zero PresenceVersion without one. If the server has kept the changes since
// then, it sends these in place of the list. fn must return at once and must not use the client.
func Presence(fn func() PresenceVersion) JoinOption { return func(d *joinData) { d.presence = fn } }

// Joined is the server's answer to a join. Epoch is empty in a room without history. Immutable.
type Joined struct {
	Epoch     string `json:"epoch"`     // of the history
	Offset    int64  `json:"offset"`    // of the newest message
	Replaying int64  `json:"replaying"` // messages of the history that follow
}

// Join joins the room, and stays in it over reconnects until Leave. Without options the client
// reads the messages from now on. A join that the rate limit refuses (429) is sent again later. If
// ctx ends before the answer, the room is left. The error is a *[ServerError] if the server
// refuses; it wraps ErrAlreadyJoined, ErrClosed or the error of ctx.
func (r *Room) Join(ctx context.Context, opts ...JoinOption) (Joined, error) {
	options := joinData{Room: r.name}
	for _, opt := range opts {
		opt(&options)
	}
	answers := make(chan answer, 1)
	st, term, err := r.c.join(ctx, options, func(a answer) { answers <- a })
	if err != nil {
		return Joined{}, fmt.Errorf("client: join %q: %w", r.name, err)
	}
	var joined Joined
	select {
	case a := <-answers:
		err := a.decode("join "+r.name, &joined)
		return joined, err
	case <-ctx.Done():
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		if st.term == term {
			st.leaveLocked(answer{err: ctx.Err()}, nil)
		}
		return Joined{}, fmt.Errorf("client: join %q: %w", r.name, ctx.Err())
	}
}

// join begins a membership. Its answer has the number term.
func (c *Client) join(ctx context.Context, options joinData, resolve func(answer)) (*roomState, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return nil, 0, ctx.Err()
	case c.state.Phase == Closed:
		return nil, 0, c.closedLocked()
	}
	r := c.roomLocked(options.Room)
	if r.wanted {
		return nil, 0, ErrAlreadyJoined
	}
	r.wanted, r.left, r.accepted, r.options, r.resolve = true, false, false, options, resolve
	r.term++
	r.cursor = cursor{}
	if options.Since != nil {
		r.cursor = cursor{Position: *options.Since, known: true}
	}
	c.joined = append(c.joined, r)
	c.joinLocked()
	return r, r.term, nil
}

// joinLocked sends the joins that are due, on the newest connection.
func (c *Client) joinLocked() {
	l := c.current
	if c.next != nil && c.next.open {
		l = c.next
	}
	if l == nil || !l.open || l.pause != nil {
		return
	}
	for _, r := range c.joined {
		if l.joins >= maxJoins || l.joins > 0 && l.refused {
			return
		}
		waits := r.target == c.current && r.source != r.target // for an answer on the old connection
		if r.target != l && !waits {
			r.sendJoinLocked(l)
		}
	}
}

// setPresence sets the list of users that the application has, if it has one.
func (d *joinData) setPresence(has func() PresenceVersion) {
	if has == nil {
		return
	}
	if v := has(); v != (PresenceVersion{}) {
		d.Presence = &v
	}
}

// sendJoinLocked asks for the room on l, with the position if it is certain.
func (r *roomState) sendJoinLocked(l *link) {
	data := r.options
	if r.accepted && (r.cursor.known || r.cursor.Epoch == "") {
		data = joinData{Room: r.name, Device: r.options.Device}
		if r.cursor.Epoch != "" {
			since := r.cursor.Position
			data.Since, data.Strict = &since, r.options.Strict
		}
	}
	data.setPresence(r.options.presence)
	term, since := r.term, data.Since
	if !r.c.askLocked(l, eventJoin, data, func(a answer) {
		l.joins--
		if a.err != nil {
			return // the end of l decides
		}
		if r.term == term && r.target == l {
			r.answeredLocked(l, a, since)
		}
		r.c.joinLocked()
		r.c.switchLocked()
	}) {
		return
	}
	r.target, r.before = l, nil
	if l == r.c.next {
		r.before = r.source
	}
	l.joins++
}

// answeredLocked handles the answer to a join.
func (r *roomState) answeredLocked(l *link, a answer, since *Position) {
	var joined Joined
	err := a.decode(eventJoin, &joined)
	if err != nil && r.repeatsLocked(a) {
		r.postponeLocked(l, a)
		return
	}
	if err != nil {
		r.refusedLocked(a, err)
		return
	}
	l.refusals = 0
	r.accepted, r.source = true, l
	placed := since != nil || r.cursor.known && r.cursor.Epoch == joined.Epoch
	if !placed {
		r.cursor = cursor{
			Position: Position{joined.Epoch, joined.Offset - joined.Replaying},
			known:    joined.Epoch != "" && joined.Replaying == 0,
		}
	}
	r.cursor.anew = since != nil && since.Epoch != joined.Epoch && r.cursor.Epoch == joined.Epoch
	r.repeatAckLocked()
	r.resolveLocked(a)
}

// repeatsLocked reports whether a refused join is sent again.
func (r *roomState) repeatsLocked(a answer) bool {
	code := a.in.Code
	return a.in.Type == typeError &&
		(code == http.StatusTooManyRequests || r.accepted && code >= http.StatusInternalServerError)
}

// refusedLocked ends the membership because of a refused join.
func (r *roomState) refusedLocked(a answer, err error) {
	first := r.resolve != nil
	r.target = nil
	r.leaveLocked(a, nil) // during a move it is still in the room on the other connection
	if first {
		return
	}
	for _, fn := range r.onLost {
		r.c.callLocked(func() { (*fn)(err) })
	}
}

// postponeLocked pauses the joins on l after a refusal, and puts r behind all other rooms.
func (r *roomState) postponeLocked(l *link, a answer) {
	c := r.c
	r.target = nil
	c.joined = append(slices.DeleteFunc(c.joined, func(other *roomState) bool { return other == r }), r)
	if l.pause != nil {
		return
	}
	after, ok := retryIn(string(a.in.Data))
	if !ok {
		after = leastPause + fullJitter(l.refusals, c.random())
	}
	l.refused = true
	l.refusals++
	l.pause = time.AfterFunc(after, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		l.pause = nil
		c.joinLocked()
	})
}
