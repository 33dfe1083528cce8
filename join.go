package ws

import (
	"errors"
	"slices"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/room"
)

// JoinRoom makes the client a member of the room, which is created if it is
// missing, and then ends with its last member. It returns ErrRoomFull, ErrAlreadyInRoom,
// ErrTooManyRooms, ErrInvalidRoom, or ErrConnectionClosed; ErrForbidden for the inbox of another
// user, see Inbox; and ErrBroadcastTimeout if the
// ring of the client's event loop stays full. It waits for the ring, for
// BroadcastConfig.Timeout at most, unless it is called on an event loop. With an error it
// has no effect. The client receives all messages that are published to the room after
// JoinRoom has returned; those of other nodes from the node's subscription on, and a gap for
// earlier ones.
func (c *Client) JoinRoom(id string) error {
	_, err := c.joinRoom(id, &entering{})
	return err
}

// entering is the way in which a client joins a room.
type entering struct {
	options []RoomOption // of a room that is created
	since   Since
	answer  *joinAnswer // nil if the library does not answer

	joined Joined // the result

	later      func(error)   // takes the error of a join that had to wait; nil if joinRoom waits
	wait       *joinWait     // the last one, after errWaits
	waitsUntil time.Duration // on the clock of the engine; 0 before the first wait
	reads      int           // reads of the store while it has waited
	subscribed bool          // it waits for no subscription any more
}

// joinRoom is joinRoomNow, and waits for the store if the history is not loaded. With entering.later
// it returns errWaits in place of that, and goes on later; likewise while the node subscribes.
func (c *Client) joinRoom(id string, e *entering) (Joined, error) {
	joined, err := c.joinRoomNow(id, e)
	for errors.Is(err, errWaits) && e.later == nil {
		w := e.wait
		if err = w.wait(); err == nil {
			e.reads = w.entering.reads
			joined, err = c.joinRoomNow(id, e)
		}
		w.release()
		if err != nil && !errors.Is(err, errWaits) {
			c.manager.endUnusedRoom(id)
		}
	}
	return joined, err
}

func (c *Client) joinRoomNow(id string, e *entering) (Joined, error) {
	m := c.manager
	if !c.conn.Open() {
		return Joined{}, ErrConnectionClosed
	}
	if err := firstError(c.mayEnter(id, e.since.Device), m.checkRoom(id)); err != nil {
		return Joined{}, err
	}
	reservation, err := c.conn.Shard().Reserve()
	if err != nil {
		return Joined{}, err
	}
	created, err := c.enterRoom(id, reservation, e) // after errWaits another goroutine has e
	if created {
		m.changed(roomCount, "")
	}
	if err != nil {
		return Joined{}, err
	}
	m.changed(roomMembers, id)
	return e.joined, nil
}

// enterRoom puts c on the room's roster and posts the table's entry in one step: with a
// leave at the same time, the tasks come in the order of the decisions.
func (c *Client) enterRoom(id string, reservation engine.Reservation, e *entering) (created bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err = firstError(e.wait.goOnLocked(), c.mayJoinLocked(id)); err == nil {
		var held bool
		if held, err = c.subscribeLocked(id, e); held {
			defer c.manager.node.interest.Remove(Topic{TopicRoom, id}) // the room has added it by then
		}
	}
	for err == nil {
		r, isNew, failed := c.manager.roomToEnter(id, e)
		if err = failed; err != nil {
			break
		}
		created = created || isNew
		if err = c.enterLocked(r, reservation, e); err == nil {
			return created, nil
		}
		c.manager.endUnused(r)
		if errors.Is(err, room.ErrDeleted) { // it has just ended; the next round creates another
			err = nil
		}
	}
	reservation.Release()
	if errors.Is(err, room.ErrFull) {
		err = ErrRoomFull
	}
	return created, err
}

// mayJoinLocked returns an error if c cannot join another room of that ID.
func (c *Client) mayJoinLocked(id string) error {
	if c.ending&gone != 0 || !c.conn.Open() {
		return ErrConnectionClosed
	}
	old, rooms := c.roomLocked(id)
	if old != nil && !old.Room().Deleted() {
		return ErrAlreadyInRoom
	}
	if old != nil { // DeleteRoom has not reached this member yet; see rejoin
		old.Room().Leave(old)
		rooms--
	}
	if most := c.manager.cfg.Room.MaxRoomsPerClient; most > 0 && rooms >= most {
		return ErrTooManyRooms
	}
	return nil
}

// roomToEnter returns the room of that ID, and creates a missing one.
func (m *Manager) roomToEnter(id string, e *entering) (r *roomEntry, created bool, err error) {
	if len(e.options) == 0 && !m.isInbox(id) {
		r, created = m.rooms.GetOrCreate(id)
	} else {
		r, created, err = m.getOrCreateRoom(id, append(slices.Clip(e.options), func(o *roomOptions) { o.byJoin = true }))
	}
	return r, created, err
}

