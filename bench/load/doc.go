// Package load is the load generator: epoll loops that hold many client
// connections without a goroutine or a buffer for each, the frames that they
// send and parse, and the window in which a load is measured.
package load
