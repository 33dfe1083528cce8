package engine

import (
	"context"
	"time"
)

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
	for _, s := range r.targets {
		if r.poster != nil {
			_ = r.poster.postInLoop(s, t) // succeeds, because there was space for all
		} else {
			s.put(t)
		}
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
