// Package pool holds what is reused: byte buffers, and the goroutines of a worker pool that
// starts its tasks in order.
package pool
