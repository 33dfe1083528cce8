package ws

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/measure"
)

// broadcast is the task that fans one frame out; all loops run the same task.
type broadcast struct {
	manager *Manager
	room    *roomEntry    // nil for all clients, or devices
	devices []*Client     // of one user, on all loops; nil otherwise
	frame   *engine.Frame // nil for messages of a history that are lost, up to the offset
	offset  uint64        // of the message in the history of the room; 0 for one that is not kept
	prev    uint64        // offset of the message before it
	exclude *Client
	report  *deliveryReport // nil without a report

	begun     time.Duration // for RecordBroadcastLatency, on measure.Now; 0 without Metrics
	loops     atomic.Int32  // loops that have not fanned out yet
	unwritten atomic.Int32  // loops that have not written the frame yet; of a sample that was taken only
	sample    measure.Sample
}

// post posts b to the loops.
func (b *broadcast) post(ctx context.Context, targets []*engine.Shard) error {
	if len(targets) == 0 {
		b.complete()
		return nil
	}
	b.begin(len(targets))
	reserved, err := b.manager.engine.ReserveAll(ctx, targets)
	if err != nil {
		return err
	}
	reserved.Post(b)
	return nil
}

// begin prepares b for its loops.
func (b *broadcast) begin(loops int) {
	if b.manager.measures {
		b.begun = measure.Now()
	}
	b.loops.Store(int32(loops))
	b.unwritten.Store(int32(loops))
}

// RunInLoop fans out to the recipients on one loop, over several turns if they are many.
func (b *broadcast) RunInLoop(s *engine.Shard) {
	w := &b.manager.walks[s.Index()]
	if w.task != b {
		w.begin(s, b)
	}
	n, done := w.run(s)
	if b.report != nil {
		b.report.queued.Add(n.queued)
		b.report.dropped.Add(n.visited - n.queued)
	}
	if !done {
		s.SuspendInLoop(b)
		return
	}
	w.end()
	if b.sample.Taken() {
		s.AfterFlushInLoop((*writtenTask)(b))
	}
	if b.loops.Add(-1) == 0 {
		b.complete()
	}
}

// writtenTask runs on each loop when the loop has written the frame of a broadcast whose time
// is taken.
type writtenTask broadcast

// RunInLoop counts the time if this loop is the last.
func (t *writtenTask) RunInLoop(s *engine.Shard) {
	if t.unwritten.Add(-1) == 0 {
		s.NotePublished(t.sample)
	}
}

// AbandonTask takes the place of RunInLoop on a loop that has ended and has no recipients
// any more.
func (b *broadcast) AbandonTask(*engine.Shard) {
	if b.loops.Add(-1) == 0 {
		b.complete()
	}
}

// complete completes the report after the last loop has fanned out.
func (b *broadcast) complete() {
	if b.offset != 0 && b.frame != nil && b.frame.HasVariants() {
		b.room.Data().history.weigh(b.offset, b.offset)
	}
	if b.report != nil {
		close(b.report.done)
	}
	if b.begun != 0 {
		b.manager.metrics.RecordBroadcastLatency((measure.Now() - b.begun).Nanoseconds())
	}
}

// fanOutWalk is the progress of the running broadcast on one loop. A broadcast may take
// several turns of the loop; the tasks behind it wait, so each loop has one walk.
//
// Loop-confined: use only on the event loop that owns the clients.
type fanOutWalk struct {
	task *broadcast    // nil between two broadcasts
	next int           // the first recipient that was not visited
	from uint64        // position of the members that are not behind, in a room with a history
	done []*membership // of the room, that are behind until the walk ends; see waits
	runs bool          // false after a panic

	_ [15]byte // each loop writes a cache line of its own
}

// run delivers to the recipients until the time of the turn ends. done is false if there are more.
func (w *fanOutWalk) run(s *engine.Shard) (n fanOutCount, done bool) {
	w.runs = true
	defer w.goOn(s)
	switch b := w.task; {
	case b.devices != nil:
		n, done = w.devices(s)
	case b.room == nil:
		n, done = b.all(s)
	default:
		n, done = w.members(s)
	}
	w.runs = false
	return n, done
}

