package natsbroker

import "errors"

// Errors that callers test for with errors.Is.
var (
	// ErrDown says that there is no connection to a server.
	ErrDown = errors.New("natsbroker: no connection to a server")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("natsbroker: closed")
	// ErrStarted is returned by a second Start: a Broker serves one Manager.
	ErrStarted = errors.New("natsbroker: started twice")
)
