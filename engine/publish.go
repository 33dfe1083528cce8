package engine

import (
	"context"
	"time"
)

// Publish posts t to each of targets, or to none: it acquires a credit in each
// ring before the first post. While a ring is full, it waits behind earlier
// publishers. It returns ErrTimeout after Config.PublishTimeout, the context's
// error if that ends first, and ErrStopped after Stop.
//
// On an event loop it does not wait. While a ring is full, tasks of an inline
// handler are kept in order beside the ring, and the connection of the handled
// message is paused until they have run. Publish returns ErrQueueFull beyond
// maxBesideTasks for one message.
func (e *Engine) Publish(ctx context.Context, t Task, targets []*Shard) error {
	if e.halting.Load() {
		return ErrStopped
	}
	full := tryAcquireAll(targets, -1)
	if full >= 0 {
		if s := e.callersShard(); s != nil {
			return s.publishInLoop(t, targets)
		}
	}
	if err := e.acquireAll(ctx, targets, full); err != nil {
		return err
	}
	for _, s := range targets {
		s.put(t)
	}
	return nil
}

// maxRounds is the number of times that a publisher gives back its credits
// because another ring is full.
const maxRounds = 3

// publishInLoop is Publish on the loop of s while a ring is full.
func (s *Shard) publishInLoop(t Task, targets []*Shard) error {
	if !s.mayPostBeside(len(targets)) {
		return ErrQueueFull
	}
	for _, target := range targets {
		_ = s.postInLoop(target, t) // succeeds, because there was space for all
	}
	return nil
}

// acquireAll takes a credit in the ring of each target. full is the index of a
// full ring, or -1 if the caller already holds all credits.
func (e *Engine) acquireAll(ctx context.Context, targets []*Shard, full int) error {
	if full < 0 {
		return nil
	}
	timer := time.NewTimer(e.cfg.PublishTimeout)
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
