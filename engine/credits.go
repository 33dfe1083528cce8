package engine

import (
	"context"
	"time"
)

// tryAcquire takes a credit and reports whether it got one. It overtakes no
// waiting producer.
func (in *inbox) tryAcquire() bool { return in.waiters.Load() == 0 && in.ring.acquire() }

// acquire takes a credit. If there is none, it waits for one behind the earlier
// producers until the patience ends, and returns the reason of that end.
func (in *inbox) acquire(p patience) error {
	if in.tryAcquire() {
		return nil
	}
	w := &waiter{granted: make(chan struct{}, 1)}
	if in.enlist(w) {
		return nil
	}
	err := p.wait(w.granted)
	if err == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if w.next == nil {
		return nil // granted meanwhile
	}
	in.forgetWaiterLocked(w)
	return err
}

// waiter is a producer that waits for a credit: an element of a circular list.
type waiter struct {
	granted    chan struct{} // receives one value, sent with mu held, when it has a credit
	prev, next *waiter       // nil when it waits no longer; guarded by mu
}

// enlist lets w wait. It returns true if there was a credit for it after all.
func (in *inbox) enlist(w *waiter) (granted bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	end := &in.waiting
	w.prev, w.next = end.prev, end
	end.prev.next, end.prev = w, w
	waiters := in.waiters.Add(1)
	// A release before the line above has seen no waiter, so look once more. A
	// later release finds w.
	if waiters > 1 || !in.ring.acquire() {
		return false
	}
	in.forgetWaiterLocked(w)
	return true
}

// release gives back n credits, first to the producers that wait longest.
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
	for in.waiters.Load() > 0 && in.ring.acquire() {
		w := in.waiting.next
		in.forgetWaiterLocked(w)
		w.granted <- struct{}{}
	}
}

func (in *inbox) forgetWaiterLocked(w *waiter) {
	w.prev.next, w.next.prev = w.next, w.prev
	w.prev, w.next = nil, nil
	in.waiters.Add(-1)
}

// patience ends the wait of a producer at the first of these. Any may be nil.
// The owner of the timeout stops its timer.
type patience struct {
	timeout <-chan time.Time
	ctx     context.Context
	stopped <-chan struct{}
}

// wait waits for granted and returns nil, or an error if the patience ends
// first: ErrTimeout, the context's error, or ErrStopped.
func (p *patience) wait(granted <-chan struct{}) error {
	var done <-chan struct{}
	if p.ctx != nil {
		done = p.ctx.Done()
	}
	select {
	case <-granted:
		return nil
	case <-p.timeout:
		return ErrTimeout
	case <-done:
		return p.ctx.Err()
	case <-p.stopped:
		return ErrStopped
	}
}

// maxRounds is the number of times that a publisher gives back its credits
// because another ring is full.
const maxRounds = 3

// acquireAll takes a credit in the ring of each target. full is the index of a
// full ring, or -1 if the caller already holds all credits.
func (e *Engine) acquireAll(ctx context.Context, targets []*Shard, full int) error {
	if full < 0 {
		return nil
	}
	timer := time.NewTimer(e.cfg.BroadcastTimeout)
	defer timer.Stop()
	p := patience{timeout: timer.C, ctx: ctx, stopped: e.stopped}
	// While one loop is stuck, publishers that wait for it must not use up the
	// other rings: wait for one ring and hold nothing in the rest.
	for range maxRounds {
		if err := targets[full].in.acquire(p); err != nil {
			return err
		}
		next := tryAcquireAll(targets, full)
		if next < 0 {
			return nil
		}
		targets[full].in.release(1)
		full = next
	}
	// Several rings are full, and all of them move, so this could go on for
	// ever. Holding credits while waiting ends, because all publishers do it in
	// the same order.
	for i, s := range targets {
		if err := s.in.acquire(p); err != nil {
			releaseAll(targets[:i], -1)
			return err
		}
	}
	return nil
}

// tryAcquireAll takes a credit in each target except held, whose credit the
// caller holds. If a ring is full, it gives back its credits and returns that
// index, otherwise -1.
func tryAcquireAll(targets []*Shard, held int) (full int) {
	for i, s := range targets {
		if i != held && !s.in.tryAcquire() {
			releaseAll(targets[:i], held)
			return i
		}
	}
	return -1
}

// releaseAll gives back the credits of all targets except held.
func releaseAll(targets []*Shard, held int) {
	for i, s := range targets {
		if i != held {
			s.in.release(1)
		}
	}
}
