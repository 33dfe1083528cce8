package main

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/qi-realtime/ws"
)

// tap is the Broker of a node, which counts the messages that pass, for the page. Safe for concurrent use.
type tap struct {
	ws.Broker

	mu       sync.Mutex
	up       bool            // guarded by mu
	topics   map[string]bool // guarded by mu
	received map[string]int  // guarded by mu
}

func newTap(b ws.Broker) *tap {
	return &tap{Broker: b, topics: make(map[string]bool), received: make(map[string]int)}
}

// Start starts the broker with a node that notes its messages.
func (t *tap) Start(node ws.BrokerNode) error { return t.Broker.Start(&tapNode{node, t}) }

// Subscribe notes the topics.
func (t *tap) Subscribe(topics []ws.Topic) error {
	t.note(topics, true)
	return t.Broker.Subscribe(topics)
}

// Unsubscribe forgets the topics.
func (t *tap) Unsubscribe(topics []ws.Topic) error {
	t.note(topics, false)
	return t.Broker.Unsubscribe(topics)
}

func (t *tap) note(topics []ws.Topic, subscribed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, topic := range topics {
		if subscribed {
			t.topics[text(topic)] = true
		} else {
			delete(t.topics, text(topic))
		}
	}
}

// describe adds the notes to the state.
func (t *tap) describe(s *nodeState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Link = t.up
	s.Received = maps.Clone(t.received)
	for topic := range t.topics {
		s.Topics = append(s.Topics, topic)
	}
	slices.Sort(s.Topics)
}

func text(t ws.Topic) string { return strings.TrimSpace(t.Kind.String() + " " + t.Name) }

// tapNode is the node as the broker calls it.
type tapNode struct {
	ws.BrokerNode
	tap *tap
}

// Receive counts the message.
func (n *tapNode) Receive(topic ws.Topic, msg []byte) {
	n.tap.mu.Lock()
	n.tap.received[text(topic)]++
	n.tap.mu.Unlock()
	n.BrokerNode.Receive(topic, msg)
}

// SetState notes the state.
func (n *tapNode) SetState(up bool, err error) {
	n.tap.mu.Lock()
	n.tap.up = up
	n.tap.mu.Unlock()
	n.BrokerNode.SetState(up, err)
}
