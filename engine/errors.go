package engine

import (
	"errors"
	"net"
)

// Errors of the engine. The root package exports them under its own names, so
// their texts carry its prefix.
var (
	// ErrClosed is returned for a connection that is closed or closing.
	// errors.Is(ErrClosed, net.ErrClosed) holds.
	ErrClosed error = closedError{}
	// ErrQueueFull is returned when a bounded queue has no space: a
	// connection's outbound queue, or a loop's ring for a caller that must not
	// wait.
	ErrQueueFull = errors.New("ws: queue full")
	// ErrTimeout is returned when a loop's ring stayed full.
	ErrTimeout = errors.New("ws: an event loop's ring stayed full")
	// ErrStopped is returned once the engine has stopped or is stopping.
	ErrStopped = errors.New("ws: stopped")
	// ErrRunning is returned by Run when it was called before.
	ErrRunning = errors.New("ws: already running")
)

// closedError is the type of ErrClosed.
type closedError struct{}

func (closedError) Error() string { return "ws: connection closed" }

// Is makes ErrClosed match net.ErrClosed.
func (closedError) Is(target error) bool { return target == net.ErrClosed }
