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

// members delivers to the members of the task's room. It returns false if the
// turn's time is over before it is done.
func (w *fanOutWalk) members(s *engine.Shard, deliver func(*engine.Conn)) (done bool) {
	table := w.task.room.TableInLoop(s.Index())
	for i := w.next; i < len(table); i++ {
		if c := table[i].Value; c != w.task.exclude {
			deliver(&c.conn)
		}
		if s.OutOfTimeInLoop() {
			w.next = i + 1
			return w.next == len(table)
		}
	}
	return true
}

// devices delivers to the devices of the task that are on the loop. It returns false
// if the turn's time is over before it is done.
func (w *fanOutWalk) devices(s *engine.Shard, deliver func(*engine.Conn)) (done bool) {
	devices := w.task.devices
	for i := w.next; i < len(devices); i++ {
		if c := devices[i]; c.conn.Shard() == s {
			deliver(&c.conn)
		}
		if s.OutOfTimeInLoop() {
			w.next = i + 1
			return w.next == len(devices)
		}
	}
	return true
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
