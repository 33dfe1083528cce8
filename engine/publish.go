package engine

import (
	"context"
	"time"
)

// Publish posts t to each of targets, or to none of them: it holds a place in all
// rings before it posts to the first. While a ring is full it waits, behind
// those who came before; ErrTimeout after Config.PublishTimeout, the context's
// error if that ends first. It returns ErrStopped after Stop.
//
// On an event loop it does not wait. What an inline handler publishes while a
// ring is full is kept in order beside the ring, and the connection whose message
// is being handled is paused until it has been fanned out. Publish returns
// ErrQueueFull for what one message publishes beyond maxBesideTasks.
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

// maxRounds is how often a publisher that finds one ring after the other full
// gives back what it has.
const maxRounds = 3

// publishInLoop is Publish on the loop of s while a ring is full.
func (s *Shard) publishInLoop(t Task, targets []*Shard) error {
	if !s.mayPostBeside(len(targets)) {
		return ErrQueueFull
	}
	for _, target := range targets {
		_ = s.postInLoop(target, t) // succeeds, as there was space for all
	}
	return nil
}

// acquireAll takes a credit in the ring of each target. full is the index of a
// ring that was full, or -1 if it has all credits already.
func (e *Engine) acquireAll(ctx context.Context, targets []*Shard, full int) error {
	if full < 0 {
		return nil
	}
	timer := time.NewTimer(e.cfg.PublishTimeout)
	defer timer.Stop()
	p := patience{timeout: timer.C, ctx: ctx, stopped: e.stopped}
	// While one loop is stuck, those who wait for it must not use up the rings
	// of the others: wait for one ring with nothing held in the rest.
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
	// Several rings are full, and all of them move: that could go on for ever.
	// Holding and waiting ends, if all do it in the same order.
	for i, s := range targets {
		if err := s.in.acquire(p); err != nil {
			releaseAll(targets[:i], -1)
			return err
		}
	}
	return nil
}

// tryAcquireAll takes a credit in each target but held, whose credit the
// caller has. If one is full it gives back what it took and returns its index,
// else -1.
func tryAcquireAll(targets []*Shard, held int) (full int) {
	for i, s := range targets {
		if i != held && !s.in.tryAcquire() {
			releaseAll(targets[:i], held)
			return i
		}
	}
	return -1
}

// releaseAll gives back the credits of all targets but held.
func releaseAll(targets []*Shard, held int) {
	for i, s := range targets {
		if i != held {
			s.in.release(1)
		}
	}
}
