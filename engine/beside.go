package engine

// maxBesideTasks bounds the tasks that one message of an inline handler may put
// beside full rings. A publish or a send beyond it returns ErrQueueFull.
const maxBesideTasks = 1024

// besideTask is a task that an inline handler posted while the ring was full.
// It waits beside the ring, in its place in the order, and the connection of
// the handled message is paused until it has run. So a client whose handler
// publishes faster than a loop works waits, nothing is refused, and each
// connection adds the tasks of at most one message to the list beside a ring.
type besideTask struct {
	Task
	conn *Conn
}

func (t *besideTask) RunInLoop(s *Shard) {
	defer func() {
		if s.rest == nil {
			t.done(s)
		} else { // the task continues in a later turn
			s.rest = &besideTask{s.rest, t.conn}
		}
	}()
	t.Task.RunInLoop(s)
}

// AbandonTask implements Abandoner. The connection ends with its loop.
func (t *besideTask) AbandonTask(s *Shard) {
	if a, ok := t.Task.(Abandoner); ok {
		a.AbandonTask(s)
	}
}

// done reports to the connection's loop that the task has run.
func (t *besideTask) done(s *Shard) {
	if t.conn.shard == s {
		s.besideDone(t.conn)
		return
	}
	t.conn.shard.postUrgent((*besideDoneTask)(t.conn))
}

type besideDoneTask Conn

func (t *besideDoneTask) RunInLoop(s *Shard) { s.besideDone((*Conn)(t)) }

// besideDone counts down the tasks for which c is paused.
func (s *Shard) besideDone(c *Conn) {
	n := s.beside[c]
	switch {
	case n > 1:
		s.beside[c] = n - 1
	case n == 1:
		delete(s.beside, c)
		s.unpause(c, pausedByTasks)
	}
}

// mayPostBeside reports whether the message that this loop handles, if there is
// one, may put n more tasks beside full rings.
func (s *Shard) mayPostBeside(n int) bool {
	return s.reading != nil && s.beside[s.reading]+n <= maxBesideTasks
}

// postBeside puts t, which found no space in the ring of target, beside it. The
// caller runs on the loop of s. Without a handled message no connection is
// paused.
func (s *Shard) postBeside(target *Shard, t Task) {
	if c := s.reading; c != nil {
		if s.beside == nil {
			s.beside = make(map[*Conn]int)
		}
		s.beside[c]++
		s.pause(c, pausedByTasks)
		t = &besideTask{t, c}
	}
	target.putBeside(t)
}

// putBeside puts t beside the ring. It pauses no connection.
func (s *Shard) putBeside(t Task) {
	s.noteOwn(s.in.putOverflow(t))
	s.announce()
}

// postInLoop posts t to target from the loop of s, into the ring or beside it.
// It returns ErrQueueFull if the handled message has put too many tasks beside.
func (s *Shard) postInLoop(target *Shard, t Task) error {
	if target.in.tryAcquire() {
		target.put(t)
		return nil
	}
	if !s.mayPostBeside(1) {
		return ErrQueueFull
	}
	s.postBeside(target, t)
	return nil
}
