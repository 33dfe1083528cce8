package ws

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/room"
)

// membership is one client in one room.
type membership = room.Member[*Client]

// Room is a set of clients that messages are published to. Safe for concurrent
// use.
type Room struct {
	room *room.Room[*Client]
}

// ID returns the room's ID.
func (r *Room) ID() string { return r.room.ID() }

// Metadata returns a copy of what CreateRoom was given.
func (r *Room) Metadata() map[string]any { return r.room.Meta() }

// MemberCount returns how many clients are in the room.
func (r *Room) MemberCount() int { return r.room.Len() }

// CreateRoom creates an empty room with a copy of meta. It returns ErrRoomExists
// if there is one of that ID. A room that stays empty for
// RoomConfig.EmptyRoomTTL ends.
func (m *Manager) CreateRoom(id string, meta map[string]any) (*Room, error) {
	r, err := m.rooms.Create(id, meta)
	if err != nil {
		return nil, ErrRoomExists
	}
	m.metrics.SetRoomCount(m.rooms.Len())
	return &Room{r}, nil
}

// GetRoom returns the room of that ID.
func (m *Manager) GetRoom(id string) (*Room, bool) {
	r, ok := m.rooms.Get(id)
	if !ok {
		return nil, false
	}
	return &Room{r}, true
}

// GetRoomMembers returns the clients in the room, in no order, as they are at
// this moment; nil if there is no such room.
func (m *Manager) GetRoomMembers(id string) []*Client {
	r, ok := m.rooms.Get(id)
	if !ok {
		return nil
	}
	return r.Members()
}

// GetRoomCount returns how many rooms there are.
func (m *Manager) GetRoomCount() int { return m.rooms.Len() }

// DeleteRoom ends the room: every member leaves, and stays connected. What was
// published before is still delivered.
func (m *Manager) DeleteRoom(id string) {
	r, ok := m.rooms.Delete(id)
	if !ok {
		return
	}
	for _, c := range r.Members() {
		if mem := c.forgetRoom(r); mem != nil {
			r.Leave(mem)
			m.EventBus.publish(EventRoomLeft, c.ID, id)
		}
	}
	t := &dissolveTask{r}
	for i, s := range m.engine.Shards() {
		if r.LoopLen(i) > 0 {
			s.Post(t)
		}
	}
	m.metrics.SetRoomCount(m.rooms.Len())
	m.metrics.SetRoomMemberCount(id, 0)
}

// dissolveTask empties a deleted room's table on a loop.
type dissolveTask struct{ room *room.Room[*Client] }

func (t *dissolveTask) RunInLoop(s *engine.Shard) {
	t.room.DissolveInLoop(s.Index())
}

// reapRooms ends the rooms that have been empty for long.
func (m *Manager) reapRooms(now time.Time) {
	if len(m.rooms.ReapEmpty(now, m.cfg.Room.EmptyRoomTTL)) > 0 {
		m.metrics.SetRoomCount(m.rooms.Len())
	}
}

// JoinRoom makes the client a member of the room, which is created if it is
// missing. It returns ErrRoomFull, ErrAlreadyInRoom, or ErrConnectionClosed.
// Once it has returned, the client receives what is published to the room.
func (c *Client) JoinRoom(id string) error {
	m := c.manager
	if c.conn.Closed() {
		return ErrConnectionClosed // and creates no room
	}
	for {
		r, created := m.rooms.GetOrCreate(id)
		if created {
			m.metrics.SetRoomCount(m.rooms.Len())
		}
		err := c.enterRoom(r)
		if errors.Is(err, room.ErrDeleted) {
			continue // it ended just now; the next round creates it anew
		}
		if err != nil {
			return err
		}
		m.metrics.SetRoomMemberCount(id, r.Len())
		m.EventBus.publish(EventRoomJoined, c.ID, id)
		return nil
	}
}

// enterRoom puts c on the room's roster and posts the table's entry, in one
// step: with a leave at the same time, the tasks come in the order of the
// decisions.
func (c *Client) enterRoom(r *room.Room[*Client]) error {
	if !c.conn.Open() {
		return ErrConnectionClosed
	}
	slot := c.conn.Shard().Reserve()
	c.mu.Lock()
	defer c.mu.Unlock()
	mem, err := c.joinLocked(r)
	if err != nil {
		slot.Release()
		return err
	}
	c.rooms = append(c.rooms, mem)
	slot.Post((*joinTask)(mem))
	return nil
}

// joinLocked decides on a membership.
func (c *Client) joinLocked(r *room.Room[*Client]) (*membership, error) {
	if c.gone || !c.conn.Open() {
		return nil, ErrConnectionClosed
	}
	for _, mem := range c.rooms {
		if mem.Room() == r {
			return nil, ErrAlreadyInRoom
		}
	}
	mem, err := r.Join(c, c.conn.Shard().Index())
	if errors.Is(err, room.ErrFull) {
		return nil, ErrRoomFull
	}
	return mem, err
}

// LeaveRoom ends the membership. It has no effect on a client that is not in
// the room. What was published before is still delivered.
func (c *Client) LeaveRoom(id string) {
	r, ok := c.manager.rooms.Get(id)
	if !ok || !c.conn.Opened() || !c.exitRoom(r) {
		return
	}
	c.manager.metrics.SetRoomMemberCount(id, r.Len())
	c.manager.EventBus.publish(EventRoomLeft, c.ID, id)
}

// exitRoom is the reverse of enterRoom. It reports whether c was in the room.
func (c *Client) exitRoom(r *room.Room[*Client]) bool {
	slot := c.conn.Shard().Reserve()
	c.mu.Lock()
	defer c.mu.Unlock()
	mem := c.forgetRoomLocked(r)
	if mem == nil || !r.Leave(mem) {
		slot.Release()
		return false
	}
	slot.Post((*leaveTask)(mem))
	return true
}

