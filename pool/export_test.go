package pool

// Ring gives the tests the queue of Workers.
type Ring struct{ ring }

// Push is push.
func (r *Ring) Push(t Task) (ticket uint64) { return r.push(t) }

// Withdraw is withdraw.
func (r *Ring) Withdraw(ticket uint64) bool { return r.withdraw(ticket) }

// Pop is pop.
func (r *Ring) Pop() Task { return r.pop() }

// Len is len.
func (r *Ring) Len() int { return r.len() }

// Cap returns the length of the array.
func (r *Ring) Cap() int { return len(r.buf) }

// Live returns the number of buffers not released, 0 unless invariants.Enabled.
func Live() int {
	live.mu.Lock()
	defer live.mu.Unlock()
	return len(live.set)
}

// Goroutines returns the number of workers, and how many of them are idle.
func (w *Workers) Goroutines() (workers, idle int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.workers, w.idle
}
