package wstest

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/qi-realtime/ws"
)

// Hub connects Managers of one process as nodes of a cluster, in memory, in place of a server for
// messages: give each Manager a Link of its own.
//
//	hub := wstest.NewHub()
//	m, err := ws.NewManager(ws.WithBroker(hub.Link()))
//
// It also stores the histories of rooms, as long as it lives.
// A Link can be cut, to test a service without its server. Safe for
// concurrent use.
type Hub struct {
	mu    sync.Mutex
	links map[*Link]struct{} // that are up; guarded by mu
	store store              // guarded by mu
}

// NewHub returns a hub without links.
func NewHub() *Hub { return &Hub{links: make(map[*Link]struct{})} }

// Link returns a Broker for one Manager. Its link comes up when the Manager runs.
func (h *Hub) Link() *Link {
	return &Link{hub: h, topics: make(map[ws.Topic]struct{}), ready: make(chan struct{}, 1), done: make(chan struct{})}
}

// ErrCut is the error of a Link that is down.
var ErrCut = errors.New("wstest: the link is cut")

// ErrLimit is the error of a Link for a message beyond its Limit.
var ErrLimit = errors.New("wstest: the message is too large")

// Link is the Broker of one Manager on a Hub, a HistoryBroker, too. Safe for concurrent use.
type Link struct {
	hub   *Hub
	node  ws.BrokerNode
	ready chan struct{} // holds a token when there may be something in inbox
	done  chan struct{} // closed when the goroutine has ended

	// Guarded by hub.mu.
	topics  map[ws.Topic]struct{}
	inbox   []func()              // to be called in order
	conn    uint64                // number of the connection
	opened  uint64                // number of the last connection that the node knows of
	dead    bool                  // Die was called
	unsure  map[ws.Topic]struct{} // topics of messages since Die
	lose    int                   // messages that are still to be lost
	drop    func(ws.Topic) bool   // messages that are lost in silence; nil for none
	limit   int                   // bytes of a message; 0 has no end
	closed  bool
	stalled chan struct{} // closed when Publish may go on; nil if it does not wait

	// Guarded by hub.mu. For histories.
	loseStored int           // messages that are still to be lost
	failAppend int           // calls of Append that are still to fail
	failStored bool          // they store the message
	held       chan struct{} // closed when Read may go on; nil if it does not wait
}

// Start implements ws.Broker.
func (l *Link) Start(node ws.BrokerNode) error {
	l.node = node
	l.topics[ws.Topic{Kind: ws.TopicAll}] = struct{}{}
	l.topics[ws.Topic{Kind: ws.TopicNode, Name: node.ID()}] = struct{}{}
	go l.run() // ended by Close, which waits for it
	l.Mend()
	return nil
}

// run delivers to the node.
func (l *Link) run() {
	defer close(l.done)
	for range l.ready {
		for _, call := range l.take() {
			call()
		}
	}
}

func (l *Link) take() []func() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	calls := l.inbox
	l.inbox = nil
	return calls
}

// addLocked appends a call, with hub.mu held.
func (l *Link) addLocked(call func()) {
	if l.closed {
		return
	}
	l.inbox = append(l.inbox, call)
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// Cut ends the connection. Messages that the node has not received yet are lost.
func (l *Link) Cut() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if !l.isUpLocked() {
		return
	}
	delete(l.hub.links, l)
	l.conn++
	l.inbox, l.dead = nil, false
	l.releaseLocked()
	l.addLocked(func() { l.node.SetState(false, ErrCut) })
}

// Die lets the connection go dead, as if a cable was pulled: nothing comes through in either
// direction, and nobody notices until Cut.
func (l *Link) Die() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.dead = l.isUpLocked()
}

// Mend connects again after Cut.
func (l *Link) Mend() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.closed || l.isUpLocked() {
		return
	}
	l.hub.links[l] = struct{}{}
	l.conn++
	conn := l.conn
	var unsure []ws.Topic
	for topic := range l.unsure {
		unsure = append(unsure, topic)
	}
	l.unsure = nil
	l.addLocked(func() {
		if len(unsure) > 0 {
			l.node.Unconfirmed(unsure)
		}
		l.open(conn)
		l.node.SetState(true, nil)
	})
}

