package router

import "errors"

var (
	// ErrExists reports an event that already has a handler.
	ErrExists = errors.New("router: event already registered")

	// ErrFrozen reports a Register or Use after Freeze.
	ErrFrozen = errors.New("router: frozen")

	// ErrNilHandler reports a nil handler or middleware.
	ErrNilHandler = errors.New("router: nil handler")

	// ErrEmptyEvent reports an empty event name.
	ErrEmptyEvent = errors.New("router: empty event name")

	// ErrNext reports a call of next on another goroutine than its middleware's, or after
	// the middleware has returned. Nothing runs then.
	ErrNext = errors.New("router: next called on another goroutine, or after its middleware returned")
)
