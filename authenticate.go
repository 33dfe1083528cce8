package ws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/pool"
)

// authenticator runs the application's part of handshakes (Authenticate and CheckOrigin, or
// OnConnect) on a bounded number of goroutines, in the order of the requests. A call does
// not begin after the end of its context. A running call that ignores the end of its context
// gives its place to another call.
// Safe for concurrent use.
type authenticator struct {
	// Immutable.
	workers *pool.Workers
	max     int // stuck calls that may give their place to others

	stuck atomic.Int64 // calls that run although their context has ended

	mu       sync.Mutex
	replaced int // guarded by mu; stuck calls that have given their place to others
}

func newAuthenticator(atOnce int, onPanic func(any)) *authenticator {
	return &authenticator{workers: pool.NewWorkers(atOnce, onPanic), max: atOnce}
}

// start calls fn on a worker, unless ctx ends before a worker is free. It returns false
// after the workers have closed.
func (a *authenticator) start(ctx context.Context, fn func()) (ok bool) {
	call := &authCall{owner: a, fn: fn, ended: ctx.Err}
	a.mu.Lock()
	defer a.mu.Unlock()
	call.forget = context.AfterFunc(ctx, call.late)
	call.ticket, ok = a.workers.SubmitTicket(call)
	return ok
}

// startWithin is start for a call that may take d. After d, or when parent ends, it calls
// late on another goroutine unless fn has returned; late may run while fn returns.
func (a *authenticator) startWithin(parent context.Context, d time.Duration, fn, late func()) bool {
	ctx, cancel := context.WithTimeout(parent, d)
	call := &authCall{owner: a, fn: fn, ended: ctx.Err}
	cancelLate, forget := context.AfterFunc(ctx, late), context.AfterFunc(ctx, call.late)
	call.forget = func() bool {
		cancelLate()
		forgotten := forget()
		cancel()
		return forgotten
	}
	return a.workers.Submit(call)
}

// do starts fn and waits until fn has returned or ctx has ended. It returns the error of
// ctx; fn may still run then.
func (a *authenticator) do(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	started := a.start(ctx, func() {
		defer close(done)
		fn()
	})
	if !started {
		return ErrManagerStopped
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// authCall is one call that waits or runs in an authenticator.
type authCall struct {
	owner  *authenticator
	ended  func() error // of the call's context; late runs a little after its end
	forget func() bool  // stops late; it also ends a context that belongs to the call

	// Guarded by owner.mu.
	fn       func() // nil when it runs or must not run
	ticket   pool.Ticket
	running  bool
	stuck    bool
	replaced bool
}

// Run implements pool.Task.
func (c *authCall) Run() {
	a := c.owner
	a.mu.Lock()
	fn := c.fn
	if c.ended() != nil {
		fn = nil
	}
	c.fn, c.running = nil, fn != nil
	a.mu.Unlock()
	if fn == nil {
		return
	}
	defer c.returned()
	fn()
}

// late runs at the end of the call's context.
func (c *authCall) late() {
	a := c.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	c.fn = nil
	if !c.running {
		a.workers.Withdraw(c.ticket)
		return
	}
	c.stuck = true
	a.stuck.Add(1)
	if a.replaced < a.max {
		a.replaced++
		c.replaced = true
		a.workers.Grow(1)
	}
}

// returned runs after fn has returned or has ended its goroutine.
func (c *authCall) returned() {
	c.forget()
	a := c.owner
	a.mu.Lock()
	defer a.mu.Unlock()
	c.running = false
	if c.stuck {
		a.stuck.Add(-1)
	}
	if c.replaced {
		a.replaced--
		a.workers.Grow(-1)
	}
}

// close waits for the running calls.
func (a *authenticator) close() {
	_ = a.workers.Close(context.Background()) // an error would be the context's
}

// guarded calls fn, code of the application that decides on r. It runs fn on a worker, where a
// request over the loop is already, and waits no longer than the context of r. A panic is
// logged, and refuses r with 500, as the end of the goroutine does.
func (m *Manager) guarded(r *http.Request, from requestPath, fn func() error) error {
	if from == overLoop {
		return m.recovered(fn)
	}
	var result error = errInternal(errors.New("ws: the goroutine ended"))
	err := m.auth.do(r.Context(), func() { result = m.recovered(fn) })
	switch {
	case err == nil:
		return result
	case errors.Is(err, ErrManagerStopped):
		return err
	}
	return m.lateError(err)
}

// recovered calls fn. A panic is logged and refuses the request with 500.
func (m *Manager) recovered(fn func() error) (err error) {
	defer protect(nil, func(r any) {
		m.reportPanic(r)
		err = errInternal(fmt.Errorf("ws: panic: %v", r))
	})
	return fn()
}

// lateError refuses a request because its context has ended.
func (m *Manager) lateError(late error) error {
	if err := m.stopped(); err != nil {
		return err
	}
	return refuse(refusedTimeout, http.StatusRequestTimeout, "handshake timeout", late)
}
