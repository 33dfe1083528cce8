package redisbroker

import "github.com/qi-realtime/ws"

// mostTopics bounds a set of topics. One with more stands for all topics.
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

// take removes all topics. It returns nil and true for a set that stands for all topics.
func (s *topicSet) take() (topics []ws.Topic, found bool) {
	found = s.all || len(s.topics) > 0
	for t := range s.topics {
		topics = append(topics, t)
	}
	*s = topicSet{}
	return topics, found
}
