//go:build linux

package server

import (
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/bench/control"
)

// tap counts the topics and messages between a broker and its node. Safe for concurrent use.
type tap struct {
	ws.HistoryBroker
	kind     ws.TopicKind // of the topics that count; immutable
	topics   atomic.Int64
	received atomic.Uint64
}

// newTap returns a tap for a node in a mode.
func newTap(broker ws.HistoryBroker, mode string) *tap {
	t := &tap{HistoryBroker: broker, kind: ws.TopicRoom}
	if mode == control.Numbered {
		t.kind = ws.TopicHistory
	}
	return t
}

// options makes a manager a node. It sends no heartbeats, which would be among the messages of the
// broker that a command counts.
func (t *tap) options(c *ws.Config) {
	c.Broker, c.Cluster.Heartbeat = t, time.Hour
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Start implements ws.Broker.
func (t *tap) Start(node ws.BrokerNode) error { return t.HistoryBroker.Start(&tapNode{node, t}) }

// Subscribe implements ws.Broker.
func (t *tap) Subscribe(topics []ws.Topic) error {
	err := t.HistoryBroker.Subscribe(topics)
	if err == nil {
		t.topics.Add(t.rooms(topics))
	}
	return err
}

// Unsubscribe implements ws.Broker.
func (t *tap) Unsubscribe(topics []ws.Topic) error {
	t.topics.Add(-t.rooms(topics))
	return t.HistoryBroker.Unsubscribe(topics)
}

// rooms counts the topics of rooms.
func (t *tap) rooms(topics []ws.Topic) (n int64) {
	for _, topic := range topics {
		if topic.Kind == t.kind {
			n++
		}
	}
	return n
}

// report returns the figures of the link.
func (t *tap) report(st *ws.ClusterStats) control.Link {
	return control.Link{
		LinkUp: st.Up, Topics: int(t.topics.Load()), FromLink: t.received.Load(), LinkGaps: st.Gaps,
		LinkLost: st.Unsent + st.Undelivered + st.Malformed + st.Unwanted, Repairs: st.Repairs,
	}
}

// tapNode is the node behind a tap.
type tapNode struct {
	ws.BrokerNode
	tap *tap
}

// Receive implements ws.BrokerNode.
func (n *tapNode) Receive(topic ws.Topic, msg []byte) {
	n.tap.received.Add(1)
	n.BrokerNode.Receive(topic, msg)
}

// ReceiveStored implements ws.BrokerNode.
func (n *tapNode) ReceiveStored(room, epoch string, msg ws.StoredMessage) {
	n.tap.received.Add(1)
	n.BrokerNode.ReceiveStored(room, epoch, msg)
}
