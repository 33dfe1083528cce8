package cluster

import (
	"sync"
	"time"
)

// Watch finds the messages of other nodes that have not come, by their Numbers. It looks at a topic
// from the first round that begins half a heartbeat after its subscription, since it cannot know which
// of the messages before that were for this node. Safe for concurrent use.
type Watch struct {
	beat  time.Duration
	since func(Key) (time.Time, bool) // the time of the subscription, if there is one

	mu    sync.Mutex
	up    time.Time          // of the last Reset; guarded by mu
	nodes map[string]*sender // guarded by mu
}

// sender is another node.
type sender struct {
	next   uint32    // the round whose sum comes next; 0 if that is not known yet
	began  time.Time // a time after which the first message of that round was sent; zero if not known
	heard  time.Time
	rounds map[uint32]*round
}

// round is a round of a node: all topics with messages, and after its sum those that miss some.
type round struct {
	topics map[Key]*count
	due    time.Time // when the missing messages are lost; zero before the sum
}

// count is a topic in a round.
type count struct {
	last uint32 // number of the last message that has come
	want uint32 // number of the last message that was sent
	hole bool   // one before last has not come
	told bool   // the loss of all before the next message is known
}

const (
	maxSenders = 4096      // nodes that a Watch looks at
	maxRounds  = 256       // rounds of a node
	keepSender = time.Hour // time for which a silent node is remembered
)

// NewWatch returns a Watch for nodes that send a heartbeat each beat. since returns the time from which
// on this node is subscribed to a topic; it must not call the Watch.
func NewWatch(beat time.Duration, since func(Key) (time.Time, bool)) *Watch {
	return &Watch{beat: beat, since: since, nodes: make(map[string]*sender)}
}

// Reset begins anew: messages up to now may be missing, and all is known of them.
func (w *Watch) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = time.Now()
	clear(w.nodes)
}

// Message notes a message of a topic, and reports whether one before it is lost. Those of a topic and
// node come in their order.
func (w *Watch) Message(node []byte, roundNumber, number uint32, k Key) (lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	if s == nil {
		return false
	}
	r := s.round(roundNumber)
	if r == nil {
		return false
	}
	summed := !r.due.IsZero()
	c := r.topics[k]
	switch {
	case c != nil:
	case summed:
		return false
	default:
		c = new(count)
		r.topics[k] = c
	}
	if number > c.last+1 && !c.told {
		lost = roundNumber == s.next && w.coversLocked(s, k) || summed && w.keptLocked(r, k)
		c.hole = c.hole || !lost
	}
	c.last, c.told = max(c.last, number), false
	if summed && c.last >= c.want {
		delete(r.topics, k)
	}
	return lost
}

// Beat notes a heartbeat with the node's round and the number of topics in it, and reports whether
// messages of all topics are possibly lost, because the sum of an earlier round has not come.
func (w *Watch) Beat(node []byte, roundNumber, topics uint32) (lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	return s != nil && w.hearLocked(s, roundNumber, topics == 0)
}

// Sum notes the sum of a round, and returns the topics with losses, and whether messages of all topics
// are possibly lost. again says that the node has sent it again, because it has connected anew.
func (w *Watch) Sum(node []byte, roundNumber uint32, again bool, sum []byte) (lost []Key, all bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	if s == nil || roundNumber < s.next { // it comes again after each break
		return nil, false, nil
	}
	expected := s.next != 0 || !again
	all = w.hearLocked(s, roundNumber, false) && expected
	before := s.rounds[roundNumber]
	missing := make(map[Key]*count)
	for len(sum) > 0 {
		k, last, ok := cutSum(&sum)
		if !ok {
			return nil, all, ErrMalformed
		}
		c := before.of(k)
		switch {
		case c.told || c.last >= last && !c.hole || !w.coversLocked(s, k):
		case c.hole:
			lost = append(lost, k)
		default: // it may be on another way than the sum
			c.want = last
			missing[k] = c
		}
	}
	now, began := time.Now(), s.began
	if !again {
		began = now
	}
	s.begin(roundNumber+1, began)
	if len(missing) > 0 {
		s.rounds[roundNumber] = &round{missing, now.Add(w.beat)}
	}
	return lost, all, nil
}

