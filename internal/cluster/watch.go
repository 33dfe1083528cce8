package cluster

import (
	"sync"
	"time"
)

// Watch finds the messages of other nodes that have not come, by their Stamps. A message is missed if it
// was possibly sent after this node wanted its topic. Safe for concurrent use.
type Watch struct {
	beat  time.Duration
	since func(Key) (time.Time, bool) // the time since which the topic is wanted, if it is
	asked func(Key) (time.Time, bool) // the time of its subscription, if there is one
	epoch time.Time                   // of the clock of this node

	mu    sync.Mutex
	up    time.Time          // of the last Reset; guarded by mu
	hears time.Time          // of the last Listen; guarded by mu
	nodes map[string]*sender // guarded by mu
}

// sender is another node.
type sender struct {
	next   uint32 // the round whose sum comes next; 0 if that is not known yet
	heard  time.Time
	clock  clock
	rounds map[uint32]*round
}

// round is a round of a node: all topics with messages, and after its sum those that miss some.
type round struct {
	topics map[Key]*count
	due    time.Time // when the missing messages are lost; zero before the sum
	late   time.Time // when those do not come any more that nobody wants
}

// count is a topic in a round.
type count struct {
	last uint32 // number of the last message that has come
	want uint32 // number of the last message that was sent
	told bool   // the loss of all before the next message is known
	free bool   // those that are missing in the sum were sent before the topic was wanted: no loss
}

const (
	maxSenders = 4096      // nodes that a Watch looks at
	maxRounds  = 256       // rounds of a node
	keepSender = time.Hour // time for which a silent node is remembered
)

// NewWatch returns a Watch for nodes that send a heartbeat each beat. since returns the time since which
// this node wants the messages of a topic, and asked the time since which it asks the broker for them;
// they must not call the Watch.
func NewWatch(beat time.Duration, since, asked func(Key) (time.Time, bool)) *Watch {
	return &Watch{beat: beat, since: since, asked: asked, epoch: time.Now(), nodes: make(map[string]*sender)}
}

// Reset begins anew: messages up to now may be missing, and all is known of them.
func (w *Watch) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = time.Now()
	for _, s := range w.nodes {
		s.next = 0
		clear(s.rounds)
	}
}

// Listen notes that the heartbeats and sums of all nodes come from now on.
func (w *Watch) Listen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hears = time.Now()
}

// Message notes a message of a topic, and reports whether one before it is lost. Those of a topic and
// node come in their order.
func (w *Watch) Message(node []byte, st Stamp, k Key) (lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	if s == nil {
		return false
	}
	at := s.clock.before(w.epoch, time.Now(), st)
	r := s.round(st.Round)
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
	lost = st.Number > c.last+1 && !c.told && w.wantsLocked(k, at)
	c.last, c.told = max(c.last, st.Number), false
	if summed && c.last >= c.want {
		delete(r.topics, k)
	}
	return lost
}

// Beat notes a heartbeat with the stamp of the node's round, and reports whether messages of all topics
// are possibly lost, because the sum of an earlier round has not come.
func (w *Watch) Beat(node []byte, st Stamp) (lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	if s == nil {
		return false
	}
	return w.hearLocked(s, st.Round, s.clock.before(w.epoch, time.Now(), st))
}

// Sum notes the sum of a round, and reports whether messages of all topics are possibly lost, because
// the sum of an earlier round has not come.
func (w *Watch) Sum(node []byte, st Stamp, sum []byte) (lost bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.senderLocked(node)
	if s == nil || st.Round < s.next { // it comes again after each break
		return false, nil
	}
	now := time.Now()
	ended := s.clock.before(w.epoch, now, st)
	length, ok := cutAge(&sum)
	if !ok {
		return false, ErrMalformed
	}
	lost = w.hearLocked(s, st.Round, ended.Add(-length))
	before := s.rounds[st.Round]
	missing := make(map[Key]*count)
	for len(sum) > 0 {
		t, ok := cutTotal(&sum)
		if !ok {
			return lost, ErrMalformed
		}
		c, at := before.of(t.Key), ended.Add(-t.age)
		c.free = !w.wantsLocked(t.Key, at)
		if !c.told && c.last < t.last && (!c.free || w.comesLocked(t.Key, at)) {
			c.want = t.last // it may be on another way than the sum
			missing[t.Key] = c
		}
	}
	s.begin(st.Round + 1)
	if len(missing) > 0 {
		s.rounds[st.Round] = &round{missing, now.Add(w.beat), now.Add(w.beat / 4)}
	}
	return lost, nil
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
		s.begin(roundNumber + 1)
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
	first := s.next
	if first == 0 || roundNumber < first || roundNumber-first >= maxRounds {
		first = roundNumber
	}
	for i := range roundNumber - first + 1 {
		_ = s.round(first + i)
	}
	s.told(k)
}

// Forgive notes that the loss of messages on a topic is known, of all nodes.
func (w *Watch) Forgive(k Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.nodes {
		if s.next != 0 {
			_ = s.round(s.next)
		}
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
			for k, c := range r.topics {
				if !c.free && w.wantsLocked(k, r.due.Add(-w.beat)) { // those who wanted it then, and not others
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

// Settled reports whether all messages of a node up to the end of the round have come, also those that were sent
// before somebody wanted them, or their loss is known. Round 0 stands for the last one whose sum has come.
func (w *Watch) Settled(node string, roundNumber uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.nodes[node]
	if s == nil {
		return roundNumber == 0
	}
	if roundNumber != 0 && roundNumber >= s.next {
		return false
	}
	now := time.Now()
	for n, r := range s.rounds {
		if (n <= roundNumber || roundNumber == 0) && r.waits(now) {
			return false
		}
	}
	return true
}

// waits reports whether messages of a round whose sum has come are on their way.
func (r *round) waits(now time.Time) bool {
	if r.due.IsZero() {
		return false
	}
	for _, c := range r.topics {
		if !c.free || now.Before(r.late) {
			return true
		}
	}
	return false
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

// hearLocked notes the round of a node, and the time of its begin. It reports whether there were sums
// that have not come.
func (w *Watch) hearLocked(s *sender, roundNumber uint32, began time.Time) (lost bool) {
	s.heard = time.Now()
	switch {
	case s.next == 0:
		lost = roundNumber > 1 && began.After(later(w.up, w.hears).Add(w.beat/4))
	case roundNumber <= s.next:
		return false
	default:
		lost = true
	}
	for n, r := range s.rounds {
		if n < roundNumber && r.due.IsZero() {
			delete(s.rounds, n)
		}
	}
	s.begin(roundNumber)
	return lost
}

// wantsLocked reports whether this node wants a message of the topic that was sent at that time.
func (w *Watch) wantsLocked(k Key, sent time.Time) bool {
	since, ok := w.since(k)
	return ok && !sent.Before(later(since, w.up))
}

// comesLocked reports whether a message of the topic that was sent at that time possibly comes.
func (w *Watch) comesLocked(k Key, sent time.Time) bool {
	asked, ok := w.asked(k)
	return ok && !sent.Before(later(asked, w.up))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// begin notes the round whose sum comes next.
func (s *sender) begin(n uint32) {
	delete(s.rounds, s.next)
	s.next = n
}

// round returns the round of a message, or nil if nothing is expected of it any more.
func (s *sender) round(n uint32) *round {
	r := s.rounds[n]
	if r != nil || n < s.next {
		return r
	}
	if len(s.rounds) >= maxRounds { // its sums do not come
		clear(s.rounds)
		s.begin(n)
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
