package ws

import (
	"context"
	"log/slog"
	"sync"
	"time"
	"unsafe"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// engineHandler is the Manager as the engine calls it (engine.Handler).
type engineHandler Manager

// engineObserver is the Manager as the engine reports to it (engine.Observer).
type engineObserver Manager

// NewConn returns the connection of a new client.
func (h *engineHandler) NewConn() *engine.Conn { return &(*Manager)(h).newClient().conn }

// Owner returns the client of a connection as the connection calls it. With a RateLimit each
// client is part of a limitedClient; see newClient.
func (h *engineHandler) Owner(conn *engine.Conn) engine.Owner {
	o := (*clientOwner)(ownerOf(conn))
	if h.limits != nil {
		return (*limitedClient)(unsafe.Pointer(o)) // o is its first field
	}
	return o
}

// Abandon forgets a client that Admit has accepted and whose connection never opened.
func (h *engineHandler) Abandon(conn *engine.Conn) { h.clients.abandon(ownerOf(conn)) }

// OnDrop counts a lost message. A conflated message is not lost.
func (o *engineObserver) OnDrop(why engine.DropReason) {
	if why != engine.DropConflated {
		o.metrics.IncrementDroppedMessages()
	}
}

// OnSlow notes that a client has become slow. It runs on the connection's event loop.
func (o *engineObserver) OnSlow(conn *engine.Conn, queuedBytes int) {
	o.slow.note(ownerOf(conn), true, queuedBytes)
}

// OnDrain notes that a client is not slow any more. It runs on the connection's event loop.
func (o *engineObserver) OnDrain(conn *engine.Conn) { o.slow.note(ownerOf(conn), false, 0) }

// OnRoundTrip keeps the client's last round trip. It runs on the connection's event loop.
func (o *engineObserver) OnRoundTrip(conn *engine.Conn, d time.Duration) {
	c := ownerOf(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roundTrip = newRoundTrip(d)
}

// OnReadError counts a connection that the network has ended.
func (o *engineObserver) OnReadError() { o.metrics.IncrementReadErrors() }

// OnWriteError counts a failed write.
func (o *engineObserver) OnWriteError() { o.metrics.IncrementWriteErrors() }

// OnInvalid counts and reports a violation of the protocol.
func (o *engineObserver) OnInvalid(conn *engine.Conn, err error) {
	o.metrics.IncrementInvalidMessages()
	(*Manager)(o).reportError(ownerOf(conn), err)
}

// Go runs fn on a worker, unless ctx ends before a worker is free.
func (h *engineHandler) Go(ctx context.Context, fn func()) bool { return h.auth.start(ctx, fn) }

// ownerOf returns the client of a connection, which lies within it.
func ownerOf(conn *engine.Conn) *Client {
	return (*Client)(unsafe.Add(unsafe.Pointer(conn), -int(unsafe.Offsetof(Client{}.conn))))
}

// clientOwner is the Client as its connection calls it (engine.Owner).
type clientOwner Client

func (o *clientOwner) client() *Client { return (*Client)(o) }

// OnOpen registers the client as connected and welcomes it. It runs on the client's event
// loop.
func (o *clientOwner) OnOpen() {
	c := (*Client)(o)
	m := c.manager
	m.clients.opened(c)
	m.metrics.IncrementConnections()
	m.changed(connectionCount, "")
	c.logConnected()
	c.welcomeInLoop()
}

func (c *Client) logConnected() {
	logger := c.manager.cfg.Logger
	if logger.Enabled(context.Background(), slog.LevelDebug) {
		logger.Debug("ws: client connected", slog.String("client", c.ID), slog.String("user", c.User()),
			slog.String("remote", c.RemoteAddr()))
	}
}

func (c *Client) logDisconnected(end *engine.CloseInfo) {
	logger := c.manager.cfg.Logger
	if logger.Enabled(context.Background(), slog.LevelDebug) {
		logger.Debug("ws: client disconnected", slog.String("client", c.ID), slog.String("user", c.User()),
			slog.Int("code", int(end.Code)), slog.String("reason", end.Reason), slog.Any("error", end.Err))
	}
}

// OnMessage handles a message on the client's event loop, or hands it to workers.
func (o *clientOwner) OnMessage(op codec.Opcode, payload []byte) {
	c := (*Client)(o)
	if c.conn.Closed() && c.isShut() { // CloseWithCode in a drain, whose clients are heard until their close frame
		c.manager.unhandled.Add(1)
		return
	}
	workers := c.manager.workersFor(c, Opcode(op), payload)
	sample := c.conn.Shard().SampleInLoop()
	if workers == nil {
		c.handleTimed(Opcode(op), payload, sample)
		return
	}
	c.enqueue(Opcode(op), payload, workers, sample)
}

// Handling reports whether the caller is the client's handler on a worker.
func (o *clientOwner) Handling() bool { return (*Client)(o).handling() }

// OnEnding reports whether the connection can close now: the messages of the client are
// answered first. It runs on the client's event loop.
func (o *clientOwner) OnEnding() (ready bool) { return !(*Client)(o).resumeWhenRead() }

// OnClosing leaves all rooms, because nothing that is published from here on reaches the
// client. It runs on the client's event loop.
func (o *clientOwner) OnClosing() { (*Client)(o).leaveAllInLoop() }

// OnClose leaves all rooms, drops the inbound messages of a client that has hung up, and
// publishes the disconnect behind the last message that was handled. It runs on the client's
// event loop.
func (o *clientOwner) OnClose(end engine.CloseInfo) {
	c := (*Client)(o)
	m := c.manager
	c.leaveAllInLoop()
	rooms := c.endInLoop()
	if c.dropsInbound(&end) {
		c.dropInbound()
	}
	var closed *CloseError // nil without a subscriber
	if m.EventBus.wants(EventClientDisconnected) {
		closed = &CloseError{Code: int(end.Code), Reason: end.Reason, Remote: end.Remote, Rooms: rooms, Err: end.Err}
	}
	unread := closed != nil && c.hasUnread() // false stays false: only this event loop adds messages
	m.clients.closed(c, closed, unread)
	if unread {
		c.put(inboundMessage{})
	}
	c.logDisconnected(&end)
	m.metrics.DecrementConnections()
	m.changed(connectionCount, "")
}

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
