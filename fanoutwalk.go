package ws

import "github.com/qi-realtime/ws/engine"

// fanOutWalk is how far the running broadcast of a loop has come. It may take
// several turns of the loop; the tasks behind it wait, so there is one for each
// loop.
//
// Loop-confined: use only on the event loop that owns the clients.
type fanOutWalk struct {
	task *broadcast // nil between two broadcasts
	next int        // the first member or device that was not visited

	_ [48]byte // the loops write each their own cache line
}

// fanOutCount counts the connections that a fan-out has visited in one turn, and
// those that have queued its message.
type fanOutCount struct{ visited, queued int64 }

// members delivers to the members of the task's room. done is false if the turn's
// time is over before.
func (w *fanOutWalk) members(s *engine.Shard) (n fanOutCount, done bool) {
	table, b := w.task.room.TableInLoop(s.Index()), w.task
	for i := w.next; i < len(table); i++ {
		if c := table[i].Value; c != b.exclude {
			n.visited++
			if c.conn.DeliverInLoop(b.frame) {
				n.queued++
			}
		}
		if s.NoteDeliveryInLoop() {
			w.next = i + 1
			return n, w.next == len(table)
		}
	}
	return n, true
}

// devices delivers to the devices of the task that are on the loop. done is false if
// the turn's time is over before.
func (w *fanOutWalk) devices(s *engine.Shard) (n fanOutCount, done bool) {
	devices, b := w.task.devices, w.task
	for i := w.next; i < len(devices); i++ {
		if c := devices[i]; c.conn.Shard() == s {
			n.visited++
			if c.conn.DeliverInLoop(b.frame) {
				n.queued++
			}
		}
		if s.NoteDeliveryInLoop() {
			w.next = i + 1
			return n, w.next == len(devices)
		}
	}
	return n, true
}

// all delivers to all clients of the loop. done is false if the turn's time is over
// before.
func (b *broadcast) all(s *engine.Shard) (n fanOutCount, done bool) {
	done = s.WalkInLoop(func(c *engine.Conn) {
		n.visited++
		if c.DeliverInLoop(b.frame) {
			n.queued++
		}
	})
	return n, done
}

// remove takes mem, whose client has ended, out of its room's table, through which
// the broadcast may be on its way.
func (w *fanOutWalk) remove(mem *membership, loop int) {
	r := mem.Room()
	if w.task != nil && w.task.room == r {
		w.next = r.RemoveVisitedInLoop(mem, loop, w.next)
		return
	}
	r.RemoveInLoop(mem, loop)
}
