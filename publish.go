package ws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

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
// What happens to the message for a member whose queue is full is said by the
// OverflowPolicy; the others are not held up. Publish reports on it.
func (m *Manager) BroadcastToRoom(roomID string, msg []byte, exclude *Client) error {
	r, err := m.findRoom(roomID)
	if err != nil {
		return err
	}
	d := r.Data()
	f := engine.NewFrame(OpText, msg, engine.Handling{Policy: d.policy, Scope: &d.drops})
	return m.publish(context.Background(), r, f, exclude, nil)
}

// BroadcastPrepared is BroadcastToRoom for a prepared message.
func (m *Manager) BroadcastPrepared(roomID string, p *Prepared, exclude *Client) error {
	r, err := m.findRoom(roomID)
	if err != nil {
		return err
	}
	d := r.Data()
	return m.publish(context.Background(), r, p.frame.In(d.policy, &d.drops), exclude, nil)
}

// Publish is BroadcastToRoom with options, and with a report of how many
// members the message was queued for.
func (m *Manager) Publish(roomID string, msg []byte, opts ...MessageOption) (Delivery, error) {
	return m.PublishContext(context.Background(), roomID, msg, opts...)
}

// PublishContext is Publish; where that waits because an event loop's ring is
// full, the wait also ends with ctx, whose error it then returns. Nobody gets
// the message then.
func (m *Manager) PublishContext(ctx context.Context, roomID string, msg []byte, opts ...MessageOption) (Delivery, error) {
	r, err := m.findRoom(roomID)
	if err != nil {
		return Delivery{}, err
	}
	if err := ctx.Err(); err != nil {
		return Delivery{}, err
	}
	o := newMessageOptions(OpText, opts)
	d := r.Data()
	o.Policy, o.Scope = d.policy, &d.drops
	report := &deliveryReport{done: make(chan struct{})}
	if err := m.publish(ctx, r, engine.NewFrame(o.op, msg, o.Handling), o.exclude, report); err != nil {
		return Delivery{}, err
	}
	return Delivery{report}, nil
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

// publish posts one task to each loop that has members of the room. report may
// be nil.
func (m *Manager) publish(ctx context.Context, r *roomEntry, f *engine.Frame, exclude *Client, report *deliveryReport) error {
	var buf [16]*engine.Shard
	targets := buf[:0]
	for i, s := range m.engine.Shards() {
		if r.LoopLen(i) > 0 {
			targets = append(targets, s)
		}
	}
	b := &broadcast{manager: m, room: r, frame: m.engine.Stamp(f), exclude: exclude, report: report}
	return b.post(ctx, targets)
}

// BroadcastAll queues msg, which is borrowed, as one text message for every
// client that is connected when it is called; one that connects while it is on
// its way may get it, too. If an event loop's ring stays full for
// BroadcastConfig.Timeout, nobody gets the message: that is logged and counted
// as one dropped message for each client.
func (m *Manager) BroadcastAll(msg []byte) {
	var buf [16]*engine.Shard
	targets := buf[:0]
	for _, s := range m.engine.Shards() {
		if s.Connections() > 0 {
			targets = append(targets, s)
		}
	}
	b := &broadcast{manager: m, frame: engine.NewFrame(OpText, msg, engine.Handling{})}
	if err := b.post(context.Background(), targets); err != nil {
		for _, s := range targets {
			s.CountRefused(s.Connections())
		}
		m.cfg.Logger.Warn("ws: BroadcastAll: nothing was sent", "error", err)
	}
}

// BroadcastToUser queues msg, which is borrowed, as one text message for every
// client of the user (WithUserID), the user's devices. Its cost grows with these,
// not with all connections, and it takes one place in the ring of each event loop
// that has some. It returns ErrBroadcastTimeout if a loop's ring stayed full: then
// no device gets the message; ErrManagerStopped after Shutdown. A user without a
// device is no error. A device whose queue is full is treated by the
// OverflowPolicy. For a handler on an event loop see BroadcastToRoom.
func (m *Manager) BroadcastToUser(userID int64, msg []byte) error {
	if err := m.stopped(); err != nil {
		return err
	}
	devices := m.clients.devices(user{id: userID})
	if len(devices) == 0 {
		return nil
	}
	return m.publishToDevices(devices, engine.NewFrame(OpText, msg, engine.Handling{}), nil)
}

// PublishToUser is BroadcastToUser with options, and with a report of how many
// devices the message was queued for. Exclude leaves out one of them. name is the name given to
// WithUser, or the decimal text of the ID given to WithUserID.
func (m *Manager) PublishToUser(name string, msg []byte, opts ...MessageOption) (Delivery, error) {
	if err := m.stopped(); err != nil {
		return Delivery{}, err
	}
	o := newMessageOptions(OpText, opts)
	devices := m.clients.devices(userNamed(name))
	devices = slices.DeleteFunc(devices, func(c *Client) bool { return c == o.exclude })
	report := &deliveryReport{done: make(chan struct{})}
	if err := m.publishToDevices(devices, engine.NewFrame(o.op, msg, o.Handling), report); err != nil {
		return Delivery{}, err
	}
	return Delivery{report}, nil
}

// publishToDevices posts one task to each loop that has some of the devices, which
// are owned by the task then.
func (m *Manager) publishToDevices(devices []*Client, f *engine.Frame, report *deliveryReport) error {
	var buf [16]*engine.Shard
	targets := buf[:0]
	for _, c := range devices {
		if s := c.conn.Shard(); !slices.Contains(targets, s) {
			targets = append(targets, s)
		}
	}
	// Publishers of several rings hold and wait in the order of the loops.
	slices.SortFunc(targets, func(a, b *engine.Shard) int { return cmp.Compare(a.Index(), b.Index()) })
	b := &broadcast{manager: m, devices: devices, frame: m.engine.Stamp(f), report: report}
	return b.post(context.Background(), targets)
}

// broadcast is the task that fans one frame out, the same on every loop.
type broadcast struct {
	manager *Manager
	room    *roomEntry // nil for all clients, or devices
	devices []*Client  // of one user, on all loops; nil otherwise
	frame   *engine.Frame
	exclude *Client
	report  *deliveryReport // nil if nobody wants one

	start time.Time    // for RecordBroadcastLatency; zero if nobody measures
	loops atomic.Int32 // loops that have not fanned out yet
}

// post hands b to the loops.
func (b *broadcast) post(ctx context.Context, targets []*engine.Shard) error {
	if len(targets) == 0 {
		b.complete()
		return nil
	}
	if b.manager.measures {
		b.start = time.Now()
	}
	b.loops.Store(int32(len(targets)))
	return b.manager.engine.Publish(ctx, b, targets)
}

// RunInLoop fans out to the members on one loop, in several turns if they are many.
func (b *broadcast) RunInLoop(s *engine.Shard) {
	w := &b.manager.walks[s.Index()]
	if w.task != b {
		*w = fanOutWalk{task: b}
		s.NoteOfferInLoop(b.frame)
	}
	var n fanOutCount
	var done bool
	switch {
	case b.devices != nil:
		n, done = w.devices(s)
	case b.room == nil:
		n, done = b.all(s)
	default:
		n, done = w.members(s)
	}
	if b.report != nil {
		b.report.queued.Add(n.queued)
		b.report.dropped.Add(n.visited - n.queued)
	}
	if !done {
		s.SuspendInLoop(b)
		return
	}
	*w = fanOutWalk{}
	if b.loops.Add(-1) == 0 {
		b.complete()
	}
}

// AbandonTask takes the place of RunInLoop on a loop that has ended, which has
// no members any more.
func (b *broadcast) AbandonTask(*engine.Shard) {
	if b.loops.Add(-1) == 0 {
		b.complete()
	}
}

// complete notes that the last loop has fanned out.
func (b *broadcast) complete() {
	if b.report != nil {
		close(b.report.done)
	}
	if !b.start.IsZero() {
		b.manager.metrics.RecordBroadcastLatency(time.Since(b.start).Nanoseconds())
	}
}
