package pool

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// Task is a piece of work for Workers.
type Task interface {
	// Run does the work, on a goroutine of the Workers. It may block, and may call
	// everything of Workers except Close, which would wait for it.
	Run()
}

// Workers runs tasks on a bounded number of goroutines, which it starts when they are
// needed, and starts the tasks in the order submitted. Tasks that find no free goroutine
// wait in a queue without bound: the caller limits what it submits. Safe for concurrent use.
type Workers struct {
	// Immutable after NewWorkers.
	maxIdle int
	onPanic func(recovered any)
	done    chan struct{} // closed after Close, when the last worker ended

	// Guarded by mu.
	mu      sync.Mutex
	max     int       // workers
	wake    sync.Cond // on mu; idle workers wait for it
	tasks   ring      // waiting
	gaps    int       // places in tasks whose task was withdrawn
	workers int       // goroutines, however busy
	idle    int       // workers that wait for wake and were not signaled
	running int       // tasks
	closed  bool

	// searching is true while a worker that was started or woken has not looked for a task
	// yet. Only one searches at a time; once it has a task and more wait, it wakes the next.
	// So Submit, which event loops call, pays for one wake-up at most in a whole burst.
	// Holds: if tasks wait, then a worker searches or all max workers are busy.
	searching bool
}

// NewWorkers returns a pool of at most maxWorkers goroutines; none runs yet. Of those without a
// task it keeps two for each CPU (GOMAXPROCS), and ends the others.
//
// A panic of a task goes to onPanic, on the worker's goroutine, whose stack trace then has the
// function that panicked; the worker goes on. onPanic must not panic, and holds up one worker
// while it runs; it may call everything of Workers except Close. If it is nil, a panic is not
// recovered.
//
// NewWorkers panics if maxWorkers is less than 1.
func NewWorkers(maxWorkers int, onPanic func(recovered any)) *Workers {
	if maxWorkers < 1 {
		panic(fmt.Sprintf("pool: NewWorkers with maxWorkers %d, want 1 or more", maxWorkers))
	}
	w := &Workers{
		max:     maxWorkers,
		maxIdle: min(maxWorkers, 2*runtime.GOMAXPROCS(0)),
		onPanic: onPanic,
		done:    make(chan struct{}),
	}
	w.wake.L = &w.mu
	return w
}

// Submit queues t to be run, behind all that wait, and returns at once. It returns false,
// and will not run t, after Close. Safe for concurrent use.
func (w *Workers) Submit(t Task) bool {
	_, ok := w.SubmitTicket(t)
	return ok
}

// Ticket names one submission of a task. No submission has the zero value.
type Ticket uint64

// SubmitTicket is Submit for a task that may be withdrawn. Safe for concurrent use.
func (w *Workers) SubmitTicket(t Task) (ticket Ticket, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, false
	}
	ticket = Ticket(w.tasks.push(t))
	w.wakeLocked()
	return ticket, true
}

// Withdraw takes a task back that was submitted to w and waits for a worker, so that
// w does not refer to it any more. It returns false, and has no effect, if a worker has
// taken it. Safe for concurrent use.
func (w *Workers) Withdraw(ticket Ticket) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tasks.withdraw(uint64(ticket)) {
		return false
	}
	w.gaps++
	return true
}

// wakeLocked sets a worker searching if tasks wait, none searches, and there may be one more.
func (w *Workers) wakeLocked() {
	if w.searching || w.tasks.len() == 0 {
		return
	}
	if w.idle > 0 {
		w.idle--
		w.searching = true
		w.wake.Signal()
	} else if w.workers < w.max {
		w.workers++
		w.searching = true
		go w.work() // owner: w; ends when idle or after Close, which waits for it
	}
}

// work is one worker.
func (w *Workers) work() {
	w.mu.Lock()
	defer w.exitLocked()
	w.searching = false
	for {
		for w.tasks.len() == 0 {
			if w.closed || w.idle >= w.maxIdle || w.workers > w.max {
				return
			}
			w.idle++
			w.wake.Wait() // whoever signals takes it off idle
			w.searching = false
		}
		if w.workers > w.max {
			return // another worker goes on
		}
		t := w.tasks.pop()
		if t == nil {
			w.gaps--
			continue
		}
		w.wakeLocked()
		w.runUnlocked(t)
	}
}

// Grow adds n to the greatest number of workers, or takes -n away. A task that does not end
// can so be replaced: Grow(1) for as long as it runs. Safe for concurrent use.
func (w *Workers) Grow(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.max += n
	w.wakeLocked()
}

// runUnlocked runs t without mu and holds mu again when it ends, however t ends: by
// return, panic or runtime.Goexit.
func (w *Workers) runUnlocked(t Task) {
	w.running++
	w.mu.Unlock()
	defer func() {
		if w.onPanic != nil {
			if recovered := recover(); recovered != nil {
				w.onPanic(recovered)
			}
		}
		w.mu.Lock()
		w.running--
	}()
	t.Run()
}

// exitLocked ends a worker and unlocks mu. Tasks wait here only if Goexit ended it.
func (w *Workers) exitLocked() {
	w.workers--
	w.wakeLocked()
	if w.closed && w.workers == 0 {
		close(w.done)
	}
	w.mu.Unlock()
}

// Close makes Submit return false, and waits until all tasks, those waiting included, were
// run and all workers ended. It returns ctx.Err if ctx ends first; the tasks run all the
// same, and Close may be called again to wait for them. Safe for concurrent use.
func (w *Workers) Close(ctx context.Context) error {
	w.closeSubmit()
	select {
	case <-w.done:
		return nil
	default:
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *Workers) closeSubmit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	w.idle = 0
	w.wake.Broadcast()
	if w.workers == 0 {
		close(w.done)
	}
}

// Running returns the number of tasks that run now. Safe for concurrent use.
func (w *Workers) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}

// Waiting returns the number of tasks not yet started. Safe for concurrent use.
func (w *Workers) Waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks.len() - w.gaps
}
