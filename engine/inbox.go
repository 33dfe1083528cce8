package engine

import (
	"sync"
	"sync/atomic"
)

// Task is work for a shard's event loop. It runs on that loop, in the order of
// posts, and must not block.
type Task interface {
	RunInLoop(s *Shard)
}

// Abandoner is a Task that is notified if it will never run, because the engine
// has stopped.
type Abandoner interface {
	// AbandonTask runs in place of RunInLoop, on any goroutine, and must not
	// block or post. The loop has ended.
	AbandonTask(s *Shard)
}

// inbox is the only entrance into a shard: a bounded ring of tasks, and beside
// it an overflow list for the tasks that must never be lost and whose poster
// must not wait while the ring is full (a leave or a close by an inline
// handler, the answer of a pooled one). An overflow task keeps its place in the
// order: it carries the ring's position at its post and runs before the task at
// that position.
//
// Urgent tasks, such as a socket that is writable again or a handshake that was
// decided, are apart from the order: they wait neither for space nor behind the
// ring.
//
// Safe for concurrent use, except for the methods whose names end in InLoop.
type inbox struct {
	ring *ring[Task]

	// awake is true from a post until the loop has found the inbox empty, so
	// only the first of many posts wakes the loop.
	awake atomic.Bool

	waiters      atomic.Int32 // in the list waiting
	overflowSize atomic.Int32
	urgentSize   atomic.Int32

	mu       sync.Mutex
	waiting  waiter         // heads the circular list of producers that wait; next is the oldest; guarded by mu
	overflow []overflowTask // guarded by mu
	urgent   []Task         // guarded by mu
}

// overflowTask is a task with its place in the ring's order.
type overflowTask struct {
	pos  uint64
	task Task
}

func newInbox(size int) *inbox {
	in := &inbox{ring: newRing[Task](size)}
	in.waiting.prev, in.waiting.next = &in.waiting, &in.waiting
	return in
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

// takeUrgentInLoop takes the urgent tasks.
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

// popInLoop takes the next task in order. credit reports whether it came from
// the ring; then the caller gives back its credit with release.
func (in *inbox) popInLoop() (t Task, credit, ok bool) {
	// Look at the ring first: a task that a poster put beside it before it
	// filled the next slot is then seen, too.
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

// emptyInLoop reports whether no task that was posted before the call waits.
func (in *inbox) emptyInLoop() bool {
	return in.ring.tail.Load() == in.ring.head && in.overflowSize.Load() == 0
}

// sleepInLoop declares the inbox empty. It returns false if a task has come
// meanwhile for which nothing else will wake the loop.
func (in *inbox) sleepInLoop() bool {
	in.awake.Store(false)
	if !in.ring.ready() && in.overflowSize.Load() == 0 && in.urgentSize.Load() == 0 {
		return true
	}
	return in.awake.Swap(true)
}

// drain abandons the waiting tasks after the loop has ended. Safe for
// concurrent use.
func (in *inbox) drain(s *Shard) {
	for _, t := range in.takeAll() {
		if a, ok := t.(Abandoner); ok {
			abandon(a, s)
		}
	}
}

// takeAll takes all tasks, in no order.
func (in *inbox) takeAll() (tasks []Task) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.ring.ready() {
		t, _ := in.ring.pop()
		tasks = append(tasks, t)
	}
	for _, t := range in.overflow {
		tasks = append(tasks, t.task)
	}
	in.overflow = nil
	in.overflowSize.Store(0)
	return tasks
}

func abandon(a Abandoner, s *Shard) {
	defer s.eng.guard("abandon")
	a.AbandonTask(s)
}
