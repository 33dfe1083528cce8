package router

import (
	"sync/atomic"

	"github.com/qi-realtime/ws/internal/gid"
)

// chain carries one message through the middleware to its handler. A chain is reused with its
// next, so that a message allocates nothing. It belongs to one goroutine at a time, because
// only the goroutine distinguishes a call of next from a late call for an earlier message.
// Not safe for concurrent use.
type chain[C, M any] struct {
	next  func() error   // the method step; immutable
	owner atomic.Uintptr // the goroutine that handles the message, or 0

	// Only the owner touches these.
	middleware []Middleware[C, M]
	handler    Handler[C, M]
	at         int // number of middleware that have begun
	client     C
	message    M
}

// Call runs h with all middleware around it. A middleware may call next any number of times,
// one after the other, on its own goroutine; see ErrNext. Call allocates nothing.
// Safe for concurrent use.
func (r *Router[C, M]) Call(h Handler[C, M], c C, m M) error {
	middleware := r.table.Load().middleware
	if len(middleware) == 0 {
		return h(c, m)
	}
	ch, ok := r.chains.Get().(*chain[C, M])
	if !ok {
		ch = &chain[C, M]{}
		ch.next = ch.step
	}
	ch.middleware, ch.handler, ch.client, ch.message = middleware, h, c, m
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
	i := ch.at
	ch.at++
	defer func() { ch.at = i }() // for a further call of next, also after a panic
	if i == len(ch.middleware) {
		return ch.handler(ch.client, ch.message)
	}
	return ch.middleware[i](ch.client, ch.message, ch.next)
}
