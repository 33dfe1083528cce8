package ws

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// A client with WithRooms or OnConnect is open for its event loop and for other goroutines
// before its 101 is written: the 101 comes last, so a peer that has read it is in its rooms.

// errConnectTimeout closes a client whose OnConnect takes too long.
var errConnectTimeout = &CloseError{Code: ClosePolicyViolation, Reason: "handshake timeout"}

// welcomeInLoop makes the client, which has just opened, join the rooms of WithRooms, and
// starts OnConnect.
func (c *Client) welcomeInLoop() {
	for _, id := range c.takeFirstRooms() {
		if err := c.JoinRoom(id); err != nil && !errors.Is(err, ErrAlreadyInRoom) {
			c.CloseWithCode(ClosePolicyViolation, strings.TrimPrefix(err.Error(), "ws: "))
			return
		}
	}
	if c.manager.cfg.OnConnect != nil {
		c.conn.HoldInLoop()
		c.startOnConnect()
	}
}

// takeFirstRooms removes and returns the IDs that WithRooms has set.
func (c *Client) takeFirstRooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lazy == nil {
		return nil
	}
	ids := c.lazy.first
	c.lazy.first = nil
	c.dropLazyLocked()
	return ids
}

// startOnConnect calls OnConnect on a worker. The client continues when OnConnect has returned
// or its time has ended.
func (c *Client) startOnConnect() {
	m := c.manager
	var once sync.Once
	finish := func(err error) {
		once.Do(func() {
			if err != nil {
				c.closeFor(err)
			}
			c.conn.Release()
		})
	}
	call := func() {
		err := errGoexit
		defer func() { finish(err) }()
		err = c.callOnConnect()
	}
	late := func() { finish(errConnectTimeout) }
	if !m.greeter.startWithin(m.ctx, m.cfg.HandshakeTimeout, call, late) {
		finish(nil) // Shutdown closes it
	}
}

// callOnConnect calls OnConnect unless the client has gone meanwhile. It logs a panic, and
// returns it as an error.
func (c *Client) callOnConnect() (err error) {
	m := c.manager
	defer protect(nil, func(r any) {
		m.reportPanic(r)
		err = fmt.Errorf("ws: OnConnect panicked: %v", r)
	})
	if c.conn.Closed() {
		return nil
	}
	return m.cfg.OnConnect(c)
}

// closeFor closes the client because of an error of OnConnect.
func (c *Client) closeFor(err error) {
	if end, ok := errors.AsType[*CloseError](err); ok {
		c.CloseWithCode(end.Code, end.Reason)
		return
	}
	c.manager.cfg.Logger.Error("ws: OnConnect failed", slog.String("client", c.ID), slog.Any("error", err))
	c.manager.reportError(c, err)
	c.CloseWithCode(ClosePolicyViolation, "")
}
