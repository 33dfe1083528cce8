package ws

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// subscribing are the joins that wait until the node is subscribed to their room, so that the messages
// of other nodes that are published after the answer reach the client. A room with a history in a
// store needs none of them: its joins wait for the store.
type subscribing struct {
	mu    sync.Mutex
	waits map[string]map[*joinWait]struct{} // by room; guarded by mu
}

// subscribeTimeout bounds the wait of a join for the subscription. The join goes on without it.
const subscribeTimeout = 5 * time.Second

// subscribeLocked lets the join of c to a room wait for the subscription, with Client.mu held. The error
// is errWaits if it waits. With held, the caller removes the interest in the topic after the join.
// Only joins by HandleJoin wait, because they hold up no goroutine.
func (c *Client) subscribeLocked(id string, e *entering) (held bool, err error) {
	n := c.manager.node
	if n == nil || e.later == nil || e.subscribed {
		return false, nil
	}
	r, ok := c.manager.rooms.Get(id)
	if ok && r.Data().history.isStored() || !ok && e.makesHistory() {
		return false, nil
	}
	if ok {
		id = r.ID()
	} else {
		id = strings.Clone(id) // it may be a part of a message
	}
	topic := Topic{TopicRoom, id}
	if !n.interest.Add(topic) {
		err = n.awaitSubscription(c, topic, e)
	}
	if err != nil && !errors.Is(err, errWaits) {
		n.interest.Remove(topic)
	}
	return err == nil, err
}

// awaitSubscription adds a wait of c, whose lock is held, if the subscription is to come.
func (n *node) awaitSubscription(c *Client, topic Topic, e *entering) error {
	s, id := &n.subscribing, topic.Name
	s.mu.Lock()
	defer s.mu.Unlock()
	if !n.up.Load() || n.interest.Effective(topic) {
		return nil
	}
	if err := n.mayWait(c, id); err != nil {
		return err
	}
	w := &joinWait{node: n, client: c, room: id, entering: *e}
	w.entering.subscribed, w.entering.wait = true, w
	w.note()
	w.timer = time.AfterFunc(subscribeTimeout, w.expire)
	if s.waits[id] == nil {
		s.waits[id] = make(map[*joinWait]struct{})
	}
	s.waits[id][w] = struct{}{}
	return errWaits
}

// endSubscribingTo lets the joins go on that wait for one of the topics.
func (n *node) endSubscribingTo(topics []Topic) {
	var waits []*joinWait
	n.subscribing.mu.Lock()
	for _, topic := range topics {
		if topic.Kind == TopicRoom {
			waits = slices.AppendSeq(waits, maps.Keys(n.subscribing.waits[topic.Name]))
			delete(n.subscribing.waits, topic.Name)
		}
	}
	n.subscribing.mu.Unlock()
	n.resume(waits, nil)
}

// endSubscribing ends all of these waits with err; without one the joins go on.
func (n *node) endSubscribing(err error) {
	var waits []*joinWait
	n.subscribing.mu.Lock()
	for room, of := range n.subscribing.waits {
		waits = slices.AppendSeq(waits, maps.Keys(of))
		delete(n.subscribing.waits, room)
	}
	n.subscribing.mu.Unlock()
	n.resume(waits, err)
}

// take removes the wait, and reports whether it was there.
func (s *subscribing) take(w *joinWait) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.waits[w.room]
	if _, ok := of[w]; !ok {
		return false
	}
	if delete(of, w); len(of) == 0 {
		delete(s.waits, w.room)
	}
	return true
}

// makesHistory reports whether a room that the join creates has a history.
func (e *entering) makesHistory() bool {
	var o roomOptions
	for _, opt := range e.options {
		opt(&o)
	}
	return o.history != nil
}
