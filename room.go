package ws

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/room"
)

// roomEntry is a room of the directory, and membership is one client in it.
type (
	roomEntry  = room.Room[*Client, roomData]
	membership = room.Member[*Client, roomData]
)

// roomData holds the Manager's part of a room.
type roomData struct {
	meta      map[string]any // immutable
	policy    OverflowPolicy // immutable; 0 is the manager's
	drops     engine.Drops
	published meter
}

// Room is a set of clients that messages are published to. Safe for concurrent
// use.
type Room struct {
	manager *Manager
	room    *roomEntry
}

// RoomOption sets a property of one room when it is created.
type RoomOption func(*roomData)

// WithRoomOverflowPolicy sets the policy for messages of the room to members whose queue is
// full, in place of Config.OverflowPolicy.
func WithRoomOverflowPolicy(p OverflowPolicy) RoomOption {
	return func(d *roomData) { d.policy = p }
}

// ID returns the room's ID.
func (r *Room) ID() string { return r.room.ID() }

// Metadata returns a copy of the metadata that CreateRoom was given.
func (r *Room) Metadata() map[string]any { return maps.Clone(r.room.Data().meta) }

// MemberCount returns the number of clients in the room.
func (r *Room) MemberCount() int { return r.room.Len() }

// Drops counts the messages of the room that members did not get.
func (r *Room) Drops() DropCounts { return DropCounts(r.room.Data().drops.Counts()) }

// PublishRate returns the number of messages that were published to the room a second,
// averaged over about ten seconds: older messages count less.
func (r *Room) PublishRate() float64 { return r.room.Data().published.rate(r.manager.engine.Clock()) }

// CreateRoom creates an empty room with a copy of meta. It returns ErrRoomExists
// if there is one of that ID, ErrInvalidConfig for an option out of range,
// ErrInvalidRoom for an ID that is too long, and ErrManagerStopped after Shutdown.
//
// A room that stays empty for RoomConfig.EmptyRoomTTL ends, with its meta and its options: a
// later JoinRoom makes a room without them. EventRoomEnded reports the end. To have them
// again, call CreateRoom before each JoinRoom and ignore ErrRoomExists.
func (m *Manager) CreateRoom(id string, meta map[string]any, opts ...RoomOption) (*Room, error) {
	if err := m.stopped(); err != nil {
		return nil, err
	}
	if err := m.checkRoom(id); err != nil {
		return nil, err
	}
	made := roomData{meta: maps.Clone(meta)}
	for _, opt := range opts {
		opt(&made)
	}
	if err := validatePolicy("RoomOverflowPolicy", made.policy); err != nil {
		return nil, err
	}
	r, err := m.rooms.Create(id, func(d *roomData) { d.meta, d.policy = made.meta, made.policy })
	if err != nil {
		return nil, ErrRoomExists
	}
	m.roomChanged(id)
	return &Room{m, r}, nil
}

// checkRoom returns an error if a room of that ID cannot be made.
func (m *Manager) checkRoom(id string) error {
	if most := m.cfg.Room.MaxRoomName; most > 0 && len(id) > most {
		return ErrInvalidRoom
	}
	return nil
}

// GetRoom returns the room of that ID.
func (m *Manager) GetRoom(id string) (*Room, bool) {
	r, ok := m.rooms.Get(id)
	if !ok {
		return nil, false
	}
	return &Room{m, r}, true
}

// RangeRooms calls fn for every room, in no order, until it returns false. No lock is held
// meanwhile. A room that begins or ends meanwhile may be visited or not.
func (m *Manager) RangeRooms(fn func(*Room) bool) {
	m.rooms.Range(func(r *roomEntry) bool { return fn(&Room{m, r}) })
}

// GetRoomMembers returns the present members of the room, in no order; nil if there is no
// such room.
func (m *Manager) GetRoomMembers(id string) []*Client {
	r, ok := m.rooms.Get(id)
	if !ok {
		return nil
	}
	return r.Members()
}

