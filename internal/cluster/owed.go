package cluster

import (
	"sync"
	"sync/atomic"
)

// Owed is the set of topics whose possible loss the other nodes have yet to learn of. Beyond
// maxOwed it is all topics. Safe for concurrent use.
type Owed[K comparable] struct {
	count atomic.Uint64 // calls of Add and AddAll

	mu     sync.Mutex
	topics map[K]struct{} // guarded by mu
	all    bool           // guarded by mu
	taken  uint64         // count at the last Take; guarded by mu
}

// maxOwed is the greatest number of topics.
const maxOwed = 1024

// Add adds a topic.
func (o *Owed[K]) Add(topic K) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count.Add(1)
	if o.all {
		return
	}
	if o.topics == nil {
		o.topics = make(map[K]struct{})
	}
	if o.topics[topic] = struct{}{}; len(o.topics) > maxOwed {
		o.all, o.topics = true, nil
	}
}

// AddAll adds all topics.
func (o *Owed[K]) AddAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count.Add(1)
	o.all, o.topics = true, nil
}

// Count returns a number that grows with each Add.
func (o *Owed[K]) Count() uint64 { return o.count.Load() }

// Since reports whether there are topics that were added before Count returned n.
func (o *Owed[K]) Since(n uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return n > o.taken
}

// Empty reports whether there are no topics.
func (o *Owed[K]) Empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.all && len(o.topics) == 0
}

// Take empties the set, and returns its topics, or that it was all of them.
func (o *Owed[K]) Take() (topics []K, all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for topic := range o.topics {
		topics = append(topics, topic)
	}
	all = o.all
	o.topics, o.all, o.taken = nil, false, o.count.Load()
	return topics, all
}
