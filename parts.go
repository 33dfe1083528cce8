package ws

import (
	"time"

	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/internal/presence"
)

// Each node publishes the users of its own clients, its part of a room, and a node with members has
// the parts of all: docs/presence.md has the protocol.

const (
	shareInterval = 100 * time.Millisecond // between two deltas of a room
	askInterval   = 2 * time.Second        // between two questions to a node that does not answer
	pruneInterval = time.Second            // between two looks for nodes that have died
	linkUpPace    = 5000                   // rooms a second that ask when the link is up
)

// sharing is the part of a roomPresence for the other nodes. Guarded by roomPresence.mu.
type sharing struct {
	at      time.Duration            // of the last delta or question
	askAll  bool                     // all nodes have to send their parts
	asks    map[string]time.Duration // nodes whose part is not known, with the time of the next question
	answers map[string]bool          // nodes that want the part of this one
	leaving map[string]time.Duration // nodes that have stopped, with the end of their part
}

// topic returns the topic of the room's members.
func (p *roomPresence) topic() Topic { return Topic{TopicRoom, p.id} }

// needParts asks all nodes, for the first member of this one.
func (s *sharing) needParts(now time.Duration) {
	s.askAll, s.at = true, now // later, because the subscription may follow
}

// dropPartsLocked forgets the other nodes when the last member here has gone.
// Later changes, which begin without their users, are of no use to a client with the list of before.
func (p *roomPresence) dropPartsLocked() {
	p.version++
	p.view.RemoveParts()
	p.share.askAll, p.share.asks, p.share.leaving = false, nil, nil
}

// ask lets p ask a node whose part is not known.
func (s *sharing) ask(node string, now time.Duration) {
	if _, ok := s.asks[node]; !ok {
		put(&s.asks, node, now)
	}
}

// askAgainLocked asks all nodes after a loss, and by name those with a part: a node that has no
// users any more does not listen to the room.
func (p *roomPresence) askAgainLocked(now time.Duration) {
	if len(p.clients) == 0 {
		return
	}
	p.share.askAll = true
	for node := range p.view.Parts() {
		put(&p.share.asks, node, now)
	}
}

func put[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = v
}

// nextShareLocked returns the time at which there is something to do for the other nodes.
func (p *roomPresence) nextShareLocked(now time.Duration) (at time.Duration, ok bool) {
	s := &p.share
	at = time.Duration(1<<63 - 1)
	for _, end := range s.leaving {
		at = min(at, end)
	}
	if p.all.node.up.Load() {
		for _, next := range s.asks {
			at = min(at, max(next, s.at+shareInterval))
		}
		if p.view.Unsent() || s.askAll || len(s.answers) > 0 {
			at = min(at, max(now+presenceDelay, s.at+shareInterval))
		}
	}
	return at, at < 1<<63-1
}

// shareLocked does all that is due for the other nodes. What the queue of the link refuses is tried
// again.
func (p *roomPresence) shareLocked(now time.Duration) {
	s := &p.share
	p.endLeavingLocked(now)
	if now < s.at+shareInterval || !p.all.node.up.Load() {
		return
	}
	if p.view.Unsent() || s.askAll || len(s.asks)+len(s.answers) > 0 {
		s.at = now
	}
	if !p.sendDeltasLocked() {
		return
	}
	p.sendAsksLocked(now)
	for node := range s.answers {
		if p.all.node.sendPart(node, p.id, p.view.Pages()) != nil {
			return
		}
		delete(s.answers, node)
	}
}

// endLeavingLocked removes the parts of nodes that stopped long enough ago.
func (p *roomPresence) endLeavingLocked(now time.Duration) {
	for node, end := range p.share.leaving {
		if end <= now {
			delete(p.share.leaving, node)
			p.removePartLocked(node)
		}
	}
}

// sendAsksLocked asks for the parts that are not known.
func (p *roomPresence) sendAsksLocked(now time.Duration) {
	n, s := p.all.node, &p.share
	if s.askAll && n.post(p.topic(), &cluster.Message{Kind: cluster.PresenceAsk}) == nil {
		s.askAll = false
	}
	for node, next := range s.asks {
		if next <= now && n.post(Topic{TopicNode, node}, &cluster.Message{
			Kind: cluster.PresenceAsk, Payload: []byte(p.id),
		}) == nil {
			s.asks[node] = now + askInterval
		}
	}
}

// sendDeltasLocked sends the changes here, and reports whether all are on their way.
func (p *roomPresence) sendDeltasLocked() bool {
	for p.view.Unsent() {
		d := p.view.Delta(p.all.versions.Add(1))
		msg := &cluster.Message{Kind: cluster.Presence, Payload: d.Append(nil)}
		if p.all.node.post(p.topic(), msg) != nil {
			return false
		}
		p.view.Sent(&d)
	}
	return true
}

func (p *roomPresence) removePartLocked(node string) {
	p.view.Remove(node)
	delete(p.share.asks, node)
	delete(p.share.answers, node)
	p.scheduleLocked()
}

// sendPart sends the part of this node to another one.
func (n *node) sendPart(node, room string, pages []presence.Page) error {
	for i := range pages {
		pages[i].Room = room
		msg := &cluster.Message{Kind: cluster.PresencePage, Payload: pages[i].Append(nil)}
		if err := n.post(Topic{TopicNode, node}, msg); err != nil {
			return err
		}
	}
	return nil
}

