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

	// ErrEnvelope reports a message that is not a valid envelope. ParseEnvelope wraps it
	// with what is wrong and where.
	ErrEnvelope = errors.New("router: invalid envelope")
)
