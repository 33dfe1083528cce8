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

// authenticator runs the application's part of handshakes, Authenticate,
// CheckOrigin and OnConnect, on a bounded number of goroutines, in the order in which the
// requests came. A call whose context has ended is not begun; one that goes on
// after that, because it ignores its context, gives its place to another.
// Safe for concurrent use.
type authenticator struct {
	// Immutable.
	workers *pool.Workers
	max     int // calls that may be replaced while they go on

	stuck atomic.Int64 // calls that go on after their context has ended

	mu       sync.Mutex
	replaced int // guarded by mu; calls that have given their place to another
}

func newAuthenticator(cfg *Config, onPanic func(any)) *authenticator {
	return &authenticator{workers: pool.NewWorkers(cfg.Workers, onPanic), max: cfg.Workers}
}

// start calls fn on a worker, unless ctx ends before its turn comes. It returns
// false once the workers are closed.
func (a *authenticator) start(ctx context.Context, fn func()) (ok bool) {
	call := &authCall{owner: a, fn: fn}
	a.mu.Lock()
	defer a.mu.Unlock()
	call.forget = context.AfterFunc(ctx, call.late)
	call.ticket, ok = a.workers.SubmitTicket(call)
	return ok
}

// startWithin is start for a call that may take d. If it has not returned by then, or if
// parent ends, late is called on another goroutine, perhaps though the call returns
// just then.
func (a *authenticator) startWithin(parent context.Context, d time.Duration, fn, late func()) bool {
	ctx, cancel := context.WithTimeout(parent, d)
	call := &authCall{owner: a, fn: fn}
	cancelLate, forget := context.AfterFunc(ctx, late), context.AfterFunc(ctx, call.late)
	call.forget = func() bool {
		cancelLate()
		forgotten := forget()
		cancel()
		return forgotten
	}
	return a.workers.Submit(call)
}

// do is start, and waits for the call's end or that of ctx, whose error it
// returns then. fn may go on.
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

// authCall is one call in the line of an authenticator.
type authCall struct {
	owner  *authenticator
	forget func() bool // of late; it also ends the context, if that is the call's own

	// Guarded by owner.mu.
	fn       func() // nil once it runs or is not to run
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
	c.fn, c.running = nil, fn != nil
	a.mu.Unlock()
	if fn == nil {
		return
	}
	defer c.returned()
	fn()
}

// late runs when the call's context ends.
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

// returned runs when fn has returned, or ended its goroutine.
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

// close waits for the calls that run.
func (a *authenticator) close() {
	_ = a.workers.Close(context.Background()) // an error would be the context's
}

// guarded calls fn, which decides on r, and runs user code if foreign is set: on a
// worker then, as a request over the loop is already, and no longer than r's
// context. A panic is logged and refuses with 500, and so does the end of the
// goroutine.
func (m *Manager) guarded(r *http.Request, from requestPath, foreign bool, fn func() error) error {
	if from == overLoop || !foreign {
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

// recovered calls fn; a panic is logged and refuses with 500.
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
