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
// A Link can be cut, to test a service without its server. Safe for
// concurrent use.
type Hub struct {
	mu    sync.Mutex
	links map[*Link]struct{} // that are up; guarded by mu
}

// NewHub returns a hub without links.
func NewHub() *Hub { return &Hub{links: make(map[*Link]struct{})} }

// Link returns a Broker for one Manager. Its link comes up when the Manager runs.
func (h *Hub) Link() *Link {
	return &Link{hub: h, topics: make(map[ws.Topic]struct{}), ready: make(chan struct{}, 1), done: make(chan struct{})}
}

// ErrCut is the error of a Link that is down.
var ErrCut = errors.New("wstest: the link is cut")

// Link is the Broker of one Manager on a Hub. Safe for concurrent use.
type Link struct {
	hub   *Hub
	node  ws.BrokerNode
	ready chan struct{} // holds a token when there may be something in inbox
	done  chan struct{} // closed when the goroutine has ended

	// Guarded by hub.mu.
	topics map[ws.Topic]struct{}
	inbox  []func() // to be called in order
	closed bool
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
	l.inbox = nil
	l.addLocked(func() { l.node.SetState(false, ErrCut) })
}

// Mend connects again after Cut.
func (l *Link) Mend() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.closed || l.isUpLocked() {
		return
	}
	l.hub.links[l] = struct{}{}
	l.addLocked(func() { l.node.SetState(true, nil) })
}

func (l *Link) isUpLocked() bool {
	_, up := l.hub.links[l]
	return up
}

// Publish implements ws.Broker.
func (l *Link) Publish(topic ws.Topic, msg []byte) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if !l.isUpLocked() {
		return ErrCut
	}
	msg = bytes.Clone(msg)
	for other := range l.hub.links {
		if _, wants := other.topics[topic]; wants {
			other.addLocked(func() { other.node.Receive(topic, msg) })
		}
	}
	return nil
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
		close(l.ready)
	}
}
