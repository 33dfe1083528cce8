package wstest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/qi-realtime/ws"
)

// TestBroker tests the part of the contract of ws.Broker that needs no break of a connection: order,
// topics, names, and Close. newBroker returns a new Broker that has not been started; all of them
// speak to the same server.
//
//	func TestConformance(t *testing.T) {
//		wstest.TestBroker(t, func(t *testing.T) ws.Broker { return newBroker(t) })
//	}
func TestBroker(t *testing.T, newBroker func(t *testing.T) ws.Broker) {
	for _, test := range []struct {
		name string
		run  func(a, b *brokerNode)
	}{
		{"order", testOrder}, {"topics", testTopics}, {"names", testNames}, {"close", testClose},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(startBroker(t, newBroker(t)), startBroker(t, newBroker(t)))
		})
	}
}

// brokerNode is the node of a Broker under test. Safe for concurrent use.
type brokerNode struct {
	ws.Broker
	t  *testing.T
	id string

	mu       sync.Mutex
	received map[ws.Topic][]string // guarded by mu
	up       bool                  // guarded by mu
	closed   bool                  // guarded by mu
}

// startBroker starts a broker, and waits for its link.
func startBroker(t *testing.T, b ws.Broker) *brokerNode {
	t.Helper()
	id := fmt.Sprintf("node%x", rand.Uint64())
	n := &brokerNode{Broker: b, t: t, id: id, received: make(map[ws.Topic][]string)}
	if err := b.Start(n); err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { _ = n.close() }) // with an error if the test has closed it
	n.await("the link does not come up", func() bool { return n.up })
	return n
}

func (n *brokerNode) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := n.Close(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return err
}

// await waits for a condition, which is called with mu.
func (n *brokerNode) await(message string, condition func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
		n.mu.Lock()
		done := condition()
		n.mu.Unlock()
		switch {
		case done:
			return
		case time.Now().After(end):
			n.t.Fatal(message)
		}
	}
}

// lock locks mu in a call of the broker.
func (n *brokerNode) lock() {
	n.mu.Lock()
	if n.closed {
		n.t.Error("a call after Close has returned")
	}
}

// ID implements ws.BrokerNode.
func (n *brokerNode) ID() string { return n.id }

// Logger implements ws.BrokerNode.
func (n *brokerNode) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Receive implements ws.BrokerNode.
func (n *brokerNode) Receive(topic ws.Topic, msg []byte) {
	n.lock()
	defer n.mu.Unlock()
	if !n.up {
		n.t.Error("a message ahead of SetState(true, nil)")
	}
	n.received[topic] = append(n.received[topic], string(msg))
}

// ReceiveStored implements ws.BrokerNode.
func (n *brokerNode) ReceiveStored(room, _ string, _ ws.StoredMessage) {
	n.t.Errorf("a stored message of %q, where none was", room)
}

// Lost implements ws.BrokerNode.
func (n *brokerNode) Lost(topics []ws.Topic) { n.t.Errorf("Lost(%v)", topics) }

// Unconfirmed implements ws.BrokerNode.
func (n *brokerNode) Unconfirmed(topics []ws.Topic) { n.t.Errorf("Unconfirmed(%v)", topics) }

// SetState implements ws.BrokerNode.
func (n *brokerNode) SetState(up bool, err error) {
	n.lock()
	defer n.mu.Unlock()
	if up != (err == nil) {
		n.t.Errorf("SetState(%v, %v)", up, err)
	}
	n.up = up
}

// publish publishes a message, and subscribe adds topics.
func (n *brokerNode) publish(topic ws.Topic, msg string) {
	n.t.Helper()
	if err := n.Publish(topic, []byte(msg)); err != nil {
		n.t.Fatalf("Publish(%v): %v", topic, err)
	}
}

func (n *brokerNode) subscribe(topics ...ws.Topic) {
	n.t.Helper()
	if err := n.Subscribe(topics); err != nil {
		n.t.Fatalf("Subscribe: %v", err)
	}
}

func roomTopic(name string) ws.Topic { return ws.Topic{Kind: ws.TopicRoom, Name: name} }

