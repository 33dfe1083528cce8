package client

import "slices"

// callbacks is the queue of calls of the application. A goroutine runs them one after the
// other; it lives as long as there are some. Guarded by Client.mu.
type callbacks struct {
	waiting []func()
	running bool
}

// callLocked queues a call. If there is no goroutine for it, callLocked starts one, which ends
// with the queue.
func (c *Client) callLocked(fn func()) {
	c.calls.waiting = append(c.calls.waiting, fn)
	if !c.calls.running {
		c.calls.running = true
		c.goroutines++
		go c.runCallbacks()
	}
}

// runCallbacks runs the calls until none waits.
func (c *Client) runCallbacks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.calls.waiting) > 0 {
		calls := c.calls.waiting
		c.calls.waiting = nil
		c.mu.Unlock()
		for _, fn := range calls {
			fn()
		}
		c.mu.Lock()
		c.space.Broadcast()
	}
	c.calls.running = false
	c.goroutineEndedLocked()
}

// awaitSpace waits while many calls wait: the server shall see that the application is slow. It
// does not wait while a request is open, because a callback may need its answer.
func (l *link) awaitSpace() {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.calls.waiting) >= c.maxCallbacks && len(c.sent) == 0 && c.state.Phase != Closed && !l.closing {
		l.stalled = true
		c.space.Wait()
	}
	l.stalled = false
}

// handlers holds the callbacks for notifications, by event. Guarded by Client.mu.
type handlers map[string][]*func(Notify)

// onLocked adds a callback, and returns a function that removes it.
func (h handlers) onLocked(c *Client, event string, fn func(Notify)) (off func()) {
	entry := &fn
	h[event] = append(h[event], entry)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		h[event] = slices.DeleteFunc(slices.Clone(h[event]), func(e *func(Notify)) bool { return e == entry })
	}
}

// deliverLocked queues the calls for a notification.
func (h handlers) deliverLocked(c *Client, n Notify) {
	for _, fn := range h[n.Event] {
		c.callLocked(func() { (*fn)(n) })
	}
}
