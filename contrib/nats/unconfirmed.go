package natsbroker

import (
	"sync"

	"github.com/qi-realtime/ws"
)

// mostTopics bounds each set of topics. A set with more stands for all topics.
const mostTopics = 4096

// topicSet is a bounded set of topics. Not safe for concurrent use.
type topicSet struct {
	topics map[ws.Topic]struct{}
	all    bool
}

func (s *topicSet) add(t ws.Topic) {
	if s.all {
		return
	}
	if s.topics == nil {
		s.topics = make(map[ws.Topic]struct{})
	}
	s.topics[t] = struct{}{}
	if len(s.topics) > mostTopics {
		s.topics, s.all = nil, true
	}
}

func (s *topicSet) addAll(other *topicSet) {
	if other.all {
		s.topics, s.all = nil, true
	}
	for t := range other.topics {
		s.add(t)
	}
}

func (s *topicSet) clear() {
	clear(s.topics)
	s.all = false
}

func (s *topicSet) empty() bool { return !s.all && len(s.topics) == 0 }

// unconfirmed holds the topics of the messages that are possibly lost if the connection breaks.
// nats.go takes a message before it is written, and the server sends nothing back for it; but the
// answer to a PING says that the server has read all that was written before. A topic moves from
// recent to pinged with a PING, and to passed with its PONG; there it stays for one more PING, in
// which the server passes the message on to the other servers. Safe for concurrent use.
type unconfirmed struct {
	mu sync.Mutex

	recent, pinged, passed topicSet // guarded by mu
}

// add notes a message before it is published.
func (u *unconfirmed) add(t ws.Topic) {
	u.mu.Lock()
	u.recent.add(t)
	u.mu.Unlock()
}

// ping begins a confirmation, before the PING. It reports whether there is anything to confirm.
func (u *unconfirmed) ping() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pinged.empty() {
		u.pinged, u.recent = u.recent, u.pinged
	} else { // the last confirmation has failed
		u.pinged.addAll(&u.recent)
		u.recent.clear()
	}
	return !u.pinged.empty() || !u.passed.empty()
}

// confirm ends a confirmation after the PONG. All pinged topics have to be of its connection.
func (u *unconfirmed) confirm() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.passed.clear()
	u.passed, u.pinged = u.pinged, u.passed
}

// take removes all topics but the recent ones. It returns nil and true for all topics.
func (u *unconfirmed) take() (topics []ws.Topic, found bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pinged.addAll(&u.passed)
	u.passed.clear()
	found = !u.pinged.empty()
	for t := range u.pinged.topics {
		topics = append(topics, t)
	}
	u.pinged.clear()
	return topics, found
}
