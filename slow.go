package ws

import (
	"sync"
)

// slowWatch reports slow clients to the application, on the worker pool. For each client at
// most one call runs or waits, so an episode that ends before it can be reported is left
// out. Safe for concurrent use.
type slowWatch struct {
	manager *Manager

	mu      sync.Mutex
	pending map[*Client]*slowEdge // guarded by mu; clients with a call that runs or waits
}

// slowEdge is a task of the workers that reports a client as slow, or as slow no more. The
// watch's mu guards its fields.
type slowEdge struct {
	watch    *slowWatch
	client   *Client
	slow     bool // the state now
	reported bool // the state of the last call, or of the one that runs
	bytes    int  // queued when it became slow
}

// note stores the new state of c, and starts a report if none is under way.
func (w *slowWatch) note(c *Client, slow bool, bytes int) {
	if cfg := &w.manager.cfg; cfg.OnSlow == nil && cfg.OnDrain == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pending[c]
	if e == nil {
		e = &slowEdge{watch: w, client: c, reported: !slow}
		w.pending[c] = e
		if !w.manager.workers.Submit(e) {
			delete(w.pending, c) // the manager stops
		}
	}
	e.slow, e.bytes = slow, bytes
}

// Run makes one call, and gives other tasks their turn before the next call.
func (e *slowEdge) Run() {
	w := e.watch
	w.mu.Lock()
	slow, bytes, news := e.slow, e.bytes, e.slow != e.reported
	e.reported = e.slow
	w.mu.Unlock()
	defer e.next()
	if news {
		e.report(slow, bytes)
	}
}

// next submits e again if there is more to report.
func (e *slowEdge) next() {
	w := e.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.slow == e.reported || !w.manager.workers.Submit(e) {
		delete(w.pending, e.client)
	}
}

// report calls OnSlow or OnDrain, and logs a panic in it.
func (e *slowEdge) report(slow bool, bytes int) {
	m := e.watch.manager
	defer protect(nil, m.reportPanic)
	switch {
	case slow && m.cfg.OnSlow != nil:
		m.cfg.OnSlow(e.client, bytes)
	case !slow && m.cfg.OnDrain != nil:
		m.cfg.OnDrain(e.client)
	}
}