// testOrder holds that the messages of a topic come once and in their order, and none of a topic
// that the node has left.
func testOrder(a, b *brokerNode) {
	topic, left := roomTopic("r"), roomTopic("left")
	a.subscribe(topic)
	b.subscribe(topic, left)
	if err := b.Unsubscribe([]ws.Topic{left}); err != nil {
		b.t.Fatalf("Unsubscribe: %v", err)
	}
	const count, ahead = 10_000, 2000
	var want []string
	for i := range count {
		want = append(want, strconv.Itoa(i))
		a.publish(topic, want[i])
		if i%100 == 0 {
			a.publish(left, "left")
			b.await("messages are missing", func() bool { return len(b.received[topic]) > i-ahead })
		}
	}
	b.await("messages are missing", func() bool { return len(b.received[topic]) >= count })
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.received[topic], want) {
		b.t.Error("the messages have another order")
	}
	if len(b.received[left]) > 0 {
		b.t.Error("a message of a topic that was left")
	}
}

// testTopics holds that the topics of all nodes and of one node need no subscription, and that the kinds
// of topics are apart.
func testTopics(a, b *brokerNode) {
	user := ws.Topic{Kind: ws.TopicUser, Name: "u"}
	all, own := ws.Topic{Kind: ws.TopicAll}, ws.Topic{Kind: ws.TopicNode, Name: b.id}
	a.publish(all, "to all")
	a.publish(own, "to b")
	a.publish(ws.Topic{Kind: ws.TopicNode, Name: "other"}, "to another")
	a.publish(ws.Topic{Kind: ws.TopicUser, Name: "other"}, "without a subscription")
	b.subscribe(user)
	a.publish(roomTopic("u"), "to a room of that name")
	a.publish(user, "to u")
	want := map[ws.Topic]string{all: "to all", own: "to b", user: "to u"}
	b.await("messages are missing", func() bool { return len(b.received) >= len(want) })
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic, msgs := range b.received {
		if len(msgs) != 1 || msgs[0] != want[topic] {
			b.t.Errorf("%v: %q", topic, msgs)
		}
	}
}

// testNames holds that topics of any bytes are apart, in a batch of some thousand.
func testNames(a, b *brokerNode) {
	names := []string{
		"", " ", ".", "*", ">", "?", "[a]", "a.b", "a.*", "a.>", "a", "A", "%", "%20", "%%", "a b", "{", "}", "{}", "{a}",
		"}{", "\x00\r\n\t", "$SYS", "$5\r\nhello\r\n", "é", "\xff", "_INBOX.a", strings.Repeat(" ", 1000),
	}
	for i := range 1000 {
		names = append(names, strings.Repeat("x", i), fmt.Sprintf("%c%c", i, i>>8))
	}
	slices.Sort(names)
	var topics []ws.Topic
	for _, name := range slices.Compact(names) {
		topics = append(topics, roomTopic(name), ws.Topic{Kind: ws.TopicUser, Name: name})
	}
	b.subscribe(topics...)
	text := func(topic ws.Topic) string { return topic.Kind.String() + topic.Name }
	for _, topic := range topics {
		a.publish(topic, text(topic))
	}
	for _, topic := range topics {
		b.await(fmt.Sprintf("no message of %q", topic.Name), func() bool { return len(b.received[topic]) > 0 })
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic, msgs := range b.received {
		if len(msgs) != 1 || msgs[0] != text(topic) {
			b.t.Errorf("%v %q: %q", topic.Kind, topic.Name, msgs)
		}
	}
}

// testClose holds that Close sends all that was published, and that later calls return an error.
func testClose(a, b *brokerNode) {
	all := ws.Topic{Kind: ws.TopicAll}
	const count = 3000
	msg := string(bytes.Repeat([]byte("x"), 1000))
	for range count {
		a.publish(all, msg)
	}
	if err := a.close(); err != nil {
		a.t.Fatalf("Close: %v", err)
	}
	b.await("messages are missing", func() bool { return len(b.received[all]) == count })
	if a.Publish(all, nil) == nil {
		a.t.Error("Publish after Close has no error")
	}
	if a.Subscribe([]ws.Topic{roomTopic("r")}) == nil {
		a.t.Error("Subscribe after Close has no error")
	}
}
