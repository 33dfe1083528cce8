// Package gid identifies the running goroutine.
//
// The library compares goroutines in few places. For example, a publisher may wait for space in
// an event loop's inbox, but an inline handler, which runs on an event loop, must not wait. A
// call like Manager.BroadcastToRoom does not show its caller. The runtime keeps the descriptor
// of the running goroutine in a register. The address of the descriptor is unique and does not
// change while the goroutine lives.
package gid

// Current returns an opaque number that identifies the calling goroutine. It is never 0. No
// other goroutine has the same number while this one lives; a later goroutine may have it.
// Safe for concurrent use.
func Current() uintptr { return getg() }
