package ws

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/qi-realtime/ws/engine"
)

// BroadcastToRoom queues msg, which is borrowed, as one text message for every
// member but exclude (nil excludes nobody). It returns ErrRoomNotFound, and
// ErrBroadcastTimeout if an event loop's ring stayed full: then nobody gets the
// message; ErrManagerStopped after Shutdown.
//
// In a handler that runs on an event loop it does not wait. If a ring is full, the
// message is kept in its place beside the ring, and the client whose message is
// being handled waits: its connection is not read until the message has been fanned
// out. Only beyond 1,024 such messages for one message of a client does it return
// ErrChannelFull.
//
// The OverflowPolicy decides on the message for a member whose queue is full; the others are
// not held up. Publish reports on it.
//
// With a Broker it reaches the members on all nodes: a room that only other nodes have is no error,
// and ErrBrokerUnavailable is returned at once while they cannot be reached; see WithBroker.
func (m *Manager) BroadcastToRoom(roomID string, msg []byte, exclude *Client) error {
	_, err := m.publishToRoom(context.Background(), roomID, &publication{
		payload: msg, messageOptions: messageOptions{op: OpText, exclude: exclude},
	})
	return err
}

// BroadcastPrepared is BroadcastToRoom for a prepared message.
func (m *Manager) BroadcastPrepared(roomID string, p *Prepared, exclude *Client) error {
	_, err := m.publishToRoom(context.Background(), roomID, &publication{
		prepared: p, messageOptions: messageOptions{exclude: exclude},
	})
	return err
}

// Publish is BroadcastToRoom with options, and with a report of the number of members for
// which the message was queued.
func (m *Manager) Publish(roomID string, msg []byte, opts ...MessageOption) (Delivery, error) {
	return m.PublishContext(context.Background(), roomID, msg, opts...)
}

// PublishContext is Publish with a context: a wait for the full ring of an event loop also
// ends with ctx. Then it returns the error of ctx, and nobody gets the message.
func (m *Manager) PublishContext(
	ctx context.Context, roomID string, msg []byte, opts ...MessageOption,
) (Delivery, error) {
	return m.publishToRoom(ctx, roomID, &publication{
		payload: msg, messageOptions: newMessageOptions(OpText, opts), reported: true,
	})
}

// findRoom returns the room to publish to. The error after Shutdown is both
// ErrManagerStopped and, without such a room, ErrRoomNotFound: most rooms have ended
// with their members.
func (m *Manager) findRoom(id string) (*roomEntry, error) {
	r, ok := m.rooms.Get(id)
	err := m.stopped()
	switch {
	case ok:
		return r, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", err, ErrRoomNotFound)
	}
	return nil, ErrRoomNotFound
}

// BroadcastAll queues msg, which is borrowed, as one text message for every
// client that is connected when it is called; one that connects while it is on
// its way may get it, too. If an event loop's ring stays full for
// BroadcastConfig.Timeout, nobody gets the message: that is logged and counted
// as one dropped message for each client.
func (m *Manager) BroadcastAll(msg []byte) {
	p := &publication{payload: msg, messageOptions: messageOptions{op: OpText}}
	if _, err := m.publish(context.Background(), p); err != nil {
		for _, s := range m.engine.Shards() {
			s.CountRefused(s.Connections())
		}
		m.cfg.Logger.Warn("ws: BroadcastAll: nothing was sent", slog.Any("error", err))
	}
}

// BroadcastToUser queues msg, which is borrowed, as one text message for every
// client of the user (WithUserID), the user's devices. Its cost grows with the devices, not
// with all connections, and it takes one place in the ring of each event loop that has
// devices. It returns ErrBroadcastTimeout if a loop's ring stayed full: then no device gets
// the message; ErrManagerStopped after Shutdown. A user without a device is no error. The
// OverflowPolicy decides for a device whose queue is full. For a handler on an event loop
// see BroadcastToRoom.
func (m *Manager) BroadcastToUser(userID int64, msg []byte) error {
	_, err := m.publishToUser(user{id: userID}, &publication{payload: msg, messageOptions: messageOptions{op: OpText}})
	return err
}

// PublishToUser is BroadcastToUser with options, and with a report of the number of devices
// for which the message was queued. Exclude leaves out one device. name is the name given to
// WithUser, or the decimal text of the ID given to WithUserID.
func (m *Manager) PublishToUser(name string, msg []byte, opts ...MessageOption) (Delivery, error) {
	return m.publishToUser(userNamed(name), &publication{
		payload: msg, messageOptions: newMessageOptions(OpText, opts), reported: true,
	})
}

// publication is one message for many clients: its payload and handling, and its
// recipients, which are the members of a room, the devices of a user, or all clients.
type publication struct {
	messageOptions
	payload  []byte    // borrowed
	prepared *Prepared // in place of op and payload, or nil
	reported bool      // the caller wants a Delivery
	received bool      // from another node

	room    *roomEntry // nil for devices or all clients
	devices []*Client  // of one user, on all loops; owned
	user    user
	toUser  bool
}

