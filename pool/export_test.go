package pool

// Ring is the queue of Workers.
type Ring struct{ ring }

// Push adds t and returns its ticket.
func (r *Ring) Push(t Task) (ticket uint64) { return r.push(t) }

// Withdraw puts nil in the place of a task.
func (r *Ring) Withdraw(ticket uint64) bool { return r.withdraw(ticket) }

// Pop takes the oldest task off the ring.
func (r *Ring) Pop() Task { return r.pop() }

// Len returns the number of tasks, withdrawn ones included.
func (r *Ring) Len() int { return r.len() }

// Cap returns the length of the array.
func (r *Ring) Cap() int { return len(r.buf) }

// Live returns the number of buffers in use, 0 unless invariants.Enabled.
func Live() int {
	live.mu.Lock()
	defer live.mu.Unlock()
	return len(live.set)
}

// Goroutines returns the numbers of workers and of idle workers.
func (w *Workers) Goroutines() (workers, idle int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.workers, w.idle
}