// goOn lets the walk go on behind a recipient at which it has panicked: the others need their
// message, and members behind wait for the end of the walk. Nobody knows whether that recipient
// has got its message. In a room with a history it may get no later one, so its connection ends.
func (w *fanOutWalk) goOn(s *engine.Shard) {
	if !w.runs {
		return
	}
	s.SuspendInLoop(w.task)
	if b := w.task; b.offset != 0 {
		mem := b.room.TableInLoop(s.Index())[w.next-1]
		mem.Value.catchUpsInLoop().set(mem, newCursor(w.from, false))
		mem.Value.Abort()
	}
}

// begin starts the walk of b. A message of a history goes to the members that are not behind. If it
// does not follow the message before it on this loop, they all fall behind.
func (w *fanOutWalk) begin(s *engine.Shard, b *broadcast) {
	w.task = b
	if b.frame != nil {
		s.NoteOfferInLoop(b.frame)
	}
	if b.offset != 0 {
		h := b.room.Data().history
		w.from = h.tops[s.Index()]
		h.setTopInLoop(s.Index(), b.offset)
		w.next = b.room.BehindInLoop(s.Index())
	}
}

// waits reports whether mem has to stay in its place in the table: a message that is not of the
// history goes to all members, and the walk has not come past those behind. Its catchUp then runs
// again when the walk has ended.
func (w *fanOutWalk) waits(mem *membership, s *engine.Shard) bool {
	r := mem.Room()
	if w.task == nil || w.task.room != r || w.next >= r.BehindInLoop(s.Index()) {
		return false
	}
	w.done = append(w.done, mem)
	return true
}

// end ends the walk.
func (w *fanOutWalk) end() {
	done := w.done
	*w = fanOutWalk{}
	for _, mem := range done {
		mem.Value.conn.RunWhenLowInLoop((*catchUp)(mem))
	}
}

// fanOutCount counts the connections that a fan-out visits in one turn, and those that
// queue its message.
type fanOutCount struct{ visited, queued int64 }

// follows reports whether the members that are not behind have got the message before the task's.
func (w *fanOutWalk) follows() bool { return w.from == w.task.prev && w.task.frame != nil }

// members delivers to the members of the task's room. done is false if the time of the turn
// ends first.
func (w *fanOutWalk) members(s *engine.Shard) (n fanOutCount, done bool) {
	table, b := w.task.room.TableInLoop(s.Index()), w.task
	follows := w.follows()
	for w.next < len(table) {
		mem := table[w.next]
		w.next++
		if c := mem.Value; c != b.exclude {
			n.visited++
			switch {
			case follows && c.conn.DeliverInLoop(b.frame):
				n.queued++
			case b.offset != 0:
				w.fallBehind(mem)
			}
		}
		if s.NoteDeliveryInLoop() {
			return n, w.next == len(table)
		}
	}
	return n, true
}

// fallBehind leaves a member that has not taken the message to its catchUp.
func (w *fanOutWalk) fallBehind(mem *membership) {
	if mem.Value.conn.TakesDataInLoop() { // otherwise it is closing, and so leaves the room
		beginCatchUpInLoop(mem, newCursor(w.from, !w.follows()))
	}
}

// devices delivers to the devices of the task that are on the loop. done is false if the
// time of the turn ends first.
func (w *fanOutWalk) devices(s *engine.Shard) (n fanOutCount, done bool) {
	devices, b := w.task.devices, w.task
	for w.next < len(devices) {
		c := devices[w.next]
		w.next++
		if c.conn.Shard() == s {
			n.visited++
			if c.conn.DeliverInLoop(b.frame) {
				n.queued++
			}
		}
		if s.NoteDeliveryInLoop() {
			return n, w.next == len(devices)
		}
	}
	return n, true
}

// all delivers to all clients of the loop. done is false if the time of the turn ends first.
func (b *broadcast) all(s *engine.Shard) (n fanOutCount, done bool) {
	done = s.WalkInLoop(func(c *engine.Conn) {
		n.visited++
		if c.DeliverInLoop(b.frame) {
			n.queued++
		}
	})
	return n, done
}

// remove removes mem, whose client has ended, from its room's table, in which the walk may
// be under way.
func (w *fanOutWalk) remove(mem *membership) {
	r := mem.Room()
	if w.task != nil && w.task.room == r {
		w.next = r.RemoveVisitedInLoop(mem, w.next)
		return
	}
	r.RemoveInLoop(mem)
}