// GetRoomCount returns the number of rooms.
func (m *Manager) GetRoomCount() int { return m.rooms.Len() }

// DeleteRoom ends the room, and never waits: every member leaves, and stays connected. Messages
// that were published before are still delivered.
func (m *Manager) DeleteRoom(id string) {
	r, ok := m.rooms.Delete(id)
	if !ok {
		return
	}
	for _, c := range r.Members() {
		c.leaveDeleted(r)
	}
	t := &dissolveTask{r}
	for loop := range r.Loops {
		m.engine.Shards()[loop].Post(t)
	}
	m.roomChanged(id)
}

// roomChanged reports to Metrics that a room of that ID was created or has ended.
func (m *Manager) roomChanged(id string) {
	m.changed(roomCount, "")
	m.changed(roomMembers, id)
}

// dissolveTask empties a deleted room's table on a loop.
type dissolveTask struct{ room *roomEntry }

func (t *dissolveTask) RunInLoop(s *engine.Shard) {
	for !t.room.DissolveSomeInLoop(s.Index(), dissolveStep) {
		s.NoteWorkInLoop(dissolveStep * dissolveWork)
		if s.OutOfTimeInLoop() {
			s.SuspendInLoop(t)
			return
		}
	}
}

const (
	dissolveStep = 64  // members that leave a table between two checks of the turn's time
	dissolveWork = 128 // work for each, in bytes written
)

// endEmptyRooms ends the rooms that have been empty for long.
func (m *Manager) endEmptyRooms(now time.Time) {
	for _, r := range m.rooms.DeleteEmpty(now, m.cfg.Room.EmptyRoomTTL) {
		m.roomChanged(r.ID())
	}
}

// JoinRoom makes the client a member of the room, which is created if it is
// missing, and then ends with its last member. It returns ErrRoomFull, ErrAlreadyInRoom,
// ErrTooManyRooms, ErrInvalidRoom, or ErrConnectionClosed; and ErrBroadcastTimeout if the
// ring of the client's event loop stays full. It waits for the ring, for
// BroadcastConfig.Timeout at most, unless it is called on an event loop. With an error it
// has no effect. The client receives all messages that are published to the room after
// JoinRoom has returned.
func (c *Client) JoinRoom(id string) error {
	m := c.manager
	if !c.conn.Open() {
		return ErrConnectionClosed
	}
	if err := m.checkRoom(id); err != nil {
		return err
	}
	reservation, err := c.conn.Shard().Reserve()
	if err != nil {
		return err
	}
	created, err := c.enterRoom(id, reservation)
	if created {
		m.changed(roomCount, "")
	}
	if err == nil {
		m.changed(roomMembers, id)
	}
	return err
}

// enterRoom puts c on the room's roster and posts the table's entry in one step: with a
// leave at the same time, the tasks come in the order of the decisions.
func (c *Client) enterRoom(id string, reservation engine.Reservation) (created bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mem, created, err := c.joinLocked(id)
	if err != nil {
		reservation.Release()
		return created, err
	}
	c.addRoomLocked(mem)
	reservation.Post((*joinTask)(mem))
	return created, nil
}

// joinLocked decides on a membership, and creates a missing room.
func (c *Client) joinLocked(id string) (mem *membership, created bool, err error) {
	if c.ending&gone != 0 || !c.conn.Open() {
		return nil, false, ErrConnectionClosed
	}
	old, rooms := c.roomLocked(id)
	if old != nil && !old.Room().Deleted() {
		return nil, false, ErrAlreadyInRoom
	}
	if old != nil { // DeleteRoom has not reached this member yet
		c.leaveDeletedLocked(old.Room())
		rooms--
	}
	if most := c.manager.cfg.Room.MaxRoomsPerClient; most > 0 && rooms >= most {
		return nil, false, ErrTooManyRooms
	}
	for {
		r, made := c.manager.rooms.GetOrCreate(id)
		created = created || made
		mem, err = r.Join(c, c.conn.Shard().Index())
		switch {
		case errors.Is(err, room.ErrDeleted): // it has just ended; the next round creates another
			continue
		case errors.Is(err, room.ErrFull):
			return nil, created, ErrRoomFull
		}
		return mem, created, err
	}
}