// open lets the node publish on a connection.
func (l *Link) open(conn uint64) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.opened = conn
}

// Lose loses the next n messages to the node, as if they had come too fast, and reports it.
func (l *Link) Lose(n int) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.lose = n
}

// Drop loses the messages to the node whose topics drop returns true for, and reports nothing, as
// if a connection between two servers was broken. nil ends that. drop must not call the hub.
func (l *Link) Drop(drop func(topic ws.Topic) bool) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.drop = drop
}

// Limit bounds the messages of the node to n bytes, their headers of some 40 bytes included; 0 has no
// end. The node asks for it with the next connection or heartbeat.
func (l *Link) Limit(n int) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.limit = n
}

// MaxMessage implements ws.MessageLimiter.
func (l *Link) MaxMessage() int {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return l.limit
}

// Stall makes the node wait with its messages, as for a slow connection, until Release.
func (l *Link) Stall() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.stalled == nil && !l.closed {
		l.stalled = make(chan struct{})
	}
}

// Release ends a Stall.
func (l *Link) Release() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.releaseLocked()
}

func (l *Link) releaseLocked() {
	if l.stalled != nil {
		close(l.stalled)
		l.stalled = nil
	}
}

func (l *Link) isUpLocked() bool {
	_, up := l.hub.links[l]
	return up
}

// Publish implements ws.Broker.
func (l *Link) Publish(topic ws.Topic, msg []byte) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for stalled := l.stalled; stalled != nil; stalled = l.stalled {
		l.hub.mu.Unlock()
		<-stalled
		l.hub.mu.Lock()
	}
	switch {
	case l.conn != l.opened || l.closed:
		return ErrCut
	case l.limit > 0 && len(msg) > l.limit:
		return ErrLimit
	case l.dead:
		if l.unsure == nil {
			l.unsure = make(map[ws.Topic]struct{})
		}
		l.unsure[topic] = struct{}{}
		return nil
	}
	l.hub.publishLocked(topic, msg)
	return nil
}

// Publish sends a message to the nodes that subscribe to the topic, as if it came from a node. msg
// is borrowed.
func (h *Hub) Publish(topic ws.Topic, msg []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publishLocked(topic, msg)
}

func (h *Hub) publishLocked(topic ws.Topic, msg []byte) {
	msg = bytes.Clone(msg)
	for l := range h.links {
		_, wants := l.topics[topic]
		switch {
		case !wants || l.dead || l.drop != nil && l.drop(topic):
		case l.lose > 0 && topic.Kind != ws.TopicNode: // not the nodes' own
			l.lose--
			l.addLocked(func() { l.node.Lost([]ws.Topic{topic}) })
		default:
			l.addLocked(func() { l.node.Receive(topic, msg) })
		}
	}
}

// Subscribe implements ws.Broker.
func (l *Link) Subscribe(topics []ws.Topic) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for _, topic := range topics {
		l.topics[topic] = struct{}{}
	}
	if !l.isUpLocked() {
		return ErrCut
	}
	return nil
}

// Unsubscribe implements ws.Broker.
func (l *Link) Unsubscribe(topics []ws.Topic) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for _, topic := range topics {
		delete(l.topics, topic)
	}
	return nil
}

// Topics returns the topics that the node subscribes to, in no order.
func (l *Link) Topics() []ws.Topic {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	topics := make([]ws.Topic, 0, len(l.topics))
	for topic := range l.topics {
		topics = append(topics, topic)
	}
	return topics
}

// Close implements ws.Broker.
func (l *Link) Close(context.Context) error {
	l.end()
	<-l.done
	return nil
}

func (l *Link) end() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if !l.closed {
		l.closed = true
		delete(l.hub.links, l)
		l.releaseLocked()
		close(l.ready)
	}
}
