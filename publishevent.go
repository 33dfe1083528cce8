package ws

import (
	"context"
	"errors"
	"fmt"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/envelope"
	"github.com/qi-realtime/ws/pool"
)

// PublishEvent publishes a notification to every member of the room, with v encoded as JSON:
//
//	{"type":"notify","event":"chat.message","room":"r1","data":{...},"timestamp":1764083001}
//
// In a room with a history the message is kept, and has the field offset too. PublishEvent then
// returns its position, and all members get the messages of all publishers in the order of the
// offsets. Each member gets it, so Exclude, ConflateKey, TTL and HighPriority are refused
// there with ErrHistoryOption. In another room the Position is zero, and the options hold.
//
// It returns the errors of BroadcastToRoom, the error of ctx if that ends a wait for the ring of an
// event loop, and the encoding error of v. With an error nobody gets the message, and it is not
// kept. For a handler on an event loop see BroadcastToRoom. Safe for concurrent use.
func (m *Manager) PublishEvent(
	ctx context.Context, roomID, event string, v any, opts ...MessageOption,
) (Position, error) {
	r, notFound := m.roomToPublish(roomID)
	if notFound != nil && (r != nil || m.node == nil || errors.Is(notFound, ErrManagerStopped)) {
		return Position{}, notFound
	}
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	o := newMessageOptions(OpText, opts)
	var h *roomHistory
	if r != nil {
		h = r.Data().history
	}
	if h != nil && (o.exclude != nil || o.Handling != (engine.Handling{})) {
		return Position{}, ErrHistoryOption
	}
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	place, err := m.encodeNotify(buf, &envelope.Notify{Event: event, Room: roomID, Offset: h != nil && h.stored == nil}, v)
	if err != nil {
		return Position{}, err
	}
	p := &publication{payload: buf.B, messageOptions: o}
	switch {
	case r == nil:
		return Position{}, m.publishAway(roomID, p, notFound)
	case h.isStored():
		return m.node.publishStored(ctx, h, buf.B, place)
	case h == nil:
		_, err = m.publishIn(ctx, r, p)
		return Position{}, err
	}
	return m.publishToHistory(ctx, r, p, place)
}

// publishToHistory is publishKept for a room that may end meanwhile: an inbox then begins again.
func (m *Manager) publishToHistory(ctx context.Context, r *roomEntry, p *publication, place int) (Position, error) {
	for {
		h := r.Data().history
		p.room, p.Policy, p.Scope = r, engine.CatchUp, &r.Data().drops
		at, err := m.publishKept(ctx, h, p, place)
		if h.inbox == nil || !errors.Is(err, ErrRoomNotFound) {
			return at, err
		}
		if r, err = m.roomToPublish(p.room.ID()); err != nil {
			return Position{}, err
		}
	}
}

// roomToPublish is findRoom, but begins a missing inbox.
func (m *Manager) roomToPublish(id string) (*roomEntry, error) {
	r, err := m.findRoom(id)
	if err == nil || !m.isInbox(id) {
		return r, err
	}
	if err := firstError(m.stopped(), m.checkRoom(id)); err != nil {
		return nil, err
	}
	r, created, err := m.getOrCreateRoom(id, nil)
	if created {
		m.roomChanged(id)
	}
	return r, err
}

// encodeNotify appends n to buf, with v as its data; see Notify.Append for place.
func (m *Manager) encodeNotify(buf *pool.Buffer, n *envelope.Notify, v any) (place int, err error) {
	data, e, err := m.cfg.encodeJSON(v)
	defer e.release()
	if err != nil {
		return 0, fmt.Errorf("ws: encode data of %q: %w", n.Event, err)
	}
	n.Data = data
	buf.B, place = n.Append(buf.B[:0])
	return place, nil
}

// publishKept publishes a message of a history. place is the position of the offset in its
// payload.
func (m *Manager) publishKept(ctx context.Context, h *roomHistory, p *publication, place int) (Position, error) {
	b := &broadcast{
		manager: m, room: p.room, frame: p.frame(), sample: m.engine.SamplePublish(),
	}
	return m.keepAndPost(ctx, h, p, b, place)
}

// keepAndPost is publishKept with the broadcast of the message. A broadcast with an offset comes from
// a store: the offset is greater than Log.Top, and place has no effect. Without a frame it says that
// the messages up to the offset are lost.
func (m *Manager) keepAndPost(
	ctx context.Context, h *roomHistory, p *publication, b *broadcast, place int,
) (Position, error) {
	var buf [16]*engine.Shard
	for {
		targets := p.targets(m.engine.Shards(), buf[:0])
		reserved, err := m.engine.ReserveAll(ctx, targets)
		if err != nil {
			return Position{}, err
		}
		at, posted, err := h.post(b, reserved, targets, place)
		if err != nil {
			return Position{}, err
		}
		if posted {
			p.room.Data().published.count(m.engine.Clock())
			h.reportLost()
			m.keepBudget()
			return at, nil
		}
	}
}

// post keeps the message of b, and posts b to the targets. It returns false, and gives the
// reservations back, if a loop has got its first member since the targets were chosen. It returns
// ErrRoomNotFound if the room has ended meanwhile.
func (h *roomHistory) post(
	b *broadcast, reserved engine.Reservations, targets []*engine.Shard, place int,
) (at Position, posted bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case b.room.Deleted():
		reserved.Release()
		return Position{}, false, ErrRoomNotFound
	case !covers(targets, b.room):
		reserved.Release()
		return Position{}, false, nil
	}
	h.keepLocked(b, place)
	if len(targets) == 0 {
		b.complete()
		return h.positionLocked(), true, nil
	}
	b.begin(len(targets))
	reserved.Post(b)
	return h.positionLocked(), true, nil
}

// keepLocked stores the message of b, and numbers it if it has no offset: it writes the offset into
// the payload.
func (h *roomHistory) keepLocked(b *broadcast, place int) {
	b.prev = h.log.Top()
	switch {
	case b.frame == nil:
		if h.stored != nil && h.stored.fresh != nil {
			h.installLocked(h.stored.fresh)
		}
		h.log.Skip(b.offset)
		h.weighLocked()
		return
	case b.offset == 0:
		var digits [envelope.OffsetWidth]byte
		b.offset = b.prev + 1
		b.frame.Overwrite(place, envelope.AppendOffset(digits[:0], b.offset))
	}
	h.appendLocked(b.offset, b.frame, h.all.clock())
}

// covers reports whether the targets, in the order of the loops, include all loops with members
// of r.
func covers(targets []*engine.Shard, r *roomEntry) bool {
	for loop := range r.Loops {
		for len(targets) > 0 && targets[0].Index() < loop {
			targets = targets[1:]
		}
		if len(targets) == 0 || targets[0].Index() != loop {
			return false
		}
	}
	return true
}

// Publish is Manager.PublishEvent with v of the event's type. Safe for concurrent use.
func (e TypedEvent[T]) Publish(ctx context.Context, roomID string, v T, opts ...MessageOption) (Position, error) {
	return e.manager.PublishEvent(ctx, roomID, e.name, v, opts...)
}

// Send sends the event to one client, as a notification without a room. It returns the errors of
// Client.Send, and the encoding error of v. Safe for concurrent use.
func (e TypedEvent[T]) Send(c *Client, v T, opts ...MessageOption) error {
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	if _, err := e.manager.encodeNotify(buf, &envelope.Notify{Event: e.name}, v); err != nil {
		return err
	}
	return c.Send(buf.B, opts...)
}
