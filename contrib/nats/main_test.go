package natsbroker_test

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
	"github.com/qi-realtime/ws/internal/leak"
)

// patience is the longest time that a test waits for one event.
const patience = time.Minute

func TestMain(m *testing.M) {
	if file := os.Getenv(serverConfig); file != "" {
		serve(file)
		return
	}
	leak.Main(m)
}

func eventually(t *testing.T, condition func() bool, message string) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, message)
}

// node is a BrokerNode that notes each call. Safe for concurrent use.
type node struct {
	t    *testing.T
	id   string
	hold chan struct{} // if set, Receive waits until it is closed
	held atomic.Int64  // calls of Receive that have come to wait for hold
	rest chan struct{} // if set, SetState(false) waits until it is closed

	mu          sync.Mutex
	received    map[ws.Topic][]string
	log         []string // "up", "down", "lost <topic>", "unconfirmed <topic>", and messages
	ups         int
	up          bool
	cause       error
	closed      bool
	lost        map[ws.Topic]int
	lostAll     int
	unconfirmed map[ws.Topic]int
	stored      map[string][]stored              // by room
	onReceive   func(topic ws.Topic, msg string) // called with mu
}

func newNode(t *testing.T, id string) *node {
	return &node{
		t: t, id: id, received: make(map[ws.Topic][]string),
		lost: make(map[ws.Topic]int), unconfirmed: make(map[ws.Topic]int), stored: make(map[string][]stored),
	}
}

func (n *node) lock() {
	n.mu.Lock()
	if n.closed {
		n.t.Error("a call after Close")
	}
}

func (n *node) ID() string { return n.id }

func (n *node) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (n *node) Receive(topic ws.Topic, msg []byte) {
	if n.hold != nil {
		n.held.Add(1)
		<-n.hold
	}
	n.lock()
	defer n.mu.Unlock()
	n.received[topic] = append(n.received[topic], string(msg))
	if n.onReceive != nil {
		n.onReceive(topic, string(msg))
	}
}

// stored is a message of a history.
type stored struct {
	epoch        string
	offset, prev uint64
	text         string
}

func (n *node) ReceiveStored(room, epoch string, msg ws.StoredMessage) {
	n.lock()
	defer n.mu.Unlock()
	n.stored[room] = append(n.stored[room], stored{epoch, msg.Offset, msg.Prev, string(msg.Data)})
}

// history returns the messages of a history that have come.
func (n *node) history(room string) (msgs []stored) {
	n.read(func() { msgs = slices.Clone(n.stored[room]) })
	return msgs
}

func (n *node) Lost(topics []ws.Topic) {
	n.lock()
	defer n.mu.Unlock()
	if topics == nil {
		n.lostAll++
	}
	for _, t := range topics {
		n.lost[t]++
		n.log = append(n.log, "lost "+t.Name)
	}
}

func (n *node) Unconfirmed(topics []ws.Topic) {
	n.lock()
	defer n.mu.Unlock()
	n.log = append(n.log, "unconfirmed")
	for _, t := range topics {
		n.unconfirmed[t]++
	}
}

func (n *node) SetState(up bool, err error) {
	if !up && n.rest != nil {
		<-n.rest
	}
	n.lock()
	defer n.mu.Unlock()
	n.up, n.cause = up, err
	if up {
		n.ups++
		n.log = append(n.log, "up")
		if err != nil {
			n.t.Errorf("up with an error: %v", err)
		}
	} else if err == nil {
		n.t.Error("down without an error")
	}
}

// read calls f under the lock.
func (n *node) read(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *node) isUp() (up bool) {
	n.read(func() { up = n.up })
	return up
}

// count returns the number of received messages of the topic.
func (n *node) count(topic ws.Topic) (count int) {
	n.read(func() { count = len(n.received[topic]) })
	return count
}

// has reports whether the message was received.
func (n *node) has(topic ws.Topic, msg string) (has bool) {
	n.read(func() { has = slices.Contains(n.received[topic], msg) })
	return has
}

// total returns the number of received messages.
func (n *node) total() (count int) {
	n.read(func() {
		for _, msgs := range n.received {
			count += len(msgs)
		}
	})
	return count
}

func room(name string) ws.Topic { return ws.Topic{Kind: ws.TopicRoom, Name: name} }

// withDefaults sets the fields that are zero: to a short wait between connections, and to timeouts
// within which also a server on a busy machine answers.
func withDefaults(cfg natsbroker.Config) natsbroker.Config {
	cfg.ReconnectWait = cmp.Or(cfg.ReconnectWait, 20*time.Millisecond)
	cfg.PingInterval = cmp.Or(cfg.PingInterval, patience/6)
	cfg.Timeout = cmp.Or(cfg.Timeout, patience/3)
	return cfg
}

func newBroker(t *testing.T, cfg natsbroker.Config) *natsbroker.Broker {
	t.Helper()
	b, err := natsbroker.New(withDefaults(cfg))
	require.NoError(t, err)
	return b
}

// start starts a broker with a node, and closes it with the test.
func start(t *testing.T, n *node, cfg natsbroker.Config) *natsbroker.Broker {
	t.Helper()
	b := newBroker(t, cfg)
	require.NoError(t, b.Start(n))
	t.Cleanup(func() { stop(t, n, b) })
	return b
}

// stop closes a broker, after which no call may come to its node.
func stop(t *testing.T, n *node, b *natsbroker.Broker) {
	_ = b.Close(t.Context()) // an error is the end of the server, or of an earlier Close
	n.read(func() { n.closed = true })
}

// connect starts a broker and waits for its connection.
func connect(t *testing.T, n *node, cfg natsbroker.Config) *natsbroker.Broker {
	t.Helper()
	b := start(t, n, cfg)
	eventually(t, n.isUp, "no connection")
	return b
}

// rooms returns the topics of rooms with numbers.
func rooms(count int) []ws.Topic {
	topics := make([]ws.Topic, count)
	for i := range topics {
		topics[i] = room(fmt.Sprint("room ", i))
	}
	return topics
}
