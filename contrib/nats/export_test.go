package natsbroker

import (
	"net"

	"github.com/qi-realtime/ws"
)

// AllConfirmed reports whether the server has read all messages, and has had time to pass them on.
func AllConfirmed(b *Broker) bool {
	b.sent.mu.Lock()
	defer b.sent.mu.Unlock()
	return b.sent.recent.empty() && b.sent.pinged.empty() && b.sent.passed.empty()
}

// Dropped returns the number of messages of the topic that were dropped.
func Dropped(b *Broker, t ws.Topic) int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	dropped, _ := b.topics[t].sub.Dropped()
	return dropped
}

// Waiting returns the number of messages that wait for the receivers.
func Waiting(b *Broker) (count int) {
	for _, r := range b.receivers {
		count += len(r.messages)
	}
	return count
}

// InMsgs returns the number of messages that have arrived.
func InMsgs(b *Broker) uint64 { return b.nc.Load().Stats().InMsgs }

// NewConn wraps a connection to a server.
func NewConn(c net.Conn) net.Conn { return &conn{c} }

// Subscribed reports whether the server has the subscription of a topic.
func Subscribed(b *Broker, t ws.Topic) bool {
	b.mu.RLock()
	s := b.topics[t]
	b.mu.RUnlock()
	return s != nil && s.sub != nil && b.nc.Load().Flush() == nil
}

// Reconnects returns the number of new connections of nats.go.
func Reconnects(b *Broker) int { return int(b.nc.Load().Stats().Reconnects) }

// Connected reports whether nats.go has a connection.
func Connected(b *Broker) bool { return b.nc.Load().IsConnected() }

// ReportLate has the link note a new connection, as nats.go does some time after it has made one. It
// returns false before Close waits for the server.
func ReportLate(b *Broker) bool {
	if b.flushing.Load() == nil {
		return false
	}
	b.options.ReconnectedCB(b.nc.Load())
	return true
}

// OutMsgs returns the number of messages that were sent.
func OutMsgs(b *Broker) uint64 { return b.nc.Load().Stats().OutMsgs }
