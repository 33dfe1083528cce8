package router

import (
	"sync/atomic"

	"github.com/qi-realtime/ws/internal/gid"
)

// chain is the way of one message through the middleware to its handler. Its next is made
// once and reused with it, so that a message allocates nothing. It belongs to one goroutine
// at a time: only this tells a call for the message from one for an earlier message.
type chain[C, M any] struct {
	next  func() error   // the method step; immutable
	owner atomic.Uintptr // the goroutine that handles the message; 0 while there is none

	// Only the owner touches these.
	middleware []Middleware[C, M]
	handler    Handler[C, M]
	at         int // how many of them have begun
	client     C
	message    M
}

// Call runs h with all middleware around it. A middleware may call next never, once, or
// several times, one after the other, on its own goroutine; see ErrNext. Call allocates
// nothing. Safe for concurrent use.
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

// end makes next an error, and gives ch back. It also runs when the handler panics.
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
	defer func() { ch.at = i }() // for a middleware that calls next again, also after a panic
	if i == len(ch.middleware) {
		return ch.handler(ch.client, ch.message)
	}
	return ch.middleware[i](ch.client, ch.message, ch.next)
}
