package natsbroker

import (
	"errors"
	"fmt"

	"github.com/qi-realtime/ws"
)

// Errors that callers test for with errors.Is.
var (
	// ErrDown says that there is no connection to a server. It wraps ws.ErrBrokerUnavailable.
	ErrDown = fmt.Errorf("natsbroker: no connection to a server: %w", ws.ErrBrokerUnavailable)
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("natsbroker: closed")
	// ErrStarted is returned by a second Start: a Broker serves one Manager.
	ErrStarted = errors.New("natsbroker: started twice")
)
