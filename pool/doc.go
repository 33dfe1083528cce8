// Package pool reuses byte buffers and goroutines: the goroutines of a worker pool that starts
// its tasks in order.
//
// The package is a part of ws with no promise of compatibility. Programs use package ws.
package pool