// forgetRoom is forgetRoomLocked.
func (c *Client) forgetRoom(r *room.Room[*Client]) *membership {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forgetRoomLocked(r)
}

// forgetRoomLocked takes the membership of r off the client's list and returns
// it.
func (c *Client) forgetRoomLocked(r *room.Room[*Client]) *membership {
	for i, mem := range c.rooms {
		if mem.Room() == r {
			c.rooms = slices.Delete(c.rooms, i, i+1)
			return mem
		}
	}
	return nil
}

// GetRooms returns the IDs of the rooms that the client is in.
func (c *Client) GetRooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.rooms))
	for _, mem := range c.rooms {
		ids = append(ids, mem.Room().ID())
	}
	return ids
}

// leaveAllInLoop ends all memberships of a client whose connection has ended,
// and returns them.
func (c *Client) leaveAllInLoop() []*membership {
	c.mu.Lock()
	rooms := c.rooms
	c.rooms, c.gone = nil, true
	c.mu.Unlock()
	for _, mem := range rooms {
		r := mem.Room()
		r.RemoveInLoop(mem)
		if r.Leave(mem) {
			c.manager.metrics.SetRoomMemberCount(r.ID(), r.Len())
			c.manager.EventBus.publish(EventRoomLeft, c.ID, r.ID())
		}
	}
	return rooms
}

// joinTask puts a member into its loop's table.
type joinTask membership

func (t *joinTask) RunInLoop(*engine.Shard) {
	mem := (*membership)(t)
	mem.Room().InsertInLoop(mem)
}

// leaveTask takes a member out of its loop's table.
type leaveTask membership

func (t *leaveTask) RunInLoop(*engine.Shard) {
	mem := (*membership)(t)
	mem.Room().RemoveInLoop(mem)
}

// BroadcastToRoom queues msg, which is borrowed, as one text message for every
// member but exclude (nil excludes nobody). It returns ErrRoomNotFound, and
// ErrBroadcastTimeout if an event loop's ring stayed full: then nobody gets the
// message; ErrManagerStopped after Shutdown. In a handler that runs on an event
// loop it does not wait and returns ErrChannelFull.
//
// A member whose queue is full does not get the message, which is counted
// (Stats, Metrics); the others are not held up.
func (m *Manager) BroadcastToRoom(roomID string, msg []byte, exclude *Client) error {
	r, ok := m.rooms.Get(roomID)
	if !ok {
		return ErrRoomNotFound
	}
	return m.publish(r, engine.NewFrame(OpText, msg), exclude)
}

// BroadcastPrepared is BroadcastToRoom for a prepared message.
func (m *Manager) BroadcastPrepared(roomID string, p *Prepared, exclude *Client) error {
	r, ok := m.rooms.Get(roomID)
	if !ok {
		return ErrRoomNotFound
	}
	return m.publish(r, p.frame, exclude)
}

// publish posts one task to each loop that has members of the room.
func (m *Manager) publish(r *room.Room[*Client], f *engine.Frame, exclude *Client) error {
	var buf [16]*engine.Shard
	targets := buf[:0]
	for i, s := range m.engine.Shards() {
		if r.LoopLen(i) > 0 {
			targets = append(targets, s)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	b := &broadcast{manager: m, room: r, frame: f, exclude: exclude}
	b.begin(len(targets))
	return m.engine.Publish(b, targets)
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
	if len(targets) == 0 {
		return
	}
	b := &broadcast{manager: m, frame: engine.NewFrame(OpText, msg)}
	b.begin(len(targets))
	if err := m.engine.Publish(b, targets); err != nil {
		m.countDropped(m.GetClientCount())
		m.cfg.Logger.Warn("ws: BroadcastAll: nothing was sent", "error", err)
	}
}

// BroadcastToUser queues msg, which is borrowed, as one text message for every
// client of the user (WithUserID). Its cost grows with these, not with all
// connections. A client whose queue is full does not get it, which is counted.
func (m *Manager) BroadcastToUser(userID int64, msg []byte) {
	devices := m.clients.devices(userID)
	if len(devices) == 0 {
		return
	}
	f := engine.NewFrame(OpText, msg)
	for _, c := range devices {
		_ = c.conn.Send(f, engine.LaneNormal) // drops are counted where they happen
	}
}

// broadcast is the task that fans one frame out, the same on every loop.
type broadcast struct {
	manager *Manager
	room    *room.Room[*Client] // nil for all clients
	frame   *engine.Frame
	exclude *Client

	// For RecordBroadcastLatency; start is zero if nobody measures.
	start time.Time
	loops atomic.Int32 // loops that have not fanned out yet
}

// begin starts the clock if somebody measures.
func (b *broadcast) begin(loops int) {
	if b.manager.measures {
		b.start = time.Now()
		b.loops.Store(int32(loops))
	}
}

func (b *broadcast) RunInLoop(s *engine.Shard) {
	if b.room == nil {
		s.EachInLoop(func(c *engine.Conn) { c.DeliverInLoop(b.frame, engine.LaneNormal) })
	} else {
		for _, mem := range b.room.TableInLoop(s.Index()) {
			if mem.Value != b.exclude {
				mem.Value.conn.DeliverInLoop(b.frame, engine.LaneNormal)
			}
		}
	}
	if !b.start.IsZero() && b.loops.Add(-1) == 0 {
		b.manager.metrics.RecordBroadcastLatency(time.Since(b.start).Nanoseconds())
	}
}
