package ws

import (
	"encoding/json"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/envelope"
)

// The reserved events of rooms with history, and of HandleJoin.
const (
	eventJoin  = "ws.join"
	eventLeave = "ws.leave"
	eventGap   = "ws.gap"
	eventAck   = "ws.ack"
	eventPing  = "ws.ping"
)

// GapReason is the reason for a gap in the messages of a room.
type GapReason string

// The reasons.
const (
	// GapExpired says that the messages were no longer kept when the client, or its server, came
	// back.
	GapExpired GapReason = "expired"
	// GapSlow says that a member has read so slowly that messages were no longer kept.
	GapSlow GapReason = "slow"
	// GapEpoch says that the client's position is of another history: the room has ended
	// meanwhile, or the server has restarted, or the offset is beyond the newest message.
	GapEpoch GapReason = "epoch"
	// GapBroker says that messages of other nodes were possibly lost, because the link to the Broker
	// broke, here or at their node, or was full. It has an empty Epoch, and stands for messages without
	// an offset; without a room it stands for messages to users and to all clients.
	GapBroker GapReason = "broker"
)

// RoomGap names messages that a member does not get: those with an offset above After and below
// Next; for GapBroker it names no offsets. It is the Data of EventRoomGap, and of the notification
// ws.gap, which the member reads before any later message of the room. Immutable.
type RoomGap struct {
	Room   string    `json:"-"`
	Epoch  string    `json:"epoch"`
	After  uint64    `json:"after"`
	Next   uint64    `json:"next"`
	Reason GapReason `json:"reason"`
}

// gapFrame returns the notification of a gap.
func gapFrame(g *RoomGap, policy engine.Policy) *engine.Frame {
	data, err := json.Marshal(g)
	if err != nil {
		panic(err) // never for this type
	}
	n := envelope.Notify{Event: eventGap, Room: g.Room, Data: data}
	payload, _ := n.Append(nil)
	return newFrame(OpText, payload, engine.Handling{Policy: policy})
}

// catchUp brings a member that is behind to the newest message of its room. The member gets
// nothing from the fan-out meanwhile; it reads the history, catchUpStep messages at a time, each
// time its queue is below the low-water mark. So it waits like any slow client, and costs one
// catchUp in place of a queue. A catchUp outlasts the end of its room, because a member gets all
// that was published before.
//
// Loop-confined: use only on the event loop that owns the member.
type catchUp struct {
	mem    *membership
	cursor uint64    // offset of the last message that the member has got
	gap    *RoomGap  // to be told first, or nil
	reason GapReason // of gaps that are found
	ended  bool      // the member has left
}

// catchUpStep is the greatest number of messages that a member gets in one step.
const catchUpStep = 64

// catchUps holds the members of one loop that are behind, in all rooms, also ended ones.
//
// Loop-confined: use only on the event loop that owns the members.
type catchUps struct {
	members map[place]*catchUp // nil if there are none
	_       [56]byte           // each loop writes a cache line of its own
}

// place is a client in the room of that ID. A client that joins a room leaves the ended one of the
// same ID, so it has one catchUp there. Immutable.
type place struct {
	client *Client
	room   string
}

func placeOf(mem *membership) place { return place{mem.Value, mem.Room().ID()} }

// begin marks the member of u as behind. It has got the messages up to the cursor.
func (l *catchUps) begin(u *catchUp) {
	if l.members == nil {
		l.members = make(map[place]*catchUp)
	}
	l.members[placeOf(u.mem)] = u
	u.mem.Room().SetBehindInLoop(u.mem, true)
	u.mem.Room().Data().history.setBehindInLoop(u.mem, true, u.cursor)
}

// end is the reverse of begin. It has no effect on a member that is not behind.
func (l *catchUps) end(mem *membership) {
	if u := l.members[placeOf(mem)]; u != nil && u.mem == mem {
		l.forget(u)
	}
}

