package engine

import (
	"context"
	"errors"
	"time"
)

// postState is the part of a Shard that posts of its own loop use.
//
// Loop-confined: use only on the event loop that owns the connections.
type postState struct {
	posted  bool          // the loop itself has posted to its own inbox
	lastOwn uint64        // position of the last such task
	beside  map[*Conn]int // tasks that wait beside a ring, by the connection that is paused for them
}

// Post hands t to the shard's loop and does not wait. It is for tasks whose
// number is bounded for each connection or room: while the ring is full, t is
// kept beside it, in its place in the order. If an event loop posts then, the
// connection of its handled message is paused until t has run. A task is never
// lost while the engine runs.
func (s *Shard) Post(t Task) { s.TryReserve().Post(t) }

// Reserve reserves space for one task, so that the task can be posted where
// nothing may wait: with a lock held that makes a decision and its task one
// step. While the ring is full it waits, and returns ErrTimeout after
// Config.BroadcastTimeout; on an event loop it does not wait, see Post. It
// returns ErrStopped after Stop.
func (s *Shard) Reserve() (Reservation, error) {
	if s.in.tryAcquire() {
		return Reservation{s, true}, nil
	}
	if s.eng.OnLoop() {
		return Reservation{s, false}, nil
	}
	timer := time.NewTimer(s.eng.cfg.BroadcastTimeout)
	defer timer.Stop()
	if err := s.in.acquire(patience{timeout: timer.C, stopped: s.eng.stopped}); err != nil {
		return Reservation{}, err
	}
	return Reservation{s, true}, nil
}

// TryReserve is Reserve without the wait: the space may be beside the ring.
func (s *Shard) TryReserve() Reservation { return Reservation{s, s.in.tryAcquire()} }

// Reservation is a reservation for one task: it must be posted to or released.
type Reservation struct {
	shard  *Shard
	inRing bool // a credit is held; otherwise the task is kept beside the ring
}

// Post hands t to the shard's loop and does not wait.
func (r Reservation) Post(t Task) {
	if r.inRing {
		r.shard.put(t)
		return
	}
	if caller := r.shard.eng.callersShard(); caller != nil {
		caller.postBeside(r.shard, t)
		return
	}
	r.shard.putBeside(t)
}

// Release gives the space back.
func (r Reservation) Release() {
	if r.inRing {
		r.shard.in.release(1)
	}
}

// Reservations are credits in the rings of some shards, for one task each. They are
// used once. Not safe for concurrent use.
type Reservations struct {
	targets []*Shard
	poster  *Shard // the caller's, if the tasks go beside the rings; else nil
}

// ReserveAll acquires a credit in the ring of each target, or none. While a ring is
// full, it waits behind earlier publishers. It returns ErrTimeout after
// Config.BroadcastTimeout, the context's error if that ends first, and ErrStopped
// after Stop. targets is borrowed until Post.
//
// On an event loop it does not wait. While a ring is full, tasks of an inline
// handler are kept in order beside the ring, and the connection of the handled
// message is paused until they have run. ReserveAll returns ErrQueueFull beyond
// maxBesideTasks for one message.
func (e *Engine) ReserveAll(ctx context.Context, targets []*Shard) (Reservations, error) {
	if e.halting.Load() {
		return Reservations{}, ErrStopped
	}
	full := tryAcquireAll(targets, -1)
	if full >= 0 {
		if s := e.callersShard(); s != nil {
			if !s.mayPostBeside(len(targets)) {
				return Reservations{}, ErrQueueFull
			}
			return Reservations{targets, s}, nil
		}
	}
	if err := e.acquireAll(ctx, targets, full); err != nil {
		return Reservations{}, err
	}
	return Reservations{targets, nil}, nil
}

// Post posts t to each target and does not wait. A caller that numbers its messages
// holds one lock while it takes the number and calls Post: then each loop runs the
// tasks in the order of the numbers.
func (r Reservations) Post(t Task) {
	if r.poster != nil {
		for _, s := range r.targets {
			_ = r.poster.postInLoop(s, t) // succeeds, because there was space for all
		}
		return
	}
	for _, s := range r.targets {
		s.noteOwn(s.in.ring.put(t))
	}
	for _, s := range r.targets { // a loop that is woken may take the caller's processor
		s.announce()
	}
}

// Release gives the credits back.
func (r Reservations) Release() {
	if r.poster == nil {
		releaseAll(r.targets, -1)
	}
}

// postUrgent hands t to the shard's loop, ahead of the ring, and never waits.
func (s *Shard) postUrgent(t Task) {
	s.in.putUrgent(t)
	s.wakeUp()
}

// postWait hands t to the shard's loop. If the ring is full, it waits for
// Config.BroadcastTimeout and then returns ErrQueueFull; on an event loop it does
// not wait, see postInLoop. It returns ErrClosed if the engine stops meanwhile.
func (s *Shard) postWait(t Task) error {
	if !s.in.tryAcquire() {
		if caller := s.eng.callersShard(); caller != nil {
			return caller.postInLoop(s, t)
		}
		timer := time.NewTimer(s.eng.cfg.BroadcastTimeout)
		defer timer.Stop()
		err := s.in.acquire(patience{timeout: timer.C, stopped: s.eng.stopped})
		if errors.Is(err, ErrStopped) {
			return ErrClosed
		}
		if err != nil {
			return ErrQueueFull
		}
	}
	s.put(t)
	return nil
}

// put appends a task, for which the caller holds a credit, and wakes the loop.
func (s *Shard) put(t Task) {
	s.noteOwn(s.in.ring.put(t))
	s.announce()
}

// announce makes sure that a task in the inbox is processed: by the loop, or by
// the caller if the loop has ended, perhaps before it saw the task.
func (s *Shard) announce() {
	s.wakeUp()
	if s.eng.halting.Load() && s.eng.isStopped() {
		s.in.drain(s)
	}
}

// noteOwn records the position of a task that the loop posts to itself, so that
// a direct send of the loop does not overtake it.
func (s *Shard) noteOwn(pos uint64) {
	if s.onLoop() {
		s.posted, s.lastOwn = true, pos
	}
}

// caughtUpInLoop reports whether all tasks that this loop has posted to itself
// have run.
func (s *Shard) caughtUpInLoop() bool {
	return !s.posted || (s.rest == nil && s.in.ring.head > s.lastOwn)
}

// wakeUp makes the loop look at its inbox, unless it was already woken.
func (s *Shard) wakeUp() {
	if s.in.awake.Load() || s.in.awake.Swap(true) {
		return
	}
	if s.onLoop() && s.inTurn {
		s.again = true
		return
	}
	s.stats.wakeUps.addShared(1)
	s.eng.gate.RLock()
	defer s.eng.gate.RUnlock()
	if !s.eng.halting.Load() {
		s.driver.wake()
	}
}

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
		c.unpause(pausedByTasks)
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
		c.pause(pausedByTasks)
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
