package natsbroker

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/qi-realtime/ws"
)

// recheck is the time after which a receiver looks again at subscriptions that have dropped messages.
const recheck = 200 * time.Millisecond

// subscription is a topic of a Broker on a connection to NATS.
type subscription struct {
	topic    ws.Topic
	sub      *nats.Subscription
	receiver *receiver
	newest   newest // of a history

	// The messages that were dropped, as the node knows it, and those that were taken, at the last
	// look. Confined to the receiver.
	reported  int
	delivered int64
}

// receiver hands the messages of a part of the topics to the node, on one goroutine. nats.go puts
// them into the channel, and drops those that it has no space for. Each message that follows
// dropped ones comes after their report to the node.
type receiver struct {
	broker   *Broker
	messages chan *nats.Msg
	wake     chan struct{} // after a change of marked

	// dropping are the subscriptions that have dropped messages and may drop more without a
	// notice, because nats.go has none until one message has been taken. Confined to run.
	dropping map[*subscription]struct{}
	topics   [1]ws.Topic // of the call of Lost; confined to run

	mu     sync.Mutex
	marked []*subscription // guarded by mu
}

func newReceiver(b *Broker) *receiver {
	return &receiver{
		broker:   b,
		messages: make(chan *nats.Msg, b.cfg.Pending),
		wake:     make(chan struct{}, 1),
		dropping: make(map[*subscription]struct{}),
	}
}

// mark notes that a subscription has dropped messages. Safe for concurrent use.
func (r *receiver) mark(s *subscription) {
	r.mu.Lock()
	r.marked = append(r.marked, s)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run hands on messages until the broker stops.
func (r *receiver) run() {
	defer r.broker.running.Done()
	var again <-chan time.Time
	for {
		select {
		case <-r.broker.stop:
			return
		case m := <-r.messages:
			if s := r.broker.subscriptionOf(m.Sub); s != nil && r.broker.gate.wait(r.broker.stop) {
				r.report(s)
				r.broker.receive(s, m)
			}
		case <-r.wake:
			r.takeMarked()
		case <-again:
			again = nil
			r.check()
		}
		if again == nil && len(r.dropping) > 0 {
			again = time.After(recheck)
		}
	}
}

// receive hands a message to the node.
func (b *Broker) receive(s *subscription, m *nats.Msg) {
	if s.topic.Kind == ws.TopicHistory && b.store != nil {
		b.receiveStored(s, m)
	} else {
		b.node.Receive(s.topic, m.Data)
	}
}

// takeMarked reports the messages that marked subscriptions have dropped.
func (r *receiver) takeMarked() {
	r.mu.Lock()
	marked := r.marked
	r.marked = nil
	r.mu.Unlock()
	for _, s := range marked {
		r.dropping[s] = struct{}{}
		r.report(s)
	}
}

// report reports the messages that the subscription has dropped since the last report, and returns
// whether there were any.
func (r *receiver) report(s *subscription) bool {
	dropped, err := s.sub.Dropped()
	if err != nil || dropped == s.reported { // an error is the end of the subscription
		return false
	}
	s.reported = dropped
	r.topics[0] = s.topic
	r.broker.node.Lost(r.topics[:])
	return true
}

// check looks at the subscriptions that have dropped messages. One leaves the set when a message
// has been taken since the last look, and none was dropped: nats.go then gives a notice of the
// next that is dropped. Delivered comes first, because a message that is dropped after it, and
// before a message that is taken, must not go unseen.
func (r *receiver) check() {
	for s := range r.dropping {
		delivered, err := s.sub.Delivered()
		if err != nil || !r.report(s) && delivered != s.delivered {
			delete(r.dropping, s)
		}
		s.delivered = delivered
	}
}
