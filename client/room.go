package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// Room is a room as a client sees it. It comes from Client.Room. Immutable; its methods are safe
// for concurrent use.
type Room struct {
	c    *Client
	name string
}

// roomState is the state of a room. The client forgets it when the room is neither joined nor has
// callbacks. Guarded by Client.mu.
type roomState struct {
	c    *Client // immutable
	name string  // immutable

	handlers handlers
	onGap    []*func(Gap)
	onLost   []*func(error)

	wanted   bool // from Join until Leave
	left     bool // after Leave
	term     int  // grows with each join and its end; answers of older joins are ignored
	options  joinData
	resolve  func(answer) // of a Join that waits, or nil
	accepted bool         // the server has answered a join
	target   *link        // on which the last join was sent; nil if it must be sent again
	source   *link        // that messages are read from; nil until a join is answered
	before   *link        // the source before the last join, during a move
	cursor   cursor
	acks     acks
}

// Room returns the room with a name. Its callbacks and its membership are those of the client: two
// calls with the same name return the same room.
func (c *Client) Room(name string) *Room { return &Room{c, name} }

// roomLocked returns the state of a room, which begins if need be.
func (c *Client) roomLocked(name string) *roomState {
	r := c.rooms[name]
	if r == nil {
		r = &roomState{c: c, name: name, handlers: make(handlers)}
		c.rooms[name] = r
	}
	return r
}

// forgetLocked ends the state of a room that is of no more use.
func (r *roomState) forgetLocked() {
	if !r.wanted && len(r.handlers) == 0 && len(r.onGap) == 0 && len(r.onLost) == 0 && r.c.rooms[r.name] == r {
		delete(r.c.rooms, r.name)
	}
}

// Name returns the name.
func (r *Room) Name() string { return r.name }

// On registers a callback for the room's notifications of an event. off removes it. The client keeps
// a room as long as it has callbacks, also after Leave.
func (r *Room) On(event string, fn func(Notify)) (off func()) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	st := r.c.roomLocked(r.name)
	return r.c.offLocked(st.handlers.addLocked(event, fn), st.forgetLocked)
}

// OnGap registers a callback for messages that are lost. It runs in its place among the
// notifications: before those that follow the gap. off removes it.
func (r *Room) OnGap(fn func(Gap)) (off func()) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	st := r.c.roomLocked(r.name)
	return r.c.offLocked(addLocked(&st.onGap, fn), st.forgetLocked)
}

// OnLost registers a callback for the end of the membership without Leave: after a reconnect the
// server has refused the join, with the *[ServerError] that fn gets. With [Strict] its code is 409
// if the position is lost. Codes 429 and from 500 on do not end the membership: the client sends the
// join again later. fn may call Join in a goroutine of its own. off removes fn.
func (r *Room) OnLost(fn func(err error)) (off func()) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	st := r.c.roomLocked(r.name)
	return r.c.offLocked(addLocked(&st.onLost, fn), st.forgetLocked)
}

// Position returns the position behind the last message that was received. Its callback may
// not have run yet: see Notify.Position to store positions. Read it before Leave: after that the
// client may have forgotten it.
func (r *Room) Position() Position {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if st := r.c.rooms[r.name]; st != nil {
		return st.cursor.Position
	}
	return Position{}
}

// Leave leaves the room, and waits for the server's answer. Messages that arrive later are
// dropped. While there is no connection it returns at once. It returns nil if the client is not in the room.
func (r *Room) Leave(ctx context.Context) error {
	answers := make(chan answer, 2)
	r.c.mu.Lock()
	if r.c.state.Phase == Closed {
		defer r.c.mu.Unlock()
		return fmt.Errorf("client: leave %q: %w", r.name, r.c.closedLocked())
	}
	st := r.c.rooms[r.name]
	asked := 0
	if st != nil && st.wanted {
		asked = st.leaveLocked(answer{err: context.Canceled}, func(a answer) { answers <- a })
	}
	r.c.mu.Unlock()
	var err error
	for range asked {
		select {
		case a := <-answers:
			if a.err == nil { // otherwise the end of the connection has ended the membership
				err = cmp.Or(err, a.decode("leave "+r.name, nil))
			}
		case <-ctx.Done():
			return fmt.Errorf("client: leave %q: %w", r.name, ctx.Err())
		}
	}
	return err
}

