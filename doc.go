// Package ws is a WebSocket server library for massive fan-out: it holds 10,000
// to 1,000,000 connections in one process and sends messages to them through
// rooms, users and broadcasts.
//
// Connections live on event loops (gnet), not on goroutines. Each loop owns a
// shard of the state, and everything reaches it through one bounded lock-free
// ring, so that a connection sees one publisher's messages in the order sent.
// A broadcast is encoded once, and every member's queue refers to the same
// bytes.
//
// A Manager serves connections that a net/http server accepted (HandleUpgrade),
// connections that its own loops accept (WithListenAddr), or both. Register
// typed handlers with Handle, Handle0 and HandleOnly; send with the methods of
// Client and the Broadcast methods of Manager.
//
// Handlers run on a worker pool, one message of a connection at a time and in
// order, so they may block. See HandlerMode for handlers that run on the event
// loop itself.
//
// The package is made for Linux. On macOS and the BSDs it runs for development:
// connections cannot be paused there. It does not build for Windows.
package ws
