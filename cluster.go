package ws

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/internal/measure"
	"github.com/qi-realtime/ws/pool"
)

// ClusterConfig configures the node of a Broker. A zero field has its default.
type ClusterConfig struct {
	// QueueBytes bounds the messages that wait for the link to the broker, in bytes. Beyond it
	// publishes return ErrBrokerUnavailable, until half of the queue is sent. Default 8 MiB.
	QueueBytes int64
	// UnsubscribeDelay is the time for which the node stays subscribed to a room that its last
	// member has left, or to a user without devices. Default 2 s.
	UnsubscribeDelay time.Duration
}

func (c *ClusterConfig) validate() error {
	return firstError(
		atLeast("Cluster.QueueBytes", c.QueueBytes, 0),
		atLeast("Cluster.UnsubscribeDelay", c.UnsubscribeDelay, 0),
	)
}

func (c ClusterConfig) withDefaults() ClusterConfig {
	if c.QueueBytes == 0 {
		c.QueueBytes = 8 << 20
	}
	if c.UnsubscribeDelay == 0 {
		c.UnsubscribeDelay = 2 * time.Second
	}
	return c
}

// node is a Manager as a member of a cluster. A Manager without a Broker has a nil
// node: start, stop and the notes of members and devices do nothing on it. Safe for concurrent use.
type node struct {
	// Immutable once the Manager is made.
	manager *Manager
	broker  Broker
	id      string
	origin  []byte // id

	link     *cluster.Queue[outbound]
	interest *cluster.Interest[Topic]
	up       atomic.Bool // the link is up

	mu         sync.Mutex
	started    bool          // guarded by mu
	stopped    bool          // guarded by mu
	sent       chan struct{} // closed when the queue is closed and empty
	ending     chan struct{} // closed when the goroutines have to end
	stopOnce   sync.Once
	goroutines sync.WaitGroup
}

// outbound is a message that waits for the link.
type outbound struct {
	topic  Topic
	buffer *pool.Buffer
	size   int // in the queue
	at     time.Duration
}

// outboundCost is the memory of an outbound message beside its bytes, about.
const outboundCost = 128

// newNode returns nil without a Broker.
func newNode(cfg *Config) *node {
	if cfg.Broker == nil {
		return nil
	}
	id := rand.Text()[:20]
	return &node{
		broker: cfg.Broker, id: id, origin: []byte(id),
		link:     cluster.NewQueue[outbound](cfg.Cluster.QueueBytes),
		interest: cluster.NewInterest[Topic](cfg.Cluster.UnsubscribeDelay),
		sent:     make(chan struct{}), ending: make(chan struct{}),
	}
}

// start begins the link.
func (n *node) start() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return nil
	}
	if err := n.broker.Start(brokerNode{n}); err != nil {
		return err
	}
	n.started = true
	n.goroutines.Go(n.send)      // owned by stop, which waits for it
	n.goroutines.Go(n.subscribe) // the same
	return nil
}

// stop sends what waits for the link, for CloseTimeout at most, and ends the link.
func (n *node) stop() {
	if n == nil {
		return
	}
	n.stopOnce.Do(func() {
		n.mu.Lock()
		n.stopped = true
		started := n.started
		n.mu.Unlock()
		n.link.Close()
		if !started {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), n.manager.cfg.CloseTimeout)
		defer cancel()
		select {
		case <-n.sent:
		case <-ctx.Done():
		}
		close(n.ending)
		if err := n.broker.Close(ctx); err != nil {
			n.manager.cfg.Logger.Warn("ws: the broker did not close", slog.Any("error", err))
		}
		n.goroutines.Wait()
	})
}

// send hands the messages of the queue to the broker.
func (n *node) send() {
	for {
		if out, ok := n.link.Pop(); ok {
			n.sendOne(&out)
			continue
		}
		if n.link.Ended() {
			close(n.sent)
			return
		}
		select {
		case <-n.link.Ready():
		case <-n.ending:
			return
		}
	}
}

func (n *node) sendOne(out *outbound) {
	if n.up.Load() && cluster.Age(out.buffer.B, measure.Now()-out.at) {
		_ = n.broker.Publish(out.topic, out.buffer.B)
	}
	pool.PutBuffer(out.buffer)
	n.link.Release(out.size)
}

// subscribe keeps the subscriptions equal to the interest.
func (n *node) subscribe() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		add, remove, wait := n.interest.Next(subscribeStep)
		if len(add) > 0 {
			_ = n.broker.Subscribe(add) // with an error, the next connection has the topics
		}
		if len(remove) > 0 {
			_ = n.broker.Unsubscribe(remove)
		}
		var next <-chan time.Time
		if wait >= 0 {
			timer.Reset(wait)
			next = timer.C
		}
		select {
		case <-n.interest.Ready():
		case <-next:
		case <-n.ending:
			return
		}
	}
}

// subscribeStep is the greatest number of topics of one call of the broker.
const subscribeStep = 1000

// joined notes the first member of a room. It is called with Room.mu held.
func (n *node) joined(r *roomEntry, members int) {
	if n != nil && members == 1 {
		n.interest.Add(Topic{TopicRoom, r.ID()})
	}
}

// left notes that a room has no member any more. It is called with Room.mu held.
func (n *node) left(r *roomEntry, members int) {
	if n != nil && members == 0 {
		n.interest.Remove(Topic{TopicRoom, r.ID()})
	}
}

