package redisbroker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/qi-realtime/ws"
)

// Broker is a ws.Broker on Redis. Safe for concurrent use.
type Broker struct {
	// Immutable after Start.
	cfg      Config
	channels channels
	node     ws.BrokerNode
	ctx      context.Context // ends with Close
	cancel   context.CancelCauseFunc
	done     chan struct{} // closed when run has ended

	started     atomic.Bool
	closed      atomic.Bool
	active      atomic.Pointer[session] // takes messages; nil while the link is down
	unconfirmed topicSet                // confined to run, and to send of the session while it runs
	cause       string                  // of the last SetState(false); confined to run
	denials     int                     // last sessions in a row that ended for want of a permission; confined to run

	// subscribing is held during a change of topics together with its commands, so that the topics of a
	// server are those of the Broker. It comes before mu.
	subscribing sync.Mutex
	current     *session // takes subscriptions; guarded by subscribing

	mu     sync.RWMutex
	topics map[ws.Topic]struct{} // guarded by mu
}

var _ ws.Broker = (*Broker)(nil)

// New returns a Broker for one Manager. It connects when the Manager runs.
func New(cfg Config) (*Broker, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Broker{
		cfg:      cfg,
		channels: newChannels(&cfg),
		ctx:      ctx,
		cancel:   cancel,
		done:     make(chan struct{}),
		topics:   make(map[ws.Topic]struct{}),
	}, nil
}

// Start begins to connect, for ever, until Close.
func (b *Broker) Start(node ws.BrokerNode) error {
	if !b.started.CompareAndSwap(false, true) {
		return ErrStarted
	}
	b.node = node
	b.topics[ws.Topic{Kind: ws.TopicAll}] = struct{}{}
	b.topics[ws.Topic{Kind: ws.TopicNode, Name: node.ID()}] = struct{}{}
	go b.run() // owned by Close, which waits for it
	return nil
}

// run keeps a connection until Close.
func (b *Broker) run() {
	defer close(b.done)
	for b.ctx.Err() == nil {
		s := newSession(b)
		err := s.run()
		b.active.Store(nil)
		s.cancel(err)
		s.shut() // no message comes after SetState(false)
		b.down(err)
		s.close()
		select {
		case <-time.After(b.wait(err)):
		case <-b.ctx.Done():
		}
	}
}

// wait returns the time to the next attempt after a session that ended with err. Without a permission
// the next session would end in the same way, with a gap in all rooms, so the time doubles.
func (b *Broker) wait(err error) time.Duration {
	if !isDenial(err) {
		b.denials = 0
		return b.cfg.wait()
	}
	b.denials = min(b.denials+1, maxDoublings)
	return b.cfg.wait() << b.denials
}

// maxDoublings bounds the time between attempts without a permission: 32 s and a random time, by default.
const maxDoublings = 6

// isDenial reports whether the server has refused the user, or a command of the user.
func isDenial(err error) bool {
	var server *rueidis.RedisError
	if !errors.As(err, &server) {
		return false
	}
	code, _, _ := strings.Cut(server.Error(), " ")
	return code == "NOPERM" || code == "NOAUTH" || code == "WRONGPASS"
}

// down gives the node the reason why there is no connection. It logs each reason once.
func (b *Broker) down(err error) {
	if cause := err.Error(); cause != b.cause && b.ctx.Err() == nil {
		b.cause = cause
		b.node.Logger().Warn("redisbroker: no connection", "error", err)
	}
	b.node.SetState(false, err)
}

// up reports a new connection to the node, when all subscriptions are effective.
func (b *Broker) up(s *session) {
	if topics, found := b.unconfirmed.take(); found {
		b.node.Unconfirmed(topics)
	}
	b.cause = ""
	b.node.Logger().Info("redisbroker: connected")
	b.active.Store(s)
	b.node.SetState(true, nil)
}

// Publish sends msg to the nodes that subscribe to the topic, with the next pipeline. It waits while
// that is full, and returns ErrDown while there is no connection.
func (b *Broker) Publish(topic ws.Topic, msg []byte) error {
	s := b.active.Load()
	if s == nil || !s.out.put(message{topic, string(msg)}) {
		return ErrDown
	}
	return nil
}

// Subscribe adds topics, and returns when the server has them.
func (b *Broker) Subscribe(topics []ws.Topic) error {
	b.subscribing.Lock()
	defer b.subscribing.Unlock()
	b.mu.Lock()
	for _, t := range topics {
		b.topics[t] = struct{}{}
	}
	b.mu.Unlock()
	if b.current == nil {
		return ErrDown
	}
	return b.current.subscribe(topics)
}

// Unsubscribe removes topics.
func (b *Broker) Unsubscribe(topics []ws.Topic) error {
	b.subscribing.Lock()
	defer b.subscribing.Unlock()
	b.mu.Lock()
	for _, t := range topics {
		delete(b.topics, t)
	}
	b.mu.Unlock()
	if b.current == nil {
		return nil
	}
	return b.current.unsubscribe(topics)
}

// attach makes s the session that takes subscriptions, and subscribes to all topics.
func (b *Broker) attach(s *session) error {
	b.subscribing.Lock()
	defer b.subscribing.Unlock()
	b.mu.RLock()
	topics := make([]ws.Topic, 0, len(b.topics))
	for t := range b.topics {
		topics = append(topics, t)
	}
	b.mu.RUnlock()
	if err := s.subscribe(topics); err != nil {
		return err
	}
	b.current = s
	return nil
}

// detach ends the use of s.
func (b *Broker) detach() {
	b.subscribing.Lock()
	defer b.subscribing.Unlock()
	b.current = nil
}

func (b *Broker) wants(t ws.Topic) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, ok := b.topics[t]
	return ok
}

// Close waits until the server has answered all that was published, for as long as ctx allows, and
// ends the connections.
func (b *Broker) Close(ctx context.Context) error {
	if !b.closed.CompareAndSwap(false, true) {
		return ErrClosed
	}
	var err error
	if s := b.active.Load(); s != nil {
		err = s.out.flush(ctx)
	}
	b.cancel(ErrClosed)
	if b.started.Load() {
		<-b.done
	}
	return err
}
