package engine

import (
	"sync"
	"sync/atomic"
	"time"
)

// Task is work for a shard's event loop. It runs on that loop, in the order
// in which tasks were posted, and must not block.
type Task interface {
	RunInLoop(s *Shard)
}

// inbox is the one door into a shard: a bounded ring of tasks, and beside it
// an overflow list for the few tasks that must never be lost and whose poster
// must not wait (a leave or a close called by an inline handler while the ring
// is full). An overflow task keeps its place in the order: it carries the
// ring's position at its posting and runs before that position is popped.
//
// Apart from the order there are urgent tasks: a socket that is writable again,
// a handshake that was decided. They neither wait for room nor behind what the
// ring holds.
//
// Safe for concurrent use, except for the methods that say InLoop.
type inbox struct {
	ring *ring[Task]

	// awake is true from a post until the loop has found the inbox empty, so
	// that only the first of many posts wakes the loop.
	awake atomic.Bool

	waiters      atomic.Int32 // producers in wait
	overflowSize atomic.Int32
	urgentSize   atomic.Int32

	mu       sync.Mutex
	space    chan struct{} // closed and replaced when credits come back; guarded by mu
	overflow []overflowTask
	urgent   []Task // guarded by mu
}

// overflowTask is a task with its place in the ring's order.
type overflowTask struct {
	pos  uint64
	task Task
}

func newInbox(size int) *inbox {
	return &inbox{ring: newRing[Task](size), space: make(chan struct{})}
}

// putOverflow appends a task that found no credit, and returns its position.
func (in *inbox) putOverflow(t Task) (pos uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	pos = in.ring.tail.Load()
	in.overflow = append(in.overflow, overflowTask{pos, t})
	in.overflowSize.Add(1)
	return pos
}

// putUrgent adds a task that keeps no order with others.
func (in *inbox) putUrgent(t Task) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.urgent = append(in.urgent, t)
	in.urgentSize.Add(1)
}

// takeUrgentInLoop returns the urgent tasks and forgets them.
func (in *inbox) takeUrgentInLoop() []Task {
	if in.urgentSize.Load() == 0 {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	urgent := in.urgent
	in.urgent = nil
	in.urgentSize.Store(0)
	return urgent
}

// popInLoop takes the next task in order. credit tells whether the task came
// from the ring, whose credit the caller gives back with release.
func (in *inbox) popInLoop() (t Task, credit, ok bool) {
	// Look at the ring first: what a poster put beside it before it filled the
	// next slot is then seen, too.
	ready := in.ring.ready()
	if in.overflowSize.Load() > 0 {
		if t, ok = in.popOverflow(in.ring.head); ok {
			return t, false, true
		}
	}
	if !ready {
		return nil, false, false
	}
	t, ok = in.ring.pop()
	return t, true, ok
}

// popOverflow takes the oldest overflow task that comes before position head.
func (in *inbox) popOverflow(head uint64) (Task, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.overflow) == 0 || in.overflow[0].pos > head {
		return nil, false
	}
	t := in.overflow[0].task
	in.overflow[0] = overflowTask{}
	in.overflow = in.overflow[1:]
	if len(in.overflow) == 0 {
		in.overflow = nil
	}
	in.overflowSize.Add(-1)
	return t, true
}

// release gives n credits back and wakes the producers that wait.
func (in *inbox) release(n int) {
	if n == 0 {
		return
	}
	in.ring.restore(n)
	if in.waiters.Load() == 0 {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	close(in.space)
	in.space = make(chan struct{})
}

// sleepInLoop declares the inbox empty. It returns false if a task came in
// meanwhile that nobody else will wake the loop for.
func (in *inbox) sleepInLoop() bool {
	in.awake.Store(false)
	if !in.ring.ready() && in.overflowSize.Load() == 0 && in.urgentSize.Load() == 0 {
		return true
	}
	return in.awake.Swap(true)
}

// acquire takes a credit; if there is none it waits for one until timeout
// fires or done is closed, and reports whether it got one. A nil timeout never
// fires.
func (in *inbox) acquire(timeout <-chan time.Time, done <-chan struct{}) bool {
	if in.ring.acquire() {
		return true
	}
	in.waiters.Add(1)
	defer in.waiters.Add(-1)
	for {
		in.mu.Lock()
		space := in.space
		in.mu.Unlock()
		if in.ring.acquire() {
			return true
		}
		select {
		case <-space:
		case <-timeout:
			return false
		case <-done:
			return false
		}
	}
}