// LeaveRoom ends the membership, and never waits. It has no effect on a client that is not in
// the room. Messages that were published before are still delivered.
func (c *Client) LeaveRoom(id string) {
	r, ok := c.manager.rooms.Get(id)
	if !ok || !c.conn.Opened() {
		return
	}
	if left, ended := c.exitRoom(r); left {
		c.left(r, ended)
	}
}

// left reports to Metrics that c has left r, and that r has ended if ended is set.
func (c *Client) left(r *roomEntry, ended bool) {
	if ended {
		c.manager.changed(roomCount, "")
	}
	c.manager.changed(roomMembers, r.ID())
}

// exitRoom is the reverse of enterRoom. left reports whether c was in the room, and ended
// whether the room has ended: a room that JoinRoom has made ends with its last member.
func (c *Client) exitRoom(r *roomEntry) (left, ended bool) {
	reservation := c.conn.Shard().TryReserve()
	c.mu.Lock()
	defer c.mu.Unlock()
	mem := c.forgetRoomLocked(r)
	if mem == nil {
		reservation.Release()
		return false, false
	}
	_, ended = c.manager.rooms.Leave(mem)
	reservation.Post((*leaveTask)(mem))
	return true, ended
}

// leaveDeleted ends the membership in a deleted room, if there is one. A dissolveTask empties
// the table.
func (c *Client) leaveDeleted(r *roomEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveDeletedLocked(r)
}

func (c *Client) leaveDeletedLocked(r *roomEntry) {
	if mem := c.forgetRoomLocked(r); mem != nil {
		r.Leave(mem)
	}
}

// GetRooms returns the IDs of the rooms that the client is in.
func (c *Client) GetRooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := []string{}
	for mem := range c.roomsLocked() {
		ids = append(ids, mem.Room().ID())
	}
	return ids
}

// leaveAllInLoop ends all memberships of a client that is closing or has gone, and
// keeps the rooms' IDs for endInLoop.
func (c *Client) leaveAllInLoop() {
	c.mu.Lock()
	rooms := slices.Collect(c.roomsLocked())
	c.room = nil
	if len(rooms) > 0 {
		x := c.needLazyLocked()
		x.rooms = memberships{}
		for _, mem := range rooms {
			x.left = append(x.left, mem.Room().ID())
		}
	}
	c.mu.Unlock()
	walk := &c.manager.walks[c.conn.Shard().Index()]
	for _, mem := range rooms {
		walk.remove(mem)
		_, ended := c.manager.rooms.Leave(mem)
		c.left(mem.Room(), ended)
	}
}

// endInLoop ends the context of a client whose connection has ended, and returns the IDs of
// the rooms that the client was in at the beginning of the close.
func (c *Client) endInLoop() (rooms []string) {
	c.mu.Lock()
	c.ending |= gone
	var cancel context.CancelFunc
	if x := c.lazy; x != nil {
		rooms, x.left = x.left, nil
		cancel = c.takeCancelLocked()
	}
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	return rooms
}

// joinTask inserts a member into the table of its loop.
type joinTask membership

func (t *joinTask) RunInLoop(*engine.Shard) {
	mem := (*membership)(t)
	mem.Room().InsertInLoop(mem)
}

// leaveTask removes a member from the table of its loop.
type leaveTask membership

func (t *leaveTask) RunInLoop(*engine.Shard) {
	mem := (*membership)(t)
	mem.Room().RemoveInLoop(mem)
}
