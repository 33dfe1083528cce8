package ws

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/engine"
)

// losses counts the times at which messages to this node were possibly lost, on all topics, and
// knows who has yet to learn of the last one: each room keeps the count that its members know of.
// They learn of it by a gap ahead of the next message, or when their turn comes. Safe for concurrent
// use.
type losses struct {
	news chan struct{} // holds a token when reportLosses has something to do

	// Atomic.
	noted atomic.Uint64 // losses on any topics whose gap may be later
	count atomic.Uint32 // losses on all topics
	known atomic.Uint32 // the count that all clients know of, for messages to users and to all
	gaps  atomic.Uint64 // gaps that were published

	// mu is held while a gap is posted, so that no later message overtakes it. It may be held for
	// BroadcastConfig.Timeout, and is not taken on event loops.
	mu sync.Mutex
}

// loseAll notes a loss on all topics.
func (n *node) loseAll() {
	l := &n.losses
	l.noted.Add(1)
	count := l.count.Add(1)
	if n.manager.GetClientCount() == 0 {
		l.known.Store(count)
	}
	n.wakeReport()
	n.manager.presences.lostAll()
}

func (n *node) wakeReport() {
	select {
	case n.losses.news <- struct{}{}:
	default:
	}
}

// lose notes a loss on one topic: its clients do not know of the last loss any more.
func (n *node) lose(topic Topic) {
	l := &n.losses
	l.noted.Add(1)
	l.mu.Lock() // a gap that is being posted may come too early for this loss
	defer l.mu.Unlock()
	before := l.count.Load() - 1
	switch topic.Kind {
	case TopicRoom:
		if r, ok := n.manager.rooms.Get(topic.Name); ok {
			r.Data().losses.Store(before)
		}
	case TopicAll, TopicUser:
		l.known.Store(before)
	case TopicNode, TopicHistory:
		return
	}
	n.wakeReport()
}

// Lost notes that messages to this node are possibly lost.
func (n brokerNode) Lost(topics []Topic) {
	if topics == nil {
		n.numbers.watch.Reset()
		n.loseAll()
		n.doubtAll()
	}
	for _, topic := range topics {
		if topic.Kind == TopicHistory {
			n.read(topic.Name, false)
			continue
		}
		n.numbers.watch.Forgive(keyOf(topic))
		n.loseNow(topic)
	}
}

// loseNow notes a loss on one topic, and publishes its gap. If it cannot be published now, it comes ahead of
// the next message.
func (n *node) loseNow(topic Topic) {
	if topic.Kind == TopicUser && n.gapOfUser(userNamed(topic.Name)) == nil {
		return
	}
	n.lose(topic)
	switch topic.Kind {
	case TopicRoom:
		n.manager.presences.lost(topic.Name)
		if r, ok := n.manager.rooms.Get(topic.Name); ok && r.Len() > 0 {
			_ = n.reportTo(r)
		}
	case TopicAll, TopicUser:
		_ = n.reportToAll()
	case TopicNode, TopicHistory:
	}
}

// reportLosses publishes the gaps of losses, room by room at a pace.
func (n *node) reportLosses() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	wait := func(d time.Duration) bool {
		pause.Reset(d)
		select {
		case <-pause.C:
			return true
		case <-n.ending:
			return false
		}
	}
	for {
		select {
		case <-n.losses.news:
		case <-n.ending:
			return
		}
		for !n.reportAll(wait) {
			if !wait(time.Second) {
				return
			}
		}
	}
}

const (
	gapsPerSecond = 20_000 // members that learn of a loss, unless a message comes first
	gapStep       = 500    // members between two pauses
)

// reportAll publishes the gap in all rooms that do not know of the last loss. done is false if an
// event loop did not take one.
func (n *node) reportAll(wait func(time.Duration) bool) (done bool) {
	done = n.reportToAll() == nil
	told := 0
	n.manager.rooms.Range(func(r *roomEntry) bool {
		members := r.Len()
		if members == 0 || n.knows(r) || r.Data().isRepaired() {
			return true
		}
		if n.reportTo(r) != nil {
			done = false
		}
		if told += members; told >= gapStep {
			pause := time.Duration(told) * time.Second / gapsPerSecond
			told = 0
			return wait(pause)
		}
		return true
	})
	return done || n.manager.stopped() != nil
}

func (n *node) knows(r *roomEntry) bool { return r.Data().losses.Load() == n.losses.count.Load() }

// notePlain notes that there are messages outside the history, if that is in a store.
func (d *roomData) notePlain() {
	if d.isRepaired() {
		d.plain.Store(true)
	}
}

// isRepaired reports whether all messages that the node knows of are in a store, so that losses are made good.
// The gap then comes ahead of the first plain message.
func (d *roomData) isRepaired() bool { return d.history.isStored() && !d.plain.Load() }

// reportTo publishes a gap in r, unless its members know of the last loss.
func (n *node) reportTo(r *roomEntry) error {
	if n.knows(r) {
		return nil
	}
	n.losses.mu.Lock()
	defer n.losses.mu.Unlock()
	count := n.losses.count.Load()
	if n.knows(r) {
		return nil
	}
	if r.Data().isRepaired() {
		return nil
	}
	if err := n.publishGap(&publication{}, r); err != nil {
		return err
	}
	r.Data().losses.Store(count)
	return nil
}

// reportToAll publishes a gap without a room to all clients, for messages to users and to all, unless
// they know of the last loss.
func (n *node) reportToAll() error {
	l := &n.losses
	if l.known.Load() == l.count.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	count := l.count.Load()
	if l.known.Load() == count {
		return nil
	}
	if err := n.publishGap(&publication{}, nil); err != nil {
		return err
	}
	l.known.Store(count)
	return nil
}

// gapOfUser publishes a gap without a room to the devices of a user.
func (n *node) gapOfUser(u user) error {
	n.losses.mu.Lock()
	defer n.losses.mu.Unlock()
	devices := n.manager.clients.devices(u)
	if len(devices) == 0 {
		return nil
	}
	return n.publishGap(&publication{toUser: true, user: u, devices: devices}, nil)
}

// publishGap publishes a gap to the recipients of p, which are the members of r if it is not nil.
func (n *node) publishGap(p *publication, r *roomEntry) error {
	gap := RoomGap{Reason: GapBroker}
	if r != nil {
		gap.Room = r.ID()
		p.in(r)
	}
	p.prepared = &Prepared{frame: newFrame(OpText, gap.notification(), engine.Handling{})}
	if _, err := n.manager.publishHere(context.Background(), p); err != nil {
		return err
	}
	n.losses.gaps.Add(1)
	n.manager.EventBus.publish(EventRoomGap, nil, gap)
	return nil
}
