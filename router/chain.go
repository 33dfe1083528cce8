package router

import (
	"sync/atomic"

	"github.com/qi-realtime/ws/internal/gid"
)

// link is one middleware. Immutable.
type link[C, M any] struct {
	want func(c C, m M) bool // nil: it runs for all messages
	run  Middleware[C, M]
}

// nextLink returns the number of the first middleware from i on that runs for m, or the number of
// all of them.
func nextLink[C, M any](middleware []link[C, M], i int, c C, m M) int {
	for i < len(middleware) && middleware[i].want != nil && !middleware[i].want(c, m) {
		i++
	}
	return i
}

// chain carries one message through the middleware to its handler. A chain is reused with its
// next, so that a message allocates nothing. It belongs to one goroutine at a time, because
// only the goroutine distinguishes a call of next from a late call for an earlier message.
// Not safe for concurrent use.
type chain[C, M any] struct {
	next  func() error   // the method step; immutable
	owner atomic.Uintptr // the goroutine that handles the message, or 0

	// Only the owner touches these.
	middleware []link[C, M]
	handler    Handler[C, M]
	at         int  // number of middleware that have begun, or that were passed over
	asked      bool // middleware at is known to run
	client     C
	message    M
}

// Way is the middleware that a message passes. Immutable.
type Way[C, M any] struct {
	middleware []link[C, M]
	first      int // that runs
}

// Direct reports whether no middleware runs.
func (w Way[C, M]) Direct() bool { return w.first == len(w.middleware) }

// Way asks which middleware runs first for m. Safe for concurrent use.
func (r *Router[C, M]) Way(c C, m M) Way[C, M] {
	middleware := r.table.Load().middleware
	return Way[C, M]{middleware, nextLink(middleware, 0, c, m)}
}

// Call runs h with all middleware around it. A middleware may call next any number of times,
// one after the other, on its own goroutine; see ErrNext. Call allocates nothing.
// Safe for concurrent use.
func (r *Router[C, M]) Call(h Handler[C, M], c C, m M) error { return r.CallOn(r.Way(c, m), h, c, m) }

// CallOn is Call for a message whose way is known. Safe for concurrent use.
func (r *Router[C, M]) CallOn(w Way[C, M], h Handler[C, M], c C, m M) error {
	if w.Direct() {
		return h(c, m)
	}
	ch, ok := r.chains.Get().(*chain[C, M])
	if !ok {
		ch = &chain[C, M]{}
		ch.next = ch.step
	}
	ch.middleware, ch.handler, ch.client, ch.message = w.middleware, h, c, m
	ch.at, ch.asked = w.first, true
	ch.owner.Store(gid.Current())
	defer r.end(ch)
	return ch.step()
}

// end makes later calls of next fail, and puts ch back. It also runs when the handler panics.
func (r *Router[C, M]) end(ch *chain[C, M]) {
	ch.owner.Store(0)
	var noClient C
	var noMessage M
	ch.middleware, ch.handler, ch.client, ch.message = nil, nil, noClient, noMessage
	r.chains.Put(ch)
}

// step runs the next middleware, or the handler behind the last.
func (ch *chain[C, M]) step() error {
	if ch.owner.Load() != gid.Current() || ch.at > len(ch.middleware) {
		return ErrNext
	}
	begun := ch.at
	i := begun
	if !ch.asked {
		i = nextLink(ch.middleware, i, ch.client, ch.message)
	}
	ch.at, ch.asked = i+1, false
	defer func() { ch.at = begun }() // for a further call of next, also after a panic
	if i == len(ch.middleware) {
		return ch.handler(ch.client, ch.message)
	}
	return ch.middleware[i].run(ch.client, ch.message, ch.next)
}
