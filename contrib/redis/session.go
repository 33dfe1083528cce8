package redisbroker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/redis/rueidis"

	"github.com/qi-realtime/ws"
)

// subscribeStep is the greatest number of channels of one command.
const subscribeStep = 500

// session is the connections of a Broker from their begin to the first failure of one of them, which
// ends all: one for messages (for each server of a Redis Cluster), and one with the subscriptions of
// each partition. Safe for concurrent use.
type session struct {
	// Immutable after connect.
	broker  *Broker
	ctx     context.Context // ends with the first failure; its cause is the reason
	cancel  context.CancelCauseFunc
	client  rueidis.Client
	parts   []rueidis.DedicatedClient // by partition
	out     *outbox
	scripts chan struct{} // has a value for each script of histories under way
	running sync.WaitGroup

	// gate is held for reading during a call of Receive.
	gate sync.RWMutex
	open bool // messages reach the node; guarded by gate
}

func newSession(b *Broker) *session {
	s := &session{broker: b, out: newOutbox(b.cfg.MaxInFlight), scripts: make(chan struct{}, maxScripts)}
	s.ctx, s.cancel = context.WithCancelCause(b.ctx)
	context.AfterFunc(s.ctx, s.out.end)
	return s
}

// run serves the link until its end, and returns the reason.
func (s *session) run() error {
	if err := s.connect(); err != nil {
		return err
	}
	s.gate.Lock() // a message that comes during SetState waits for its end
	s.broker.up(s)
	s.open = true
	s.gate.Unlock()
	s.running.Go(s.send) // owned by close, which waits for it
	<-s.ctx.Done()
	return context.Cause(s.ctx)
}

// connect makes the connections, and subscribes to all topics.
func (s *session) connect() error {
	o := s.broker.cfg.Options
	o.InitAddress = slices.Clone(o.InitAddress) // rueidis may shuffle it
	o.DialFn, o.DialCtxFn = nil, s.dial
	client, err := rueidis.NewClient(o)
	if err != nil {
		return fmt.Errorf("redisbroker: connect: %w", err)
	}
	s.client = client
	if err := s.check(); err != nil {
		return err
	}
	for p := range s.broker.channels.prefixes {
		part, _ := client.Dedicate()
		s.parts = append(s.parts, part)
		failed := part.SetPubSubHooks(rueidis.PubSubHooks{
			OnMessage:      s.receiver(p),
			OnSubscription: func(sub rueidis.PubSubSubscription) { s.changed(sub, p) },
		})
		s.running.Go(func() { s.watch(failed) }) // owned by close, which waits for it
	}
	return s.broker.attach(s)
}

// check returns an error for a server from which messages would not reach all nodes.
func (s *session) check() error {
	if s.client.Mode() == rueidis.ClientModeCluster {
		if !s.broker.cfg.Sharded {
			return ErrCluster
		}
		return nil // a replica sends the client to its primary
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.broker.cfg.Timeout)
	defer cancel()
	role, err := s.client.Do(ctx, s.client.B().Role().Build()).ToArray()
	if err != nil {
		return fmt.Errorf("redisbroker: role: %w", err)
	}
	if name, _ := role[0].ToString(); name != "master" {
		return ErrReplica
	}
	return nil
}

