package ws

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/internal/measure"
	"github.com/qi-realtime/ws/pool"
)

// answerSync is the handler of ws.sync: the answer comes behind all messages for the client that were published
// before, on any node. So a client that moves to another connection knows that the old one has
// nothing for it any more. A notification has no effect.
func answerSync(c *Client, msg *Message) error {
	w := &syncWait{client: c, answer: newJoinAnswer(msg)}
	switch n := c.manager.node; {
	case w.answer == nil:
		return nil
	case n != nil:
		return n.sync(w)
	}
	c.conn.Shard().Post(w)
	return nil
}

// syncWait is a ws.sync without its answer yet. Immutable once it is posted.
type syncWait struct {
	client *Client
	answer *joinAnswer
	gaps   []RoomGap // that come before the answer
}

// RunInLoop sends the answer, behind the messages that were posted to the loop before.
func (w *syncWait) RunInLoop(*engine.Shard) {
	c := w.client
	for _, g := range w.gaps {
		if c.conn.AnswerInLoop(codec.OpText, g.notification()) == nil {
			c.manager.node.losses.gaps.Add(1)
			c.manager.EventBus.publish(EventRoomGap, c, g)
		}
	}
	r := success(w.answer.requestID, w.answer.trace)
	buf := pool.GetBuffer()
	defer pool.PutBuffer(buf)
	buf.B = r.Append(buf.B[:0])
	_ = c.sent(c.conn.AnswerInLoop(codec.OpText, buf.B)) // fails only for a client that is closing
}

// gapsFor returns the gaps that a client has to read before it leaves: those whose turn has yet to come, or,
// with all, one in each of its rooms whose messages are in no store, and one without a room.
func (n *node) gapsFor(c *Client, all bool) (gaps []RoomGap) {
	if all || n.losses.known.Load() != n.losses.count.Load() {
		gaps = append(gaps, RoomGap{Reason: GapBroker})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for mem := range c.roomsLocked() {
		if r := mem.Room(); (all || !n.knows(r)) && !r.Data().isRepaired() {
			gaps = append(gaps, RoomGap{Room: r.ID(), Reason: GapBroker})
		}
	}
	return gaps
}

// syncs are the requests ws.sync that wait for other nodes, and the questions between nodes that answer
// them: this node asks all others how far they have published, waits for the messages up to there, and
// then for those calls that still hand one to the event loops. Safe for concurrent use.
type syncs struct {
	news    chan struct{} // holds a token when answerSyncs has something to do
	flights cluster.Flights

	// Confined to answerSyncs.
	lastAsk, lastReply time.Duration // on measure.Now

	mu      sync.Mutex
	waiting []*syncWait       // for the next question; guarded by mu
	of      map[*Client]int   // requests without an answer; guarded by mu
	asks    []*syncAsk        // oldest first; guarded by mu
	number  uint64            // of the last question; guarded by mu
	asked   map[string]uint64 // last questions of other nodes, by node; guarded by mu
}

// syncAsk is a question to all other nodes.
type syncAsk struct {
	// Immutable.
	number uint64
	until  time.Duration // on measure.Now
	losses uint64        // losses.noted at the question
	silent bool          // a node has said nothing for two heartbeats: it is not asked, and the question fails
	waits  []*syncWait

	peers map[string]*uint32 // those that are not settled, with the round of their answer; guarded by syncs.mu
}

const (
	syncInterval = 50 * time.Millisecond // the shortest time between two questions, or answers, of a node
	syncPoll     = 5 * time.Millisecond  // between two looks at the messages that are on their way
	maxSyncs     = 8                     // requests of a client without an answer
)

// errTooManySyncs answers a ws.sync beyond maxSyncs.
var errTooManySyncs = NewClientError(429, "too many ws.sync without an answer")

func newSyncs() syncs {
	return syncs{news: make(chan struct{}, 1), of: make(map[*Client]int), asked: make(map[string]uint64)}
}

// sync lets w wait for the next question.
func (n *node) sync(w *syncWait) error {
	s := &n.syncs
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[w.client] >= maxSyncs {
		return errTooManySyncs
	}
	s.of[w.client]++
	s.waiting = append(s.waiting, w)
	s.wake()
	return nil
}

func (s *syncs) wake() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// noteSyncAsk notes the question of another node.
func (n *node) noteSyncAsk(from string, payload []byte) {
	number, size := binary.Uvarint(payload)
	if size <= 0 {
		n.counts.malformed.Add(1)
		return
	}
	s := &n.syncs
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) < maxNodes {
		s.asked[from] = number
		s.wake()
	}
}