// SumLost notes that messages of a round are lost on all topics.
func (w *Watch) SumLost(node []byte, roundNumber uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.senderLocked(node); s != nil && roundNumber >= s.next {
		for n := range s.rounds {
			if n <= roundNumber {
				delete(s.rounds, n)
			}
		}
		s.begin(roundNumber+1, time.Now())
	}
}

// Told notes that the loss of messages of a node on a topic is known: all up to the next message, which
// is one of the round.
func (w *Watch) Told(node []byte, roundNumber uint32, k Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	if s == nil {
		return
	}
	if s.next != 0 && roundNumber >= s.next && roundNumber-s.next < maxRounds {
		for n := s.next; n <= roundNumber; n++ {
			_ = s.round(n)
		}
	}
	s.told(k)
}

// Forgive notes that the loss of messages on a topic is known, of all nodes.
func (w *Watch) Forgive(k Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.nodes {
		_ = s.round(s.next)
		s.told(k)
	}
}

// Due returns the topics whose missing messages are lost by now.
func (w *Watch) Due() (lost []Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for id, s := range w.nodes {
		for n, r := range s.rounds {
			if r.due.IsZero() || now.Before(r.due) {
				continue
			}
			for k := range r.topics {
				if w.keptLocked(r, k) {
					lost = append(lost, k)
				}
			}
			delete(s.rounds, n)
		}
		if now.Sub(s.heard) > keepSender {
			delete(w.nodes, id)
		}
	}
	return lost
}

// senderLocked returns nil if there are too many nodes.
func (w *Watch) senderLocked(node []byte) *sender {
	s := w.nodes[string(node)]
	if s == nil && len(w.nodes) < maxSenders {
		s = &sender{heard: time.Now(), rounds: make(map[uint32]*round)}
		w.nodes[string(node)] = s
	}
	return s
}

// hearLocked notes the round of a node. fresh says that it has no message yet. It reports whether there
// were sums that have not come.
func (w *Watch) hearLocked(s *sender, roundNumber uint32, fresh bool) (lost bool) {
	now := time.Now()
	s.heard = now
	switch {
	case s.next == 0: // a node greets a new one at once
		lost = (roundNumber > 1 || !fresh) && now.Sub(w.up) > 2*w.beat
	case roundNumber <= s.next:
		return false
	default:
		lost = true
	}
	if !fresh {
		now = time.Time{}
	}
	for n, r := range s.rounds {
		if n < roundNumber && r.due.IsZero() {
			delete(s.rounds, n)
		}
	}
	s.begin(roundNumber, now)
	return lost
}

// coversLocked reports whether this node gets all messages of the topic in the round s.next.
func (w *Watch) coversLocked(s *sender, k Key) bool {
	since, ok := w.since(k)
	if since.Before(w.up) {
		since = w.up
	}
	return ok && since.Add(w.beat/2).Before(s.began)
}

// keptLocked reports whether the topic has been subscribed to since the sum of the round.
func (w *Watch) keptLocked(r *round, k Key) bool {
	since, ok := w.since(k)
	return ok && since.Before(r.due.Add(-w.beat))
}

// begin notes the round whose sum comes next.
func (s *sender) begin(n uint32, at time.Time) {
	delete(s.rounds, s.next)
	s.next, s.began = n, at
}

// round returns the round of a message, or nil if nothing is expected of it any more.
func (s *sender) round(n uint32) *round {
	r := s.rounds[n]
	if r != nil || n < s.next {
		return r
	}
	if len(s.rounds) >= maxRounds { // its sums do not come
		clear(s.rounds)
		s.begin(n, time.Time{})
	}
	r = &round{topics: make(map[Key]*count)}
	s.rounds[n] = r
	return r
}

// of returns the count of a topic. r may be nil.
func (r *round) of(k Key) *count {
	if r == nil || r.topics[k] == nil {
		return new(count)
	}
	return r.topics[k]
}

// told notes that the loss of messages of a topic is known.
func (s *sender) told(k Key) {
	for _, r := range s.rounds {
		if r.due.IsZero() {
			r.topics[k] = &count{last: r.of(k).last, told: true}
		} else {
			delete(r.topics, k)
		}
	}
}