// endOlder ends the catchUp in an ended room of the same ID as the room of mem, which joins: its
// messages must not come among those of the new room.
func (l *catchUps) endOlder(mem *membership) {
	if len(l.members) == 0 {
		return
	}
	if u := l.members[placeOf(mem)]; u != nil && u.mem != mem {
		l.forget(u)
	}
}

func (l *catchUps) forget(u *catchUp) {
	u.ended = true
	delete(l.members, placeOf(u.mem))
	if len(l.members) == 0 {
		l.members = nil
	}
	u.mem.Room().SetBehindInLoop(u.mem, false)
	u.mem.Room().Data().history.setBehindInLoop(u.mem, false, 0)
}

// catchUpsInLoop returns the members behind on the client's loop.
func (c *Client) catchUpsInLoop() *catchUps { return &c.manager.catchUps[c.conn.Shard().Index()] }

// forgetCatchUpInLoop ends the catchUp of a member that leaves, if there is one.
func (c *Client) forgetCatchUpInLoop(mem *membership) {
	if mem.Room().Data().history != nil {
		c.catchUpsInLoop().end(mem)
	}
}

// RunInLoop sends the next messages.
func (u *catchUp) RunInLoop(s *engine.Shard) {
	h := u.mem.Room().Data().history
	conn := &u.mem.Value.conn
	switch {
	case u.ended:
	case !conn.TakesDataInLoop(), u.step(s, h):
		if walk := &u.mem.Value.manager.walks[s.Index()]; !walk.waits(u, s) {
			u.mem.Value.catchUpsInLoop().end(u.mem)
		}
	default:
		conn.RunWhenLowInLoop(u)
	}
}

// keptPart is a part of a history, as a catchUp reads it.
type keptPart struct {
	frames        []keptFrame
	base          uint64
	epoch         string
	shift, before uint64
}

// after is Log.After.
func (h *roomHistory) after(after, last uint64, dst []keptFrame, now time.Duration) (part keptPart) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked(now)
	h.weighLocked()
	part.frames, part.base = h.log.After(after, last, dst)
	part.epoch, part.shift, part.before = h.epoch, h.shift, h.before
	return part
}

// gap returns the gap between the cursor and the frames, nil if there is none. top is the newest offset
// that the loop has begun to fan out.
func (p *keptPart) gap(room string, cursor, top uint64, reason GapReason) *RoomGap {
	if cursor < p.shift { // of an older epoch
		p.frames = nil
		after := cursor - min(cursor, p.before)
		return &RoomGap{room, p.epoch, after, top - p.shift + 1, GapEpoch}
	}
	if lost := min(p.base, top); lost > cursor {
		return &RoomGap{room, p.epoch, cursor - p.shift, lost - p.shift + 1, reason}
	}
	return nil
}

// step sends up to catchUpStep messages, and reports whether the member has got all up to the
// newest one that the loop has begun to fan out. Later ones come to it by the fan-out.
func (u *catchUp) step(s *engine.Shard, h *roomHistory) (done bool) {
	var buf [catchUpStep]keptFrame
	m := u.mem.Value.manager
	conn := &u.mem.Value.conn
	if u.gap != nil && !u.mem.Value.tellGapInLoop(u.gap, engine.CatchUp) {
		return false
	}
	u.gap = nil
	top := h.tops[s.Index()]
	part := h.after(u.cursor, top, buf[:0], m.engine.Clock())
	if top < part.shift { // a new epoch: all members fall behind when the loop learns of it
		return true
	}
	if gap := part.gap(u.mem.Room().ID(), u.cursor, top, u.reason); gap != nil {
		if !u.mem.Value.tellGapInLoop(gap, engine.CatchUp) {
			return false
		}
		u.cursor = gap.Next - 1 + part.shift
	}
	kept := part.frames
	u.reason = GapSlow
	sent, variants := 0, false
	for i := range kept {
		if !conn.DeliverInLoop(kept[i].Message) {
			break
		}
		sent++
		u.cursor = kept[i].Offset
		variants = variants || kept[i].Message.HasVariants()
		if s.NoteDeliveryInLoop() {
			break
		}
	}
	h.all.replayed.Add(uint64(sent))
	h.setBehindInLoop(u.mem, true, u.cursor)
	if variants {
		h.weigh(kept[0].Offset, u.cursor)
	}
	return u.cursor == top
}