// online notes the first device of a user. It is called with the lock of the user's devices held.
func (n *node) online(u user) {
	if n != nil {
		n.interest.Add(Topic{TopicUser, u.String()})
	}
}

// offline is the reverse of online.
func (n *node) offline(u user) {
	if n != nil {
		n.interest.Remove(Topic{TopicUser, u.String()})
	}
}

// publish publishes to the clients of this node and to the other nodes: to all, or to nobody.
func (n *node) publish(ctx context.Context, p *publication) (Delivery, error) {
	out, err := n.reserve(p.topic(), p)
	if err != nil {
		return Delivery{}, err
	}
	delivery, err := n.manager.publishHere(ctx, p)
	if err != nil {
		n.withdraw(out)
		return Delivery{}, err
	}
	n.link.Push(out)
	return delivery, nil
}

// publishAway publishes to a room that this node does not have, because findRoom has returned err.
func (m *Manager) publishAway(roomID string, p *publication, err error) error {
	if m.node == nil || !errors.Is(err, ErrRoomNotFound) || errors.Is(err, ErrManagerStopped) {
		return err
	}
	if err := m.checkRoom(roomID); err != nil {
		return err
	}
	out, err := m.node.reserve(Topic{TopicRoom, roomID}, p)
	if err == nil {
		m.node.link.Push(out)
	}
	return err
}

// topic returns the address of the message for other nodes.
func (p *publication) topic() Topic {
	switch {
	case p.room != nil:
		return Topic{TopicRoom, p.room.ID()}
	case p.toUser:
		return Topic{TopicUser, p.user.String()}
	}
	return Topic{}
}

// reserve encodes the message for the other nodes, and reserves its space in the queue.
func (n *node) reserve(topic Topic, p *publication) (outbound, error) {
	if !n.up.Load() {
		return outbound{}, ErrBrokerUnavailable
	}
	b := pool.GetBuffer()
	b.B = n.encode(b.B[:0], p)
	out := outbound{topic, b, len(b.B) + outboundCost, measure.Now()}
	if !n.link.Reserve(out.size) {
		pool.PutBuffer(b)
		if err := n.manager.stopped(); err != nil {
			return outbound{}, err
		}
		return outbound{}, ErrBrokerUnavailable
	}
	return out, nil
}

func (n *node) withdraw(out outbound) {
	n.link.Release(out.size)
	pool.PutBuffer(out.buffer)
}

// encode appends the message for the other nodes.
func (n *node) encode(b []byte, p *publication) []byte {
	op, payload, h := p.op, p.payload, p.Handling
	if p.prepared != nil {
		inner, shared := p.prepared.frame.Payload()
		op, payload, h = Opcode(inner), shared, p.prepared.handling
	}
	msg := cluster.Message{
		Kind: cluster.Publish, Binary: op == OpBinary, High: h.Lane == engine.LaneHigh, TTL: h.TTL,
		Origin: n.origin, Key: []byte(h.Key), Payload: payload,
	}
	if p.exclude != nil {
		msg.Exclude = []byte(p.exclude.ID)
	}
	return msg.Append(b)
}

// brokerNode is the node as its broker calls it (BrokerNode).
type brokerNode struct{ *node }

// ID returns the ID of the node.
func (n brokerNode) ID() string { return n.id }

// Logger returns the logger of the Manager.
func (n brokerNode) Logger() *slog.Logger { return n.manager.cfg.Logger }

// SetState notes whether the link is up.
func (n brokerNode) SetState(up bool, err error) {
	before := n.up.Swap(up)
	switch logger := n.Logger(); {
	case up:
		logger.Info("ws: the link to the broker is up", slog.String("node", n.id))
	case before:
		logger.Warn("ws: the link to the broker is down", slog.String("node", n.id), slog.Any("error", err))
	}
}

// Lost notes that messages to this node are possibly lost.
func (n brokerNode) Lost([]Topic) {}

// Unconfirmed notes that messages of this node are possibly lost.
func (n brokerNode) Unconfirmed([]Topic) {}

// Receive delivers a message of another node.
func (n brokerNode) Receive(topic Topic, msg []byte) {
	var in cluster.Message
	if in.Decode(msg) != nil || string(in.Origin) == n.id {
		return
	}
	_ = n.deliver(topic, &in)
}

// deliver publishes a message of another node to the clients of this one.
func (n *node) deliver(topic Topic, in *cluster.Message) error {
	m := n.manager
	p := &publication{payload: in.Payload, received: true}
	p.op, p.TTL, p.Key = OpText, in.TTL, string(in.Key)
	if in.Binary {
		p.op = OpBinary
	}
	if in.High {
		p.Lane = engine.LaneHigh
	}
	if len(in.Exclude) > 0 {
		p.exclude, _ = m.GetClient(string(in.Exclude))
	}
	switch topic.Kind {
	case TopicRoom:
		r, ok := m.rooms.Get(topic.Name)
		if !ok {
			return nil
		}
		_, err := m.publishIn(context.Background(), r, p)
		return err
	case TopicUser:
		_, err := m.publishToUser(userNamed(topic.Name), p)
		return err
	case TopicAll, TopicNode:
	}
	_, err := m.publish(context.Background(), p)
	return err
}
