package ws

import (
	"encoding/json"
	"time"

	"github.com/qi-realtime/ws/codec"
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
	eventSync  = "ws.sync"
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

// notification returns the message by which a client learns of the gap.
func (g *RoomGap) notification() []byte {
	data, err := json.Marshal(g)
	if err != nil {
		panic(err) // never for this type
	}
	n := envelope.Notify{Event: eventGap, Room: g.Room, Data: data}
	payload, _ := n.Append(nil)
	return payload
}

// cursor is the place of a member that is behind: the offset of the last message that it has got, and
// the reason for a gap behind that. The table of the room holds it, in 8 bytes. Immutable.
type cursor uint64

// newCursor returns the cursor behind the message of that offset. The reason of gaps is GapExpired
// if returned is set, else GapSlow.
func newCursor(offset uint64, returned bool) cursor {
	c := cursor(offset << 1)
	if returned {
		c++
	}
	return c
}

func (c cursor) offset() uint64 { return uint64(c >> 1) }

func (c cursor) reason() GapReason {
	if c&1 != 0 {
		return GapExpired
	}
	return GapSlow
}

// catchUps holds the cursors of the members of one loop that are behind in ended rooms. Those of
// others are in the table of their room. A member stays behind when its room ends, because it gets all
// that was published before.
//
// Loop-confined: use only on the event loop that owns the members.
type catchUps struct {
	ended map[place]endedPlace // nil if there are none
	_     [56]byte             // each loop writes a cache line of its own
}

// place is a client in the room of that ID. A client that joins a room leaves the ended one of the
// same ID, so it is behind in one of them. Immutable.
type place struct {
	client *Client
	room   string
}

// endedPlace is a member of an ended room with its cursor. Immutable.
type endedPlace struct {
	mem *membership
	at  cursor
}

func placeOf(mem *membership) place { return place{mem.Value, mem.Room().ID()} }

// find returns the cursor of a member that is behind.
func (l *catchUps) find(mem *membership) (at cursor, behind bool) {
	if at, behind := mem.Room().CursorInLoop(mem); behind {
		return cursor(at), true
	}
	if len(l.ended) == 0 {
		return 0, false
	}
	e := l.ended[placeOf(mem)]
	return e.at, e.mem == mem
}

// set marks the member, which is in the table of its room, as behind, or moves the cursor of one
// that is behind.
func (l *catchUps) set(mem *membership, at cursor) {
	mem.Room().SetCursorInLoop(mem, uint64(at))
	if len(l.ended) > 0 && l.ended[placeOf(mem)].mem == mem {
		l.ended[placeOf(mem)] = endedPlace{mem, at}
	}
	mem.Room().Data().history.setBehindInLoop(mem, true, at.offset())
}

// keep holds the cursor of a member that was behind in a room that ends.
func (l *catchUps) keep(mem *membership, at uint64) {
	if l.ended == nil {
		l.ended = make(map[place]endedPlace)
	}
	l.ended[placeOf(mem)] = endedPlace{mem, cursor(at)}
}

// end is the reverse of set. The room of mem has a history.
func (l *catchUps) end(mem *membership) {
	mem.Room().DropCursorInLoop(mem)
	if len(l.ended) > 0 && l.ended[placeOf(mem)].mem == mem {
		l.forget(placeOf(mem))
	}
	mem.Room().Data().history.setBehindInLoop(mem, false, 0)
}

// endOlder ends the catching up in an ended room of the same ID as the room of mem, which joins: its
// messages must not come among those of the new room.
func (l *catchUps) endOlder(mem *membership) {
	if len(l.ended) > 0 {
		l.forget(placeOf(mem))
	}
}

func (l *catchUps) forget(p place) {
	if delete(l.ended, p); len(l.ended) == 0 {
		l.ended = nil
	}
}

// catchUpsInLoop returns the members behind on the client's loop.
func (c *Client) catchUpsInLoop() *catchUps { return &c.manager.catchUps[c.conn.Shard().Index()] }

// endCatchUpInLoop ends the catching up of a member that leaves, if it is behind.
func (c *Client) endCatchUpInLoop(mem *membership) {
	if mem.Room().Data().history != nil {
		c.catchUpsInLoop().end(mem)
	}
}

// catchUp is the task that brings a member that is behind to the newest message of its room. The
// member gets nothing from the fan-out meanwhile; it reads the history, catchUpStep messages at a
// time, each time its queue is below the low-water mark. So it waits like any slow client, with a
// cursor in place of a queue.
//
// Loop-confined: use only on the event loop that owns the member.
type catchUp membership

// catchUpStep is the greatest number of messages that a member gets in one step.
const catchUpStep = 64

// beginCatchUpInLoop marks mem as behind, with a cursor, and lets it read.
func beginCatchUpInLoop(mem *membership, at cursor) {
	mem.Value.catchUpsInLoop().set(mem, at)
	mem.Value.conn.RunWhenLowInLoop((*catchUp)(mem))
}

// RunInLoop sends the next messages.
func (t *catchUp) RunInLoop(s *engine.Shard) {
	mem := (*membership)(t)
	l, conn := mem.Value.catchUpsInLoop(), &mem.Value.conn
	at, behind := l.find(mem)
	if !behind {
		return // it has left
	}
	h := mem.Room().Data().history
	switch {
	case !conn.TakesDataInLoop(), h.stepInLoop(s, mem, at):
		if walk := &mem.Value.manager.walks[s.Index()]; !walk.waits(mem, s) {
			l.end(mem)
		}
	default:
		conn.RunWhenLowInLoop(t)
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

// stepInLoop sends up to catchUpStep messages, and reports whether the member has got all up to the
// newest one that the loop has begun to fan out. Later ones come to it by the fan-out.
func (h *roomHistory) stepInLoop(s *engine.Shard, mem *membership, at cursor) (done bool) {
	var buf [catchUpStep]keptFrame
	c := mem.Value
	top, reached := h.tops[s.Index()], at.offset()
	part := h.after(reached, top, buf[:0], c.manager.engine.Clock())
	if top < part.shift { // a new epoch: all members fall behind when the loop learns of it
		return true
	}
	if gap := part.gap(mem.Room().ID(), reached, top, at.reason()); gap != nil {
		f := newFrame(OpText, gap.notification(), engine.Handling{Policy: engine.CatchUp})
		if !c.conn.DeliverInLoop(f) {
			return false
		}
		c.noteGap(gap)
		reached = gap.Next - 1 + part.shift
	}
	sent, variants := 0, false
	for _, kept := range part.frames {
		if !c.conn.DeliverInLoop(kept.Message) {
			break
		}
		sent++
		reached = kept.Offset
		variants = variants || kept.Message.HasVariants()
		if s.NoteDeliveryInLoop() {
			break
		}
	}
	h.all.replayed.Add(uint64(sent))
	c.catchUpsInLoop().set(mem, newCursor(reached, false))
	if variants {
		h.weigh(part.frames[0].Offset, reached)
	}
	return reached == top
}

// noteGap reports a gap that the client is told of to the application.
func (c *Client) noteGap(g *RoomGap) {
	c.manager.histories.gaps.Add(1)
	c.manager.EventBus.publish(EventRoomGap, c, *g)
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
	r, c := t.mem.Room(), t.mem.Value
	c.catchUpsInLoop().endOlder(t.mem)
	if t.answer != nil {
		t.answer.sendInLoop(c, r.ID(), &t.start)
	}
	inserted, h := r.InsertInLoop(t.mem), r.Data().history
	if g := t.start.gap; g != nil && (inserted || h == nil) {
		if c.conn.AnswerInLoop(codec.OpText, g.notification()) == nil {
			c.noteGap(g)
		}
	}
	if h != nil {
		h.joinInLoop(s, t, inserted)
	}
}

// joinInLoop lets a member begin at its place.
func (h *roomHistory) joinInLoop(s *engine.Shard, t *historyJoin, inserted bool) {
	top := max(h.tops[s.Index()], t.start.top)
	h.setTopInLoop(s.Index(), top)
	switch {
	case !inserted:
	case t.start.cursor == top:
		h.setBehindInLoop(t.mem, false, 0)
	default:
		beginCatchUpInLoop(t.mem, newCursor(t.start.cursor, true))
	}
}
