package ws

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/history"
	"github.com/qi-realtime/ws/room"
)

// roomEntry is a room of the directory, and membership is one client in it.
type (
	roomEntry  = room.Room[*Client, roomData]
	membership = room.Member[*Client, roomData]
)

// newRoomConfig returns the configuration of the directory. n is nil without a Broker.
func newRoomConfig(cfg *Config, bus *EventBus, n *node) room.Config[*Client, roomData] {
	return room.Config[*Client, roomData]{
		Shards: cfg.RoomShards, Loops: cfg.Loops, MaxSize: cfg.Room.MaxRoomSize,
		Now:   cfg.Simnet.clock(),
		Keep:  func(d *roomData) time.Duration { return d.history.keep() },
		OnEnd: func(id string) { bus.publish(EventRoomEnded, nil, id) },
		OnJoin: func(r *roomEntry, c *Client, members int) {
			bus.publish(EventRoomJoined, c, r.ID())
			r.Data().presence.joined(r, c)
			n.joined(r, members)
		},
		OnLeave: func(r *roomEntry, c *Client, members int) {
			bus.publish(EventRoomLeft, c, r.ID())
			r.Data().presence.left(c)
			n.left(r, members)
		},
	}
}

// roomData holds the Manager's part of a room.
type roomData struct {
	meta      map[string]any // immutable
	policy    OverflowPolicy // immutable; 0 is the manager's
	byJoin    bool           // immutable; a join has created the room with options
	history   *roomHistory   // immutable; nil without
	presence  *watch         // immutable; nil without
	drops     engine.Drops
	published meter
	losses    atomic.Uint32 // count of node.losses that the members know of
	plain     atomic.Bool   // beside a stored history it has messages that are not of it
}

// Room is a set of clients that messages are published to. Safe for concurrent
// use.
type Room struct {
	manager *Manager
	room    *roomEntry
}

// RoomOption sets a property of one room when it is created.
type RoomOption func(*roomOptions)

// roomOptions holds the fields that RoomOptions set.
type roomOptions struct {
	policy   OverflowPolicy
	history  *History
	presence *Presence
	byJoin   bool // a join creates the room
}

