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

// addLocked adds a callback, and returns the function that removes it, with the lock held.
func (h handlers) addLocked(event string, fn func(Notify)) (removeLocked func()) {
	list := h[event]
	remove := addLocked(&list, fn)
	h[event] = list
	return func() {
		list = h[event]
		if remove(); len(list) > 0 {
			h[event] = list
		} else {
			delete(h, event)
		}
	}
}

// addLocked adds a callback to a list. Calls that wait may still use the old list, so that the list
// is never changed in its place.
func addLocked[F any](list *[]*F, fn F) (removeLocked func()) {
	entry := &fn
	*list = append(slices.Clip(*list), entry)
	return func() {
		*list = slices.DeleteFunc(slices.Clone(*list), func(e *F) bool { return e == entry })
	}
}

// offLocked returns a function for the application that removes a callback.
func (c *Client) offLocked(removeLocked, afterLocked func()) (off func()) {
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		removeLocked()
		afterLocked()
	}
}

// deliverLocked queues the calls for a notification.
func (h handlers) deliverLocked(c *Client, n Notify) {
	for _, fn := range h[n.Event] {
		c.callLocked(func() { (*fn)(n) })
	}
}