func (r *roomState) resolveLocked(a answer) {
	if resolve := r.resolve; resolve != nil {
		r.resolve = nil
		resolve(a)
	}
}

// stopLocked ends the membership; a is the answer to a Join that waits.
func (r *roomState) stopLocked(a answer) {
	r.endAcksLocked()
	r.wanted, r.source, r.target, r.before = false, nil, nil, nil
	r.term++
	r.c.joined = slices.DeleteFunc(r.c.joined, func(other *roomState) bool { return other == r })
	r.resolveLocked(a)
	r.forgetLocked()
}

// leaveLocked ends the membership and asks the server for it, on each connection that has joined.
// done gets the answers; leaveLocked returns their number.
func (r *roomState) leaveLocked(a answer, done func(answer)) (asked int) {
	in := []*link{r.before, r.source, r.target}
	r.stopLocked(a)
	r.left = true
	for _, l := range []*link{r.c.next, r.c.current} {
		if l == nil || !slices.Contains(in, l) {
			continue
		}
		if r.c.askLocked(l, eventLeave, joinData{Room: r.name}, func(a answer) {
			if done != nil {
				done(a)
			}
		}) {
			asked++
		}
	}
	return asked
}

// takesPlainLocked reports whether messages without an offset are of use.
func (r *roomState) takesPlainLocked() bool { return !r.left && (!r.wanted || r.source != nil) }

// deliverPlainLocked queues the callbacks for a message without an offset. A gap without a place in
// the history comes in its place among these messages, and does not move the position.
func (r *roomState) deliverPlainLocked(in *incoming) {
	var d gapData
	switch {
	case in.Event != eventGap:
		r.handlers.deliverLocked(r.c, in.notify())
	case json.Unmarshal(in.Data, &d) == nil:
		r.reportLocked(Gap{Reason: d.Reason})
	}
}

// receiveLocked handles a notification of the history.
func (r *roomState) receiveLocked(l *link, in *incoming) {
	n := in.notify()
	switch {
	case r.left, r.wanted && r.source != l:
		return // after Leave, or from a connection that was replaced
	case in.Event == eventGap:
		r.gapLocked(in.Data)
		return
	case r.wanted:
		isNew, gap := r.cursor.message(in.Offset, in.prev())
		if !isNew {
			return
		}
		if gap != nil {
			r.reportLocked(*gap)
		}
		n.Position = r.cursor.Position
	default: // the server has joined the client to the room
		n.Position.Offset = in.Offset
	}
	r.handlers.deliverLocked(r.c, n)
	r.autoAckLocked()
}

// gapLocked handles ws.gap.
func (r *roomState) gapLocked(data json.RawMessage) {
	var d gapData
	if json.Unmarshal(data, &d) != nil || d.Next < 1 {
		return
	}
	epoch := r.cursor.Epoch
	g, isNew := Gap{Epoch: d.Epoch, After: d.After, Next: d.Next, Reason: d.Reason}, true
	if r.wanted {
		g, isNew = r.cursor.gap(g)
	}
	if !isNew {
		return
	}
	if r.cursor.Epoch != epoch || r.cursor.Offset < r.acks.offset {
		r.acks.offset, r.acks.sent = 0, 0 // they were of another history
	}
	r.reportLocked(g)
	r.autoAckLocked()
}

func (r *roomState) reportLocked(g Gap) {
	g.Room = r.name
	for _, fn := range r.onGap {
		r.c.callLocked(func() { (*fn)(g) })
	}
}
