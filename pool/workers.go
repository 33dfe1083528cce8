package pool

import (
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

// Task is a piece of work for Workers.
type Task interface {
	// Run does the work, on a goroutine of the Workers. It may block. It may call all
	// methods of Workers but Close, which would wait for it.
	Run()
}

// Workers runs tasks on a bounded number of goroutines. It starts goroutines on demand, and
// tasks in the order submitted. Tasks that find no free goroutine wait in a queue without
// bound: the caller limits their number. Safe for concurrent use.
type Workers struct {
	// Immutable after NewWorkers.
	maxIdle int
	onPanic func(recovered any)
	done    chan struct{} // closed after Close, when the last worker has ended

	// Guarded by mu.
	mu      sync.Mutex
	max     int       // most workers
	wake    sync.Cond // on mu; idle workers wait for it
	tasks   ring      // tasks that wait
	gaps    int       // places in tasks whose task was withdrawn
	workers int       // goroutines, busy or idle
	idle    int       // workers that wait for wake and were not signaled
	running int       // tasks that run
	closed  bool

	// searching is true while a started or woken worker has not yet looked for a task. Only
	// one worker searches at a time. When it has a task and more tasks wait, it wakes the next
	// worker. So Submit, which event loops call, pays for at most one wake-up in a burst.
	// Invariant: if tasks wait, a worker searches or all max workers are busy.
	searching bool
}

// NewWorkers returns a pool of at most maxWorkers goroutines. None runs yet. The pool keeps two
// idle goroutines for each CPU (GOMAXPROCS), and ends the others.
//
// onPanic gets the panic of a task, on the worker's goroutine, where a stack trace shows the
// function that panicked. The worker goes on afterwards. onPanic must not panic. It holds up
// one worker while it runs. It may call all methods of Workers but Close. With a nil onPanic a
// panic is not recovered.
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

// Submit queues t behind all waiting tasks and returns at once. After Close it returns false
// and does not run t. Safe for concurrent use.
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

// Withdraw takes a submitted task off the queue, so that w does not refer to it any more. If a
// worker has taken the task already, it has no effect and returns false.
// Safe for concurrent use.
func (w *Workers) Withdraw(ticket Ticket) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tasks.withdraw(uint64(ticket)) {
		return false
	}
	w.gaps++
	return true
}

// wakeLocked lets one more worker search, if tasks wait, no worker searches, and an idle or a
// further worker is available.
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

// yieldTime is the time of unbroken work after which a worker lets other goroutines run. An
// event loop that returns from a system call has no processor until one is given up, and
// workers that always find a task and never block keep theirs for 10 ms.
const yieldTime = 100 * time.Microsecond

// work is the goroutine of one worker.
func (w *Workers) work() {
	pprof.SetGoroutineLabels(context.Background()) // it has those of the goroutine that started it
	w.mu.Lock()
	defer w.exitLocked()
	w.searching = false
	began := time.Now() // of the unbroken work
	for {
		for w.tasks.len() == 0 {
			if w.closed || w.idle >= w.maxIdle || w.workers > w.max {
				return
			}
			w.idle++
			w.wake.Wait() // the signaling side subtracts it from idle
			w.searching = false
			began = time.Now()
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
		if now := time.Now(); now.Sub(began) >= yieldTime {
			w.mu.Unlock()
			runtime.Gosched()
			w.mu.Lock()
			began = time.Now()
		}
	}
}

// Grow adds n, which may be negative, to the greatest number of workers. The worker of a task
// that does not end is replaced so: with Grow(1) for as long as the task runs.
// Safe for concurrent use.
func (w *Workers) Grow(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.max += n
	w.wakeLocked()
}

// runUnlocked runs t without mu. It holds mu again when t ends, by return, panic or
// runtime.Goexit.
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

// exitLocked ends a worker and unlocks mu. Tasks wait here only if Goexit ended the worker.
func (w *Workers) exitLocked() {
	w.workers--
	w.wakeLocked()
	if w.closed && w.workers == 0 {
		close(w.done)
	}
	w.mu.Unlock()
}

// Close makes Submit return false. It waits until all tasks have run, waiting ones included,
// and all workers have ended. If ctx ends first, it returns ctx.Err. The tasks run all the
// same, and a further Close waits for them. Safe for concurrent use.
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

// Waiting returns the number of tasks that have not started. Safe for concurrent use.
func (w *Workers) Waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks.len() - w.gaps
}
