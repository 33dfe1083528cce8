package redisbroker

import (
	"errors"

	"github.com/qi-realtime/ws"
)

// Errors that callers test for with errors.Is.
var (
	// ErrDown says that there is no connection to the server. It wraps ws.ErrBrokerUnavailable.
	ErrDown error = downError{}
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("redisbroker: closed")
	// ErrStarted is returned by a second Start: a Broker serves one Manager.
	ErrStarted = errors.New("redisbroker: started twice")
	// ErrCluster is the reason why there is no connection to a Redis Cluster without Config.Sharded.
	ErrCluster = errors.New("redisbroker: a Redis Cluster needs Config.Sharded")
	// ErrReplica is the reason why there is no connection to a replica, from which messages would not reach
	// the primary.
	ErrReplica = errors.New("redisbroker: the server is a replica")
	// ErrMoved is the reason for the end of a connection whose subscriptions the server has removed,
	// because their slot has moved to another server.
	ErrMoved = errors.New("redisbroker: the server has removed subscriptions")
)

// downError is the type of ErrDown.
type downError struct{}

func (downError) Error() string { return "redisbroker: no connection to the server" }

func (downError) Unwrap() error { return ws.ErrBrokerUnavailable }