// enterLocked makes c a member of r and posts its task, with the history locked, so that
// the place of the task among the messages is the place at which c begins.
func (c *Client) enterLocked(r *roomEntry, reservation engine.Reservation, e *entering) error {
	h := r.Data().history
	if h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.waitsLocked(e) {
			return h.waitLocked(c, e)
		}
	}
	st := h.startLocked(r.ID(), &e.since)
	inbox := h != nil && h.inbox != nil
	switch {
	case st.lost && e.since.Strict:
		return ErrPositionLost
	case inbox && !r.Deleted() && !h.inbox.devices.Takes(e.since.Device):
		return ErrTooManyDevices
	}
	mem, err := r.Join(c, c.conn.Shard().Index())
	if err != nil {
		return err
	}
	task := c.joinTaskLocked(mem, st, e.answer)
	c.addRoomLocked(mem)
	if inbox {
		h.enterInboxLocked(mem, c.conn.Shard().Index(), e.since.Device, st.cursor)
	}
	reservation.Post(task)
	if e.since.Presence != (PresenceVersion{}) {
		c.manager.presences.resume(r.ID(), c, e.since.Presence)
	}
	e.joined = Joined{r.ID(), st.position, st.replaying, st.lost}
	return nil
}

// joinTaskLocked returns the task that brings a new member to its loop. It ends the client's
// membership in an ended room of the same ID.
func (c *Client) joinTaskLocked(mem *membership, st joinStart, answer *joinAnswer) (task engine.Task) {
	task = (*joinTask)(mem)
	if mem.Room().Data().history != nil || answer != nil || st.gap != nil {
		task = &historyJoin{mem, st, answer}
	}
	if old, _ := c.roomLocked(mem.Room().ID()); old != nil {
		c.leaveDeletedLocked(old.Room())
		task = &rejoin{old, task}
	}
	return task
}

// Since is the place in the history of a room at which a client joins. The zero value is live: the
// client gets the messages that are published after its join.
type Since struct {
	// Position is the client's last position in the room: it gets the messages after it. The gap
	// is named if some of them are lost; see RoomGap. The zero Position is none.
	Position Position
	// Last is the number of the newest messages that the client gets if it has no Position: 1 for
	// the present value, more for a late joiner. It gets as many as are kept. It has no effect in an
	// inbox.
	Last int
	// Device is the name of the client's device in an inbox, 128 bytes at most: without a Position
	// the client begins behind the last message that the device has acknowledged, or at the oldest
	// message that is kept. It has no effect in another room.
	Device string
	// Strict refuses the join with ErrPositionLost if messages after Position are lost.
	Strict bool
	// Presence is the list of the users that the client has in a room WithPresence: if this node has kept
	// the changes since then, the client gets these in place of the whole list.
	Presence PresenceVersion
}

// Joined is the result of JoinRoomFrom. Immutable.
type Joined struct {
	Room      string
	Position  Position // of the room at the join; zero for a room without a history
	Replaying int      // messages of the history that the client gets before the live ones
	Lost      bool     // messages after Since.Position are lost, and a gap names them
}

// JoinRoomFrom is JoinRoom for a client that comes back, or comes late: it begins at since. A
// missing room is created with opts, as by CreateRoom, but ends with its last member while nothing
// was published in it; without opts it is one without a history, as by JoinRoom. The client gets
// the messages of the history at the pace at which it reads, and live messages after them, in one
// order and without a break. A Since.Position for a room without a history is a gap. Besides the
// errors of JoinRoom it returns ErrPositionLost, see Since, and ErrInvalidConfig for an option out
// of range; and for an inbox ErrTooManyDevices and ErrInvalidDevice.
//
// The messages may reach the client before anything that the caller sends after JoinRoomFrom has
// returned. HandleJoin answers before them. Safe for concurrent use.
func (c *Client) JoinRoomFrom(id string, since Since, opts ...RoomOption) (Joined, error) {
	return c.joinRoom(id, &entering{since: since, options: opts})
}

// rejoin is the task of a client that joins a room while it is in an ended one of the same ID, which
// DeleteRoom has not taken it out of yet. It leaves that one first.
type rejoin struct {
	old  *membership
	join engine.Task
}

func (t *rejoin) RunInLoop(s *engine.Shard) {
	(*leaveTask)(t.old).RunInLoop(s)
	t.join.RunInLoop(s)
}

// joinTask inserts a member into the table of its loop.
type joinTask membership

func (t *joinTask) RunInLoop(*engine.Shard) {
	mem := (*membership)(t)
	mem.Value.catchUpsInLoop().endOlder(mem)
	mem.Room().InsertInLoop(mem)
}