// dial makes a connection that ends with the session.
func (s *session) dial(
	ctx context.Context, address string, dialer *net.Dialer, config *tls.Config,
) (c net.Conn, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	o := &s.broker.cfg.Options
	switch {
	case o.DialCtxFn != nil:
		c, err = o.DialCtxFn(ctx, address, dialer, config)
	case o.DialFn != nil:
		c, err = o.DialFn(address, dialer, config)
	case config != nil:
		c, err = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
	default:
		c, err = dialer.DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	context.AfterFunc(s.ctx, func() { _ = c.Close() })
	return c, nil
}

// watch ends the session with the connection of a partition.
func (s *session) watch(failed <-chan error) {
	select {
	case err := <-failed:
		_ = s.fail(err)
	case <-s.ctx.Done():
	}
}

// fail ends the session, and returns the error with the name of the package.
func (s *session) fail(err error) error {
	if err == nil {
		err = ErrDown
	} else if !errors.Is(err, ErrMoved) && !errors.Is(err, ErrReplica) {
		err = fmt.Errorf("redisbroker: %w", err)
	}
	s.cancel(err)
	return err
}

// receiver returns the function that takes the messages of a partition. rueidis calls it on the
// goroutine that reads the connection, so that a busy node holds up the server. Messages that come
// before SetState(true) are among those that are told as possibly lost.
func (s *session) receiver(partition int) func(rueidis.PubSubMessage) {
	var msg []byte
	return func(m rueidis.PubSubMessage) {
		topic, ok := s.broker.channels.topic(m.Channel, partition)
		if !ok {
			return
		}
		msg = append(msg[:0], m.Message...)
		s.gate.RLock()
		defer s.gate.RUnlock()
		switch {
		case !s.open:
		case topic.Kind == ws.TopicHistory:
			s.receiveStored(topic.Name, msg)
		default:
			s.broker.node.Receive(topic, msg)
		}
	}
}

// changed ends the session when a server removes a subscription that the node has not ended: its
// slot has moved.
func (s *session) changed(sub rueidis.PubSubSubscription, partition int) {
	if sub.Kind != "sunsubscribe" && sub.Kind != "unsubscribe" {
		return
	}
	if topic, ok := s.broker.channels.topic(sub.Channel, partition); ok && s.broker.wants(topic) {
		_ = s.fail(ErrMoved)
	}
}

// subscribe returns when the topics are effective at the server. An error ends the session.
func (s *session) subscribe(topics []ws.Topic) error {
	return s.change(topics, func(b rueidis.Builder, channels []string) rueidis.Completed {
		if s.broker.cfg.Sharded {
			return b.Ssubscribe().Channel(channels...).Build()
		}
		return b.Subscribe().Channel(channels...).Build()
	})
}

// unsubscribe is the reverse of subscribe.
func (s *session) unsubscribe(topics []ws.Topic) error {
	return s.change(topics, func(b rueidis.Builder, channels []string) rueidis.Completed {
		if s.broker.cfg.Sharded {
			return b.Sunsubscribe().Channel(channels...).Build()
		}
		return b.Unsubscribe().Channel(channels...).Build()
	})
}

// change sends commands for the topics of each partition.
func (s *session) change(
	topics []ws.Topic, command func(rueidis.Builder, []string) rueidis.Completed,
) error {
	byPart := make([][]string, len(s.parts))
	for _, t := range topics {
		channel, p := s.broker.channels.of(t)
		byPart[p] = append(byPart[p], channel)
	}
	for p, all := range byPart {
		for channels := range slices.Chunk(all, subscribeStep) {
			ctx, cancel := context.WithTimeout(s.ctx, s.broker.cfg.Timeout)
			err := s.parts[p].Do(ctx, command(s.parts[p].B(), channels)).Error()
			cancel()
			if err != nil {
				return s.fail(fmt.Errorf("subscriptions of %q and others: %w", channels[0], err))
			}
		}
	}
	return nil
}

// send sends one pipeline after the other.
func (s *session) send() {
	var batch, spare []message
	for {
		batch, spare = s.out.next(spare), batch
		if batch == nil {
			return
		}
		if err := s.publish(batch); err != nil {
			_ = s.fail(err)
			return
		}
	}
}

// publish sends a pipeline, and waits for the replies. It returns the first error, of the connection or
// of the server, and notes the topics of the messages that have failed.
func (s *session) publish(batch []message) (err error) {
	commands := make(rueidis.Commands, len(batch))
	for i, m := range batch {
		channel, _ := s.broker.channels.of(m.topic)
		if s.broker.cfg.Sharded {
			commands[i] = s.client.B().Spublish().Channel(channel).Message(m.body).Build()
		} else {
			commands[i] = s.client.B().Publish().Channel(channel).Message(m.body).Build()
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.broker.cfg.Timeout)
	defer cancel()
	for i, reply := range s.client.DoMulti(ctx, commands...) {
		if e := reply.Error(); e != nil {
			s.broker.unconfirmed.add(batch[i].topic)
			if err == nil {
				channel, _ := s.broker.channels.of(batch[i].topic)
				err = fmt.Errorf("publish to %q: %w", channel, e)
			}
		}
	}
	return err
}

// shut lets no message reach the node any more.
func (s *session) shut() {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.open = false
}

// close ends the connections, and waits until nobody calls the node any more. shut comes before.
func (s *session) close() {
	s.broker.detach()
	for _, part := range s.parts {
		part.Close()
	}
	if s.client != nil {
		s.client.Close()
	}
	s.running.Wait()
	for _, m := range s.out.rest() {
		s.broker.unconfirmed.add(m.topic)
	}
}
