package cluster

import (
	"sync"
	"time"
)

// Interest is the set of topics that a node wants, and the difference to those that it subscribes
// to. A topic that nobody wants any more stays subscribed for a delay, because it is often wanted
// again soon. Safe for concurrent use.
type Interest[K comparable] struct {
	delay time.Duration
	ready chan struct{} // holds one token when there may be something to do
	now   func() time.Time

	mu     sync.Mutex
	topics map[K]*topicState // guarded by mu
	wanted []K               // topics to subscribe to; guarded by mu
	left   []leftTopic[K]    // topics to unsubscribe from, by time; guarded by mu
}

// topicState is the state of a topic that is wanted or subscribed to.
type topicState struct {
	wants      int       // callers of Add less those of Remove
	subscribed bool      // Next has returned it
	asked      time.Time // when it did
	effective  time.Time // of the first Confirm since then; zero before
	listed     bool      // it is in wanted
	since      time.Time // of the last Begin; zero before
	leaves     uint32    // counts Remove of the last one, so that an older entry of left is known
}

// leftTopic is a topic that nobody wanted at a time.
type leftTopic[K comparable] struct {
	topic  K
	leaves uint32
	at     time.Time
}

// NewInterest returns an empty set.
func NewInterest[K comparable](delay time.Duration) *Interest[K] {
	return &Interest[K]{
		delay: delay, ready: make(chan struct{}, 1), now: time.Now, topics: make(map[K]*topicState),
	}
}

// Add says that one more wants the topic. It reports whether the subscription is effective.
func (i *Interest[K]) Add(topic K) (effective bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.addLocked(topic).effective.IsZero()
}

// Begin is Add for clients that want all messages of the topic from now on.
func (i *Interest[K]) Begin(topic K) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.addLocked(topic).since = i.now()
}

func (i *Interest[K]) addLocked(topic K) *topicState {
	s := i.topics[topic]
	if s == nil {
		s = new(topicState)
		i.topics[topic] = s
	}
	s.wants++
	if s.wants == 1 && !s.subscribed && !s.listed {
		s.listed = true
		i.wanted = append(i.wanted, topic)
		i.wake()
	}
	return s
}

// Effective reports whether the subscription to the topic is.
func (i *Interest[K]) Effective(topic K) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.topics[topic]
	return s != nil && !s.effective.IsZero()
}

// EffectiveFor returns the time for which the subscription to the topic has been effective; 0 if it is not.
func (i *Interest[K]) EffectiveFor(topic K) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s := i.topics[topic]; s != nil && !s.effective.IsZero() {
		return i.now().Sub(s.effective)
	}
	return 0
}

// Confirm says that the subscription to the topics is effective.
func (i *Interest[K]) Confirm(topics []K) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	for _, topic := range topics {
		if s := i.topics[topic]; s != nil {
			s.confirm(now)
		}
	}
}

func (s *topicState) confirm(now time.Time) {
	if s.subscribed && s.effective.IsZero() {
		s.effective = now
	}
}

// ConfirmAll is Confirm for all topics that Next has returned, and returns them.
func (i *Interest[K]) ConfirmAll() (topics []K) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	for topic, s := range i.topics {
		if s.subscribed {
			s.confirm(now)
			topics = append(topics, topic)
		}
	}
	return topics
}

// Remove is the reverse of Add.
func (i *Interest[K]) Remove(topic K) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.topics[topic]
	s.wants--
	if s.wants > 0 {
		return
	}
	s.leaves++
	if len(i.left) == 0 {
		i.wake()
	}
	i.left = append(i.left, leftTopic[K]{topic, s.leaves, i.now()})
}

// Wake puts a token on Ready.
func (i *Interest[K]) Wake() { i.wake() }

func (i *Interest[K]) wake() {
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

// Ready returns a channel on which a token comes when Next may have something new.
func (i *Interest[K]) Ready() <-chan struct{} { return i.ready }

// Next returns up to most topics to subscribe to and up to most to unsubscribe from, and the time
// until there is more to do; a negative time is until Ready.
func (i *Interest[K]) Next(most int) (subscribe, unsubscribe []K, wait time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	subscribe = i.nextWantedLocked(most)
	now := i.now()
	for len(i.left) > 0 && len(unsubscribe) < most {
		l := i.left[0]
		s := i.topics[l.topic]
		current := s != nil && s.wants == 0 && s.leaves == l.leaves
		if d := i.delay - now.Sub(l.at); current && d > 0 {
			break
		}
		i.left = i.left[1:]
		if current {
			delete(i.topics, l.topic)
			if s.subscribed {
				unsubscribe = append(unsubscribe, l.topic)
			}
		}
	}
	return subscribe, unsubscribe, i.waitLocked(now)
}

func (i *Interest[K]) nextWantedLocked(most int) (subscribe []K) {
	n := 0
	for ; n < len(i.wanted) && len(subscribe) < most; n++ {
		s := i.topics[i.wanted[n]]
		if s == nil || !s.listed { // it was removed meanwhile
			continue
		}
		s.listed = false
		if s.wants > 0 {
			s.subscribed, s.asked = true, i.now()
			subscribe = append(subscribe, i.wanted[n])
		}
	}
	i.wanted = i.wanted[n:]
	if len(i.wanted) == 0 {
		i.wanted = nil
	}
	return subscribe
}

func (i *Interest[K]) waitLocked(now time.Time) time.Duration {
	switch {
	case len(i.wanted) > 0:
		return 0
	case len(i.left) > 0:
		return max(0, i.delay-now.Sub(i.left[0].at))
	}
	i.left = nil
	return -1
}

// Since returns the time of the last Begin, if there was one.
func (i *Interest[K]) Since(topic K) (time.Time, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.topics[topic]
	if s == nil || s.since.IsZero() {
		return time.Time{}, false
	}
	return s.since, true
}

// Asked returns the time at which Next has returned the topic, if it did.
func (i *Interest[K]) Asked(topic K) (time.Time, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.topics[topic]
	if s == nil || !s.subscribed {
		return time.Time{}, false
	}
	return s.asked, true
}

// Has reports whether the topic is wanted or subscribed to.
func (i *Interest[K]) Has(topic K) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.topics[topic] != nil
}

// Len returns the number of topics that are wanted or subscribed to.
func (i *Interest[K]) Len() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.topics)
}
