package ws

import (
	"context"
	"net/http"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// engineHandler is the Manager as the engine calls it (engine.Handler).
type engineHandler Manager

// engineObserver is the Manager as the engine reports to it (engine.Observer).
type engineObserver Manager

// NewConn returns the connection of a new client.
func (h *engineHandler) NewConn() *engine.Conn { return &(*Manager)(h).newClient().conn }

// AdmitOffLoop reports whether Admit calls code of the application for r.
func (h *engineHandler) AdmitOffLoop(r *http.Request) bool {
	return (h.cfg.Authenticate != nil || h.cfg.CheckOrigin != nil) && h.cfg.serviceOf(r) == serveWebSocket
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

// ownerOf returns the client of a connection.
func ownerOf(conn *engine.Conn) *Client {
	return conn.Owner().(interface{ client() *Client }).client()
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
	c.welcomeInLoop()
}

// OnMessage handles a message on the client's event loop, or hands it to workers.
func (o *clientOwner) OnMessage(op codec.Opcode, payload []byte) {
	c := (*Client)(o)
	workers := c.manager.workersFor(c, Opcode(op), payload)
	if workers == nil {
		c.handle(Opcode(op), payload)
		return
	}
	c.enqueue(Opcode(op), payload, workers)
}

// Handling reports whether the caller is the client's handler on a worker.
func (o *clientOwner) Handling() bool { return (*Client)(o).handling() }

// OnPeerClose reports whether the client's close frame can be answered now: the messages
// before it are answered first. It runs on the client's event loop.
func (o *clientOwner) OnPeerClose() (ready bool) { return !(*Client)(o).resumeWhenRead() }

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
	m.metrics.DecrementConnections()
	m.changed(connectionCount, "")
}
