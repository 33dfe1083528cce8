package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/qi-realtime/ws"
)

// Broker is a ws.Broker on NATS. Safe for concurrent use.
type Broker struct {
	// Immutable after Start.
	cfg       Config
	options   nats.Options
	dialer    *dialer
	gate      *gate
	receivers []*receiver
	seed      maphash.Seed
	node      ws.BrokerNode
	store     *store // nil without histories

	nc       atomic.Pointer[nats.Conn] // nil before the first connection; changed under mu
	started  atomic.Bool
	closed   atomic.Bool
	flushing atomic.Pointer[context.CancelFunc] // of the flush of Close; the end of the connection ends it
	sent     unconfirmed
	stop     chan struct{} // closed by Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // the link and the receivers

	mu     sync.RWMutex
	topics map[ws.Topic]*subscription           // with sub nil while nc is; guarded by mu
	subs   map[*nats.Subscription]*subscription // guarded by mu
}

var (
	_ ws.Broker         = (*Broker)(nil)
	_ ws.MessageLimiter = (*Broker)(nil)
)

// New returns a Broker for one Manager. It connects when the Manager runs.
func New(cfg Config) (*Broker, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Broker{
		cfg:    cfg,
		gate:   newGate(),
		seed:   maphash.MakeSeed(),
		stop:   make(chan struct{}),
		cancel: cancel,
		topics: make(map[ws.Topic]*subscription),
		subs:   make(map[*nats.Subscription]*subscription),
	}
	b.dialer = &dialer{ctx: ctx, gate: b.gate}
	var err error
	if b.options, err = cfg.options(b.dialer); err != nil {
		cancel()
		return nil, err
	}
	for range cfg.Receivers {
		b.receivers = append(b.receivers, newReceiver(b))
	}
	return b, nil
}

// Start begins to connect, for ever, until Close.
func (b *Broker) Start(node ws.BrokerNode) error {
	if !b.started.CompareAndSwap(false, true) {
		return ErrStarted
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.node = node
	b.addLocked(ws.Topic{Kind: ws.TopicAll})
	b.addLocked(ws.Topic{Kind: ws.TopicNode, Name: node.ID()})
	l := newLink(b)
	b.running.Add(1 + len(b.receivers))
	go l.run()
	for _, r := range b.receivers {
		go r.run()
	}
	return nil
}

// Publish sends msg to the nodes that subscribe to the topic. It returns ErrDown at once while there
// is no connection, and an error that matches nats.ErrMaxPayload for a message that is larger
// than the server takes.
func (b *Broker) Publish(topic ws.Topic, msg []byte) error {
	if !b.gate.isOpen() {
		return ErrDown
	}
	nc := b.nc.Load()
	b.sent.add(topic)
	err := nc.Publish(b.subject(topic), msg)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("natsbroker: %w: %d bytes, where max_payload of the server is %d", err, len(msg), nc.MaxPayload())
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed):
		return ErrDown
	default:
		return fmt.Errorf("natsbroker: publish: %w", err)
	}
}

// MaxMessage returns the size of the largest message that the server takes, or 0 before the first
// connection. With histories it is less by the header of stored messages.
func (b *Broker) MaxMessage() int {
	nc := b.nc.Load()
	switch {
	case nc == nil:
		return 0
	case b.store != nil:
		return max(0, int(nc.MaxPayload())-storedHeader)
	default:
		return int(nc.MaxPayload())
	}
}

// Subscribe adds topics, and returns when the server has them.
func (b *Broker) Subscribe(topics []ws.Topic) error {
	b.mu.Lock()
	for _, t := range topics {
		b.addLocked(t)
	}
	nc := b.nc.Load()
	b.mu.Unlock()
	if nc == nil || !nc.IsConnected() {
		return ErrDown
	}
	if err := nc.FlushTimeout(b.cfg.Timeout); err != nil {
		return fmt.Errorf("natsbroker: subscribe: %w", err)
	}
	return nil
}

// Unsubscribe removes topics.
func (b *Broker) Unsubscribe(topics []ws.Topic) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, t := range topics {
		s := b.topics[t]
		if s == nil {
			continue
		}
		delete(b.topics, t)
		if s.sub == nil {
			continue
		}
		delete(b.subs, s.sub)
		// A closed connection has no subscriptions.
		if err := s.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("natsbroker: unsubscribe: %w", errors.Join(errs...))
	}
	return nil
}

// addLocked adds a topic, and subscribes to it if there is a connection.
func (b *Broker) addLocked(t ws.Topic) {
	if b.topics[t] != nil {
		return
	}
	s := &subscription{topic: t, receiver: b.receivers[b.receiverOf(t)]}
	b.topics[t] = s
	if b.nc.Load() != nil {
		b.subscribeLocked(s)
	}
}

// subscribeLocked subscribes on the present connection. An error is the end of that: the link makes
// a new one, with all topics.
func (b *Broker) subscribeLocked(s *subscription) {
	sub, err := b.nc.Load().ChanSubscribe(b.subject(s.topic), s.receiver.messages)
	if err != nil {
		return
	}
	s.sub = sub
	b.subs[sub] = s
}

// subject returns the subject of a topic.
func (b *Broker) subject(t ws.Topic) string {
	if t.Kind == ws.TopicHistory && b.store != nil {
		return b.store.streamOf(t.Name).live(t.Name)
	}
	return subject(b.cfg.Prefix, t)
}

// receiverOf returns the index of the receiver of a topic.
func (b *Broker) receiverOf(t ws.Topic) int {
	return int(maphash.Comparable(b.seed, t) % uint64(len(b.receivers)))
}

// attach makes nc the connection, and subscribes to all topics.
func (b *Broker) attach(nc *nats.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nc.Store(nc)
	if b.store != nil {
		b.store.getter.Store(newGetter(nc))
	}
	clear(b.subs)
	for t, old := range b.topics { // which a receiver may still look at
		s := &subscription{topic: t, receiver: old.receiver}
		b.topics[t] = s
		b.subscribeLocked(s)
	}
}

// subscriptionOf returns nil for a topic that is no longer subscribed to.
func (b *Broker) subscriptionOf(sub *nats.Subscription) *subscription {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.subs[sub]
}

// Close sends all that was published, for as long as ctx allows, and ends the connection.
func (b *Broker) Close(ctx context.Context) error {
	if !b.closed.CompareAndSwap(false, true) {
		return ErrClosed
	}
	var err error
	if b.gate.isOpen() {
		err = b.flush(ctx)
	}
	close(b.stop)
	b.cancel()
	b.dialer.close()
	b.running.Wait()
	if err != nil {
		return fmt.Errorf("natsbroker: close: %w", err)
	}
	return nil
}

// flush waits until the server has read all that was written so far. It returns ErrDown if the
// connection changes meanwhile.
func (b *Broker) flush(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.cfg.Timeout)
		defer cancel()
	}
	conn := b.gate.opened.Load()
	for {
		err := b.flushOnce(ctx)
		switch {
		case b.gate.current.Load() != conn:
			return ErrDown
		case ctx.Err() != nil, !errors.Is(err, context.Canceled):
			return err
		}
		// The link has ended it. Possibly nats.go has reported an earlier connection late.
	}
}

// flushOnce is flush, but ends with context.Canceled when nats.go reports a change of the connection.
func (b *Broker) flushOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.flushing.Store(&cancel)
	done := make(chan error, 1)
	go func() { // until ctx ends; a write ends with Config.Timeout
		nc := b.nc.Load()
		if !nc.IsConnected() {
			done <- ErrDown
			return
		}
		done <- nc.FlushWithContext(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
