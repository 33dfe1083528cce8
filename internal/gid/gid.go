// Package gid tells whether two pieces of code run on the same goroutine.
//
// The library needs this in one place: a publisher may wait for room in an
// event loop's inbox, but an inline handler, which runs on an event loop, must
// not, and nothing in a call like Manager.BroadcastToRoom says who calls. The
// runtime keeps the running goroutine's descriptor in a register; its address
// is unique and does not change while the goroutine lives.
package gid

// Current returns an opaque number that identifies the calling goroutine. It
// is never 0, and no other goroutine has it while this one lives; a later
// goroutine may get it again. Safe for concurrent use.
func Current() uintptr { return getg() }
