package engine

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// maxWait is the longest wait of a loop by itself. gnet does not report whether it has
	// taken a task of its own in the round of the callback; such a task waits as long.
	maxWait = 10 * time.Millisecond
	// yieldInterval is the time after which a loop lets goroutines run that wait for its
	// processor, because no other is idle.
	yieldInterval = time.Millisecond
)

// loopWait is the wait of a loop for events at the end of a callback, in place of
// gnet's wait between callbacks.
//
// Before gnet waits it looks for events once more and calls the scheduler. This wakes a
// thread that looks for goroutines to run and finds none, whenever a processor is idle:
// at a low rate of messages it takes as much time as the messages. So the loop waits at
// the end of its callbacks, by one call of epoll_wait on gnet's own epoll, and returns to
// gnet when other descriptors have events. They are level-triggered: gnet finds them at
// once.
//
// The loop waits so only while the process has more processors than loops. Without an
// idle processor the call of the scheduler costs little, and other goroutines need it.
//
// Loop-confined, except for state.
type loopWait struct {
	// state decides how a goroutine that has set inbox.awake makes the loop take its turn.
	state atomic.Uint32

	poll    eventPoll
	skip    int           // callbacks without a wait, because gnet has other events to bring
	yielded time.Duration // when the loop last called the scheduler
}

// The states of a loopWait.
const (
	notWaiting = iota // the waker makes the loop take a turn
	yielding          // the loop looks at its inbox before it waits
	waiting           // a kick ends the wait, and the loop looks at its inbox
)

// allowWaits decides whether loops wait by themselves from now on. The environment
// overrules it, for tests and measurements.
func (e *Engine) allowWaits() {
	switch os.Getenv("WS_OWN_WAITS") {
	case "on":
		e.ownWaits.Store(true)
	case "off":
	default:
		e.ownWaits.Store(spareProcessor())
	}
}

// await waits until descriptors have events for gnet, unless gnet has some already, and
// meanwhile takes the turns that others ask for. It runs at the end of a callback.
func (l *gnetLoop) await() {
	s, w, r := l.shard, &l.wait, l.ready.Load()
	if !s.eng.ownWaits.Load() || !r.canKick() {
		return
	}
	if w.skip > 0 {
		w.skip--
		return
	}
	began, took := s.work.ended, false // whether poll took an event of the eventfd out of the epoll
	for s.mayWait() {
		w.letOthersRun(s)
		s.stats.waits.add(1)
		others, kicked := w.once(s, r)
		took = took || kicked
		posted := s.in.awake.Load()
		if posted {
			s.guardedTurn()
		}
		if others > 0 || !posted || s.work.ended-began > maxWait {
			w.skip = max(0, others-1)
			break
		}
	}
	if took { // perhaps gnet has kicked as well
		r.kickAgain()
	}
}

// mayWait reports whether no turn at the inbox is due, and no connection comes as a task
// of gnet.
func (s *Shard) mayWait() bool {
	return !s.in.awake.Load() && s.enrolls.Load() == 0 && !s.eng.halting.Load()
}

// letOthersRun calls the scheduler, if a callback has given work to another goroutine or
// the last call was long ago.
func (w *loopWait) letOthersRun(s *Shard) {
	if !s.handedOver && s.work.ended-w.yielded <= yieldInterval {
		return
	}
	s.handedOver, w.yielded = false, s.work.ended
	w.state.Store(yielding)
	runtime.Gosched()
}

// once waits once. It returns the number of descriptors that have events for gnet, and
// whether the loop's eventfd has one.
func (w *loopWait) once(s *Shard, r *readiness) (others int, kicked bool) {
	w.state.Store(waiting)
	defer w.state.Store(notWaiting)
	if !s.mayWait() {
		return 0, false
	}
	return w.poll.wait(r)
}

// wake makes the loop take a turn at the inbox. Safe for concurrent use.
func (l *gnetLoop) wake() {
	switch l.wait.state.Load() {
	case yielding:
		return
	case waiting:
		if l.ready.Load().kick() == nil {
			return
		}
	}
	l.yield()
}

// HandOverInLoop records that the running callback gives work to another goroutine.
// The loop lets that run before it waits.
func (c *Conn) HandOverInLoop() {
	if s := c.shard; s != nil {
		s.handedOver = true
	}
}