// receive handles a message of another node. Those of a node that is not alive are late, unless it
// is a question of a new one.
func (a *presences) receive(topic Topic, in *cluster.Message) {
	from := string(in.Origin)
	if in.Kind == cluster.PresenceAsk {
		a.answer(topic, from, string(in.Payload))
		return
	}
	if !a.meet(from) {
		a.node.counts.unwanted.Add(1)
		return
	}
	var (
		d    presence.Delta
		page presence.Page
		err  error
	)
	room := topic.Name
	if in.Kind == cluster.Presence {
		err = d.Decode(in.Payload)
	} else {
		err = page.Decode(in.Payload)
		room = page.Room
	}
	if err != nil {
		a.node.counts.malformed.Add(1)
		return
	}
	if p := a.get(room); p != nil {
		p.take(from, in.Kind, &d, &page)
	}
}

// take applies a delta or a page.
func (p *roomPresence) take(from string, kind cluster.Kind, d *presence.Delta, page *presence.Page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.clients) == 0 || p.ended {
		return
	}
	var known bool
	if kind == cluster.Presence {
		known = p.view.Apply(from, d)
	} else if known = p.view.Load(from, page); page.Last || !known {
		delete(p.share.asks, from)
	}
	if !known {
		p.share.ask(from, p.all.now())
	}
	p.scheduleLocked()
}

// answer lets the room send its part to a node. Without users here the part is empty.
func (a *presences) answer(topic Topic, from, room string) {
	if topic.Kind == TopicRoom {
		room = topic.Name
	}
	p := a.get(room)
	if p != nil && p.answer(from) || topic.Kind == TopicRoom {
		return
	}
	_ = a.node.sendPart(from, room, []presence.Page{{Version: a.versions.Add(1), Last: true}}) // it asks again
}

func (p *roomPresence) answer(from string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	put(&p.share.answers, from, true)
	p.scheduleLocked()
	return true
}

// meet reports whether a node is alive, and notes that it has a part.
func (a *presences) meet(id string) bool {
	if !a.node.peers.isAlive(id, a.death()) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[id] = true
	return true
}

// death is the time without a heartbeat after which a node is gone.
func (a *presences) death() time.Duration { return missedBeats * a.manager.cfg.Cluster.Heartbeat }

// isAlive reports whether the node had a heartbeat within d.
func (p *peers) isAlive(id string, d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	other, ok := p.seen[id]
	return ok && time.Since(other.at) <= d
}

// each calls fn for all rooms, with their lock held.
func (a *presences) each(fn func(p *roomPresence)) {
	a.mu.Lock()
	rooms := make([]*roomPresence, 0, len(a.rooms))
	for _, p := range a.rooms {
		rooms = append(rooms, p)
	}
	a.mu.Unlock()
	for _, p := range rooms {
		p.mu.Lock()
		if !p.ended {
			fn(p)
			p.scheduleLocked()
		}
		p.mu.Unlock()
	}
}

// met asks a node that is new, because its earlier messages were not taken.
func (a *presences) met(id string) {
	now := a.now()
	a.each(func(p *roomPresence) {
		if len(p.clients) > 0 {
			p.share.ask(id, now)
		}
	})
}

// subscribed asks all nodes for the rooms whose messages come from now on.
func (a *presences) subscribed(topics []Topic) {
	for _, topic := range topics {
		if topic.Kind == TopicRoom {
			a.lost(topic.Name)
		}
	}
}

// lost asks all nodes for a room, because messages were possibly lost.
func (a *presences) lost(room string) {
	p := a.get(room)
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.askAgainLocked(a.now())
		p.scheduleLocked()
	}
}

// lostAll asks all nodes for all rooms, at a pace.
func (a *presences) lostAll() {
	at := a.now()
	a.each(func(p *roomPresence) {
		at += time.Second / linkUpPace
		p.share.at = at - shareInterval
		p.askAgainLocked(at)
	})
}

// linkUp notes that the link to the broker is up: messages were possibly lost, and changes wait.
func (a *presences) linkUp() {
	a.upAt.Store(int64(a.now()))
	a.lostAll()
}

// stopped lets the part of a node that has stopped end when its users had the time to come to other
// nodes.
func (a *presences) stopped(id string) {
	a.mu.Lock()
	delete(a.known, id)
	a.mu.Unlock()
	now := a.now()
	a.each(func(p *roomPresence) {
		if p.view.Knows(id) {
			put(&p.share.leaving, id, now+p.cfg.LeaveHold)
		}
	})
}

// prune removes the parts of nodes that have died. While the link is down, and until the other nodes
// had the time for their heartbeats, nobody knows that.
func (a *presences) prune() {
	death := a.death()
	if !a.node.up.Load() || a.now()-time.Duration(a.upAt.Load()) < death {
		return
	}
	alive := make(map[string]bool)
	nodes, _ := a.node.peers.alive(death)
	for _, node := range nodes {
		alive[node.ID] = true
	}
	a.mu.Lock()
	var dead []string
	for id := range a.known {
		if !alive[id] {
			delete(a.known, id)
			dead = append(dead, id)
		}
	}
	a.mu.Unlock()
	for _, id := range dead {
		a.each(func(p *roomPresence) {
			if p.view.Knows(id) {
				p.removePartLocked(id)
			}
		})
	}
}
