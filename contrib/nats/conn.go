package natsbroker

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// gate numbers the connections of a Broker, and keeps the messages of a new one back until the node
// knows of it. nats.go reports a new connection later than its first messages. Safe for concurrent
// use.
type gate struct {
	current atomic.Uint64 // the number of the newest connection
	opened  atomic.Uint64 // the connection whose messages may pass

	mu      sync.Mutex
	changed chan struct{} // closed with the next change of opened; guarded by mu
}

func newGate() *gate {
	g := &gate{changed: make(chan struct{})}
	g.current.Store(1)
	return g
}

// isOpen reports whether messages of the newest connection may pass.
func (g *gate) isOpen() bool { return g.opened.Load() == g.current.Load() }

// open lets the messages of a connection pass, if it is the newest one still.
func (g *gate) open(conn uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened.Store(conn)
	close(g.changed)
	g.changed = make(chan struct{})
}

// wait returns true when the gate is open, and false when stop is closed.
func (g *gate) wait(stop <-chan struct{}) bool {
	for !g.isOpen() {
		g.mu.Lock()
		changed := g.changed
		g.mu.Unlock()
		if g.isOpen() {
			return true
		}
		select {
		case <-changed:
		case <-stop:
			return false
		}
	}
	return true
}

// dialer makes the connections of nats.go. Each closes the gate before it is made. Safe for
// concurrent use.
type dialer struct {
	ctx  context.Context // ends a dial, and all connections
	gate *gate
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu   sync.Mutex
	last net.Conn // guarded by mu
}

var (
	_ nats.CustomDialer          = (*dialer)(nil)
	_ nats.InProcessConnProvider = (*dialer)(nil)
)

// Dial makes a connection for nats.go.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.gate.current.Add(1)
	c, err := d.dial(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = c
	if err := d.ctx.Err(); err != nil { // close came too early for this one
		_ = c.Close()
		return nil, err
	}
	return &conn{c}, nil
}

// InProcessConn makes a connection to an embedded server for nats.go.
func (d *dialer) InProcessConn() (net.Conn, error) { return d.Dial("", "") }

// close ends the newest connection, after ctx has ended.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last != nil {
		_ = d.last.Close()
	}
}

// conn ends with the first write that fails. nats.go goes on after a timeout in which nothing was
// written, and forgets all that it had buffered: messages would be lost, and the next PONG would
// confirm them.
type conn struct{ net.Conn }

// Write writes all of p, or closes the connection.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}
