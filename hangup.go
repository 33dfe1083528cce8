package ws

import (
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/pool"
)

// hungUp reports whether a connection has ended without a close handshake: then nobody waits
// for the answers to its messages.
func hungUp(end *engine.CloseInfo) bool { return end.Err != nil || end.Code == codec.CloseAbnormal }

// dropsInbound reports whether the end of the connection drops the messages that wait.
func (c *Client) dropsInbound(end *engine.CloseInfo) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shut || hungUp(end)
}

// dropInbound drops the messages that wait for a worker, and the client's place in the
// workers' queue, at once: their memory must not wait until a worker is free.
func (c *Client) dropInbound() {
	c.mu.Lock()
	box := c.mailboxLocked()
	if box == nil {
		c.mu.Unlock()
		return
	}
	messages := box.messages[box.head:]
	c.manager.weighInbound(-box.bytes)
	box.messages, box.head, box.bytes = nil, 0, 0
	if box.workers.Withdraw(box.ticket) {
		box.reading, box.closing = false, false
		if !box.fenced {
			c.dropMailboxLocked()
		}
	}
	c.mu.Unlock()
	for _, in := range messages {
		c.dropMessage(in)
	}
}

// dropMessage drops and counts a message that no handler gets.
func (c *Client) dropMessage(in inboundMessage) {
	pool.PutBuffer(in.buf)
	c.manager.unhandled.Add(1)
}