// WithRoomOverflowPolicy sets the policy for messages of the room to members whose queue is
// full, in place of Config.OverflowPolicy. CatchUp is the only one for a room with a history, and
// needs one.
func WithRoomOverflowPolicy(p OverflowPolicy) RoomOption {
	return func(o *roomOptions) { o.policy = p }
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
// again, call CreateRoom before each JoinRoom and ignore ErrRoomExists. The options have no effect
// on an inbox, see Inbox.
func (m *Manager) CreateRoom(id string, meta map[string]any, opts ...RoomOption) (*Room, error) {
	if err := m.stopped(); err != nil {
		return nil, err
	}
	if err := m.checkRoom(id); err != nil {
		return nil, err
	}
	r, err := m.createRoom(id, meta, opts)
	if err != nil {
		return nil, err
	}
	m.roomChanged(id)
	return &Room{m, r}, nil
}

func (m *Manager) createRoom(id string, meta map[string]any, opts []RoomOption) (*roomEntry, error) {
	var o roomOptions
	for _, opt := range opts {
		opt(&o)
	}
	cfg, err := o.check()
	if err := firstError(err, o.presence.validate(), m.node.takes(o.history)); err != nil {
		return nil, err
	}
	r, err := m.rooms.Create(id, func(d *roomData) {
		d.meta, d.policy, d.byJoin = maps.Clone(meta), o.policy, o.byJoin
		if !m.isInbox(id) {
			d.presence = m.newWatch(o.presence)
		}
		switch {
		case m.isInbox(id):
			d.policy, d.history = CatchUp, m.newRoomHistory(m.inboxes.history, false)
			d.history.beginInbox(id, m.inboxes.devices)
		case o.history != nil:
			d.history = m.newRoomHistory(cfg, o.byJoin)
			if m.node != nil {
				m.node.beginStored(d.history, strings.Clone(id), cfg)
			}
		}
	})
	if err != nil {
		return nil, ErrRoomExists
	}
	return r, nil
}

// getOrCreateRoom returns the room of that ID, and creates a missing one with opts.
func (m *Manager) getOrCreateRoom(id string, opts []RoomOption) (r *roomEntry, created bool, err error) {
	for {
		if r, ok := m.rooms.Get(id); ok {
			return r, false, nil
		}
		r, err := m.createRoom(id, nil, opts)
		if !errors.Is(err, ErrRoomExists) {
			return r, err == nil, err
		}
	}
}

// check sets the policy of a room with a history, and returns the settings of the history.
func (o *roomOptions) check() (history.Config, error) {
	if o.history == nil {
		return history.Config{}, validatePolicy("RoomOverflowPolicy", o.policy)
	}
	if o.policy != 0 && o.policy != CatchUp {
		return history.Config{}, invalid("RoomOverflowPolicy", "must be CatchUp for a room with a history")
	}
	o.policy = CatchUp
	return o.history.config("History")
}

// checkRoom returns an error if a room of that ID cannot be made.
func (m *Manager) checkRoom(id string) error {
	if most := m.cfg.Room.MaxRoomName; most > 0 && len(id) > most {
		return ErrInvalidRoom
	}
	if id == inboxPrefix && m.isInbox(id) {
		return ErrNoInbox
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

// DeleteRoom ends the room, on all nodes of a cluster, and never waits: every member leaves, and
// stays connected. Messages that were published before are still delivered. While the link to the
// Broker is down it ends the room on this node alone, and logs that.
func (m *Manager) DeleteRoom(id string) {
	r, ok := m.rooms.Get(id)
	if !ok || r.Data().history.isStored() {
		m.node.forget(id) // before the node can read it again
	}
	m.deleteHere(id)
	m.node.deleted(id)
}

// deleteHere is DeleteRoom on this node.
func (m *Manager) deleteHere(id string) {
	r, ok := m.rooms.Delete(id)
	if !ok {
		return
	}
	t := &dissolveTask{m, r}
	for loop := range r.Loops {
		m.engine.Shards()[loop].Post(t) // before a member leaves, and so may join a new room of the ID
	}
	for _, c := range r.Members() {
		c.leaveDeleted(r)
	}
	m.histories.end(r.Data().history)
	r.Data().presence.deleted(id)
	m.roomChanged(id)
}

// roomChanged reports to Metrics that a room of that ID was created or has ended.
func (m *Manager) roomChanged(id string) {
	m.changed(roomCount, "")
	m.changed(roomMembers, id)
}

// dissolveTask empties a deleted room's table on a loop.
type dissolveTask struct {
	manager *Manager
	room    *roomEntry
}

func (t *dissolveTask) RunInLoop(s *engine.Shard) {
	keep := t.manager.catchUps[s.Index()].keep
	for !t.room.DissolveSomeInLoop(s.Index(), dissolveStep, keep) {
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
		m.histories.end(r.Data().history)
		m.roomChanged(r.ID())
	}
}

// LeaveRoom ends the membership, and never waits. It has no effect on a client that is not in
// the room. Messages that were published before are still delivered.
func (c *Client) LeaveRoom(id string) {
	if !c.conn.Opened() {
		return
	}
	c.cancelWait(id)
	r, ok := c.manager.rooms.Get(id)
	if !ok {
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
	ended = c.manager.leaveRoster(mem)
	reservation.Post((*leaveTask)(mem))
	return true, ended
}

// leaveRoster takes a member off the roster of its room, and reports whether the room has ended.
func (m *Manager) leaveRoster(mem *membership) (ended bool) {
	left, ended := m.rooms.Leave(mem)
	mem.Room().Data().history.leaveInbox(mem)
	return ended || left && m.endUnused(mem.Room())
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
		c.endCatchUpInLoop(mem)
		ended := c.manager.leaveRoster(mem)
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

// leaveTask removes a member from the table of its loop.
type leaveTask membership

func (t *leaveTask) RunInLoop(*engine.Shard) {
	mem := (*membership)(t)
	mem.Value.endCatchUpInLoop(mem)
	mem.Room().RemoveInLoop(mem)
}
