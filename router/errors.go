package router

import "errors"

var (
	// ErrExists reports that the event has a handler already.
	ErrExists = errors.New("router: event already registered")

	// ErrFrozen reports a Register or Use after Freeze.
	ErrFrozen = errors.New("router: frozen")

	// ErrNilHandler reports a nil handler or middleware.
	ErrNilHandler = errors.New("router: nil handler")

	// ErrEmptyEvent reports an empty event name.
	ErrEmptyEvent = errors.New("router: empty event name")

	// ErrNext is returned by a next that is called on another goroutine than its
	// middleware runs on, or after that has returned. Nothing runs then.
	ErrNext = errors.New("router: next called on another goroutine, or after its middleware returned")
)