func (m *Manager) publishToRoom(ctx context.Context, roomID string, p *publication) (Delivery, error) {
	r, err := m.findRoom(roomID)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Delivery{}, m.publishAway(roomID, p, err)
	}
	return m.publishIn(ctx, r, p)
}

// publishIn publishes a message that is not kept.
func (m *Manager) publishIn(ctx context.Context, r *roomEntry, p *publication) (Delivery, error) {
	p.in(r)
	delivery, err := m.publish(ctx, p)
	if err == nil {
		r.Data().published.count(m.engine.Clock())
	}
	return delivery, err
}

// in makes the members of r the recipients.
func (p *publication) in(r *roomEntry) {
	d := r.Data()
	p.room, p.Policy, p.Scope = r, engine.Policy(d.policy), &d.drops
	if d.policy == CatchUp { // the message is not of the history
		p.Policy = 0
	}
}

func (m *Manager) publishToUser(u user, p *publication) (Delivery, error) {
	if err := m.stopped(); err != nil {
		return Delivery{}, err
	}
	p.toUser, p.user, p.devices = true, u, m.clients.devices(u)
	if p.exclude != nil {
		p.devices = slices.DeleteFunc(p.devices, func(c *Client) bool { return c == p.exclude })
	}
	return m.publish(context.Background(), p)
}

// publish publishes to the clients of this manager and, with a Broker, to those of other nodes.
func (m *Manager) publish(ctx context.Context, p *publication) (Delivery, error) {
	if m.node != nil && !p.received {
		return m.node.publish(ctx, p)
	}
	return m.publishHere(ctx, p)
}

// publishHere encodes the message once, and posts one task to each loop that has recipients.
func (m *Manager) publishHere(ctx context.Context, p *publication) (Delivery, error) {
	sample := m.engine.SamplePublish()
	var buf [16]*engine.Shard
	targets := p.targets(m.engine.Shards(), buf[:0])
	b := &broadcast{
		manager: m, room: p.room, devices: p.devices, exclude: p.exclude, frame: m.engine.Stamp(p.frame()),
		sample: sample,
	}
	if p.reported {
		b.report = &deliveryReport{done: make(chan struct{})}
	}
	if err := b.post(ctx, targets); err != nil {
		return Delivery{}, err
	}
	return Delivery{b.report}, nil
}

// targets appends the shards that have recipients to dst, in the order of the loops,
// because publishers hold and wait for several rings in that order.
func (p *publication) targets(shards, dst []*engine.Shard) []*engine.Shard {
	if p.room != nil {
		for loop := range p.room.Loops {
			dst = append(dst, shards[loop])
		}
		return dst
	}
	for _, s := range shards {
		var recipients bool
		switch {
		case p.toUser:
			recipients = slices.ContainsFunc(p.devices, func(c *Client) bool { return c.conn.Shard() == s })
		default:
			recipients = s.Connections() > 0
		}
		if recipients {
			dst = append(dst, s)
		}
	}
	return dst
}

// frame returns the encoded message.
func (p *publication) frame() *engine.Frame {
	if p.prepared != nil {
		return p.prepared.frame.In(p.Policy, p.Scope)
	}
	return newFrame(p.op, p.payload, p.Handling)
}

// Delivery is the report on one published message. The event loops fan out after Publish has
// returned, each to the members that it owns; the report is complete when the last loop has
// finished, in general within a millisecond. It counts queued messages, not arrived ones: a
// slow client may lose a queued message later, and Stats and Room.Drops count that. A message
// that is lost in the step that queues it counts as dropped: the QueueBudget may drop this
// very message, or close its client. Members on other nodes of a cluster do not count. Safe for concurrent use.
type Delivery struct {
	report *deliveryReport // nil for no message
}

// deliveryReport is shared with the event loops.
type deliveryReport struct {
	queued, dropped atomic.Int64
	done            chan struct{}
}

// closed is the Done of a Delivery without a report.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done returns a channel that is closed when the report is complete, or when no event loop
// can add to it because the manager has stopped.
func (d Delivery) Done() <-chan struct{} {
	if d.report == nil {
		return closed
	}
	return d.report.done
}

// Wait waits until the report is complete, or returns the error of ctx if that
// ends first. It must not be called on an event loop, by an inline handler.
func (d Delivery) Wait(ctx context.Context) error {
	select {
	case <-d.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Queued returns the number of members for which the message was queued so far. Members
// whose older message of the same ConflateKey it replaced are included.
func (d Delivery) Queued() int {
	if d.report == nil {
		return 0
	}
	return int(d.report.queued.Load())
}

// Dropped returns the number of members for which the message was dropped so far: their queue
// was full, all queues together were over the budget, or they are closing.
func (d Delivery) Dropped() int {
	if d.report == nil {
		return 0
	}
	return int(d.report.dropped.Load())
}