// tellGapInLoop sends a gap, and reports whether the queue has taken it.
func (c *Client) tellGapInLoop(g *RoomGap, policy engine.Policy) bool {
	if !c.conn.DeliverInLoop(gapFrame(g, policy)) {
		return false
	}
	c.manager.histories.gaps.Add(1)
	c.manager.EventBus.publish(EventRoomGap, c, *g)
	return true
}

// historyJoin is the joinTask of a room with a history, and of a join that the library answers.
type historyJoin struct {
	mem    *membership
	start  joinStart
	answer *joinAnswer // nil if the library does not answer
}

// joinStart is the place at which a member begins. Immutable.
type joinStart struct {
	position  Position // of the room at the join
	top       uint64   // its offset in the log
	cursor    uint64   // offset of the last message before the first one that the member gets
	replaying int      // messages of the history that it gets
	gap       *RoomGap // the gap that is known at the join, or nil
	lost      bool     // messages after its position are lost
}

// startLocked returns the place for a member that joins, with h.mu held; h may be nil.
func (h *roomHistory) startLocked(room string, since *Since) joinStart {
	if h == nil {
		return startWithout(room, since)
	}
	h.expireLocked(h.all.clock())
	h.weighLocked()
	top := h.log.Top()
	st := joinStart{position: h.positionLocked(), top: top, cursor: top}
	base, p := h.log.Base(), since.Position
	if h.inbox != nil && p == (Position{}) {
		p = h.inbox.start(h.epoch, since.Device, base)
	}
	switch {
	case p == (Position{}):
		st.cursor = h.log.Before(since.Last)
	case p.Epoch != h.epoch || p.Offset > st.position.Offset:
		st.lost, st.gap = true, &RoomGap{room, h.epoch, p.Offset, st.position.Offset + 1, GapEpoch}
	default:
		st.cursor = p.Offset + h.shift
		st.lost = st.cursor < base
	}
	st.replaying = h.log.Count(st.cursor)
	return st
}

// startWithout is startLocked for a room without a history.
func startWithout(room string, since *Since) (st joinStart) {
	if since.Position != (Position{}) {
		st.lost, st.gap = true, &RoomGap{room, "", since.Position.Offset, 1, GapEpoch}
	}
	return st
}

func (t *historyJoin) RunInLoop(s *engine.Shard) {
	r := t.mem.Room()
	t.mem.Value.catchUpsInLoop().endOlder(t.mem)
	if t.answer != nil {
		t.answer.sendInLoop(t.mem.Value, r.ID(), &t.start)
	}
	inserted := r.InsertInLoop(t.mem)
	h := r.Data().history
	switch {
	case h == nil && t.start.gap != nil:
		t.mem.Value.tellGapInLoop(t.start.gap, 0)
	case h != nil:
		h.joinInLoop(s, t, inserted)
	}
}

// joinInLoop lets a member begin at its place.
func (h *roomHistory) joinInLoop(s *engine.Shard, t *historyJoin, inserted bool) {
	top := max(h.tops[s.Index()], t.start.top)
	h.setTopInLoop(s.Index(), top)
	switch {
	case !inserted:
		return
	case t.start.cursor == top && t.start.gap == nil:
		h.setBehindInLoop(t.mem, false, 0)
		return
	}
	u := &catchUp{mem: t.mem, cursor: t.start.cursor, gap: t.start.gap, reason: GapExpired}
	t.mem.Value.catchUpsInLoop().begin(u)
	t.mem.Value.conn.RunWhenLowInLoop(u)
}