// noteSynced notes the answer of another node.
func (n *node) noteSynced(from string, payload []byte) {
	number, round, ok := cluster.CutSynced(payload)
	if !ok {
		n.counts.malformed.Add(1)
		return
	}
	s := &n.syncs
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asks {
		if answer, waits := a.peers[from]; waits && answer == nil && a.number <= number {
			a.peers[from] = &round
		}
	}
	s.wake()
}

// answerSyncs asks and answers, until the node ends.
func (n *node) answerSyncs() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-n.syncs.news:
		case <-timer.C:
		case <-n.ending:
			return
		}
		n.replySyncs()
		n.askSync()
		n.endSyncs()
		if n.syncs.isBusy() {
			timer.Reset(syncPoll)
		}
	}
}

// isBusy reports whether something is left to do.
func (s *syncs) isBusy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)+len(s.asks)+len(s.asked) > 0
}

// replySyncs answers the other nodes, behind all that was published here before.
func (n *node) replySyncs() {
	s, now := &n.syncs, measure.Now()
	s.mu.Lock()
	asked := s.asked
	if len(asked) == 0 || now-s.lastReply < syncInterval {
		s.mu.Unlock()
		return
	}
	s.asked = make(map[string]uint64)
	s.mu.Unlock()
	s.lastReply = now
	if !s.flights.Wait(n.ending) {
		return
	}
	for id, number := range asked {
		_ = n.post(Topic{TopicNode, id}, &cluster.Message{ // without it, the question fails
			Kind: cluster.Synced, Payload: cluster.AppendSynced(nil, number, 0), // the round follows
		})
	}
}

// endRound ends the round before an answer to another node, and enters its number. The goroutine of
// send calls it.
func (n *node) endRound(msg []byte) {
	n.sum()
	cluster.SetSyncedRound(msg, n.numbers.sent.Round().Round-1)
}

// askSync asks the other nodes for all requests that wait.
func (n *node) askSync() {
	s, now := &n.syncs, measure.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || now-s.lastAsk < syncInterval {
		return
	}
	s.lastAsk = now
	s.number++
	beat := n.manager.cfg.Cluster.Heartbeat
	a := &syncAsk{
		number: s.number, until: now + beat/2, losses: n.losses.noted.Load(), waits: s.waiting,
		peers: make(map[string]*uint32),
	}
	s.waiting = nil
	s.asks = append(s.asks, a)
	var nodes []Node
	nodes, a.silent = n.peers.alive(2 * beat)
	for _, other := range nodes {
		a.peers[other.ID] = nil
	}
	if len(nodes) == 0 {
		return
	}
	err := n.post(nodesTopic, &cluster.Message{Kind: cluster.SyncAsk, Payload: binary.AppendUvarint(nil, a.number)})
	if err != nil {
		a.until = 0 // it fails at once
	}
}

// endSyncs answers the requests whose questions are settled, or have failed.
func (n *node) endSyncs() {
	ended := n.takeAsks()
	if len(ended) == 0 || !n.syncs.flights.Wait(n.ending) {
		return
	}
	for _, a := range ended {
		failed := a.silent || n.losses.noted.Load() != a.losses || n.isOver(a)
		n.syncs.forget(a.waits)
		for _, w := range a.waits {
			w.gaps = n.gapsFor(w.client, failed)
			w.client.conn.Shard().Post(w)
		}
	}
}

// takeAsks removes the questions that are settled, and those that have failed.
func (n *node) takeAsks() (ended []*syncAsk) {
	s := &n.syncs
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks = slices.DeleteFunc(s.asks, func(a *syncAsk) bool {
		if !n.settledLocked(a) && !n.isOver(a) { // also after a loss: the other messages must not come twice
			return false
		}
		ended = append(ended, a)
		return true
	})
	return ended
}

// isOver reports whether a question has waited for long enough.
func (n *node) isOver(a *syncAsk) bool { return !n.up.Load() || measure.Now() > a.until }

// settledLocked reports whether all has come that the other nodes had published before the question.
// syncs.mu is held.
func (n *node) settledLocked(a *syncAsk) bool {
	for id, round := range a.peers {
		switch {
		case round != nil && n.numbers.watch.Settled(id, *round):
		case round == nil && !n.peers.knows(id) && n.numbers.watch.Settled(id, 0): // it has stopped
		default:
			return false
		}
		delete(a.peers, id)
	}
	return true
}

// forget counts the requests as answered.
func (s *syncs) forget(waits []*syncWait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range waits {
		if s.of[w.client]--; s.of[w.client] == 0 {
			delete(s.of, w.client)
		}
	}
}
