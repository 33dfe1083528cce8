package ws

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/internal/cluster"
	"github.com/qi-realtime/ws/pool"
)

// ClusterConfig configures the node of a Broker. A zero field has its default.
type ClusterConfig struct {
	// Name names the node in Manager.Nodes. Default the name of the host.
	Name string
	// QueueBytes bounds the messages that wait for the link to the broker, in bytes. Beyond it
	// publishes are refused as if the link was down, until half of the queue is sent. Default
	// 8 MiB.
	QueueBytes int64
	// LocalFallback makes a publish reach the clients of its own node while the link is down or its
	// queue full, in place of ErrBrokerUnavailable. The clients of the other nodes get a ws.gap
	// for it when the link is up again. Default false.
	LocalFallback bool
	// UnsubscribeDelay is the time for which the node stays subscribed to a room that its last
	// member has left, or to a user without devices. Default 2 s.
	UnsubscribeDelay time.Duration
	// Heartbeat is the interval at which the node reports to the others, for Manager.Nodes. A node
	// without a report for four intervals is gone; after 15, its last messages count as possibly
	// lost. It should be the same on all nodes. Default 2 s.
	Heartbeat time.Duration
}

// validateCluster checks the settings of the node.
func (c *Config) validateCluster() error {
	return firstError(
		invalidIf(c.Broker != nil && c.Inbox != nil, "Inbox", "does not work with a Broker"),
		invalidIf(len(c.Cluster.Name) > maxNodeName, "Cluster.Name", "is too long"),
		atLeast("Cluster.QueueBytes", c.Cluster.QueueBytes, 0),
		atLeast("Cluster.UnsubscribeDelay", c.Cluster.UnsubscribeDelay, 0),
		atLeast("Cluster.Heartbeat", c.Cluster.Heartbeat, 0),
	)
}

func (c ClusterConfig) withDefaults() ClusterConfig {
	if c.Name == "" {
		c.Name, _ = os.Hostname()
		c.Name = c.Name[:min(len(c.Name), maxNodeName)]
	}
	c.QueueBytes = cmp.Or(c.QueueBytes, 8<<20)
	c.UnsubscribeDelay = cmp.Or(c.UnsubscribeDelay, 2*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 2*time.Second)
	return c
}

// node is a Manager as a member of a cluster. A Manager without a Broker has a nil
// node: start, stop and the notes of members and devices do nothing on it. Safe for concurrent use.
type node struct {
	// Immutable once the Manager is made.
	manager *Manager
	broker  Broker
	store   HistoryBroker // the broker; nil if it stores no histories
	id      string
	origin  []byte // id

	link     *cluster.Queue[outbound]
	owed     cluster.Owed[Topic] // losses that the other nodes have yet to learn of
	interest *cluster.Interest[Topic]
	losses   losses
	numbers  numbers
	peers    peers
	counts   nodeCounts

	syncs       syncs
	subscribing subscribing
	waits       joinWaits
	joins       *pool.Workers // let joins go on that have waited

	// For rooms with a history.
	jobs     *pool.Workers
	ctx      context.Context // of calls of the store
	cancel   context.CancelFunc
	stores   storedRooms
	forgets  forgets
	checkNow chan struct{} // holds a token when checkStores has something to do

	// Atomic.
	up      atomic.Bool  // the link is up
	listens atomic.Bool  // the heartbeats of other nodes come
	greet   atomic.Bool  // the other nodes want a heartbeat now
	repeat  atomic.Bool  // the last sums are to be sent again
	most    atomic.Int64 // bytes of a message; 0 has no end
	owesNow atomic.Bool  // owed is to be sent ahead of all that waits
	renewed atomic.Bool  // there is a new connection, which subscribe has yet to learn of

	mu         sync.Mutex
	started    bool          // guarded by mu
	stopped    bool          // guarded by mu
	sent       chan struct{} // closed when the queue is closed and empty
	ending     chan struct{} // closed when the goroutines have to end
	stopOnce   sync.Once
	goroutines sync.WaitGroup
}

// nodeCounts are the counters of ClusterStats.
type nodeCounts struct {
	published, unsent, refused, received, unwanted, malformed, undelivered, holes atomic.Uint64
	loads, repairs, storeErrors                                                   atomic.Uint64
}

// newNode returns nil without a Broker.
func newNode(cfg *Config) *node {
	if cfg.Broker == nil {
		return nil
	}
	id := rand.Text()[:20]
	n := &node{
		broker: cfg.Broker, id: id, origin: []byte(id),
		link:     cluster.NewQueue[outbound](cfg.Cluster.QueueBytes),
		interest: cluster.NewInterest[Topic](cfg.Cluster.UnsubscribeDelay),
		sent:     make(chan struct{}), ending: make(chan struct{}),
	}
	n.store, _ = cfg.Broker.(HistoryBroker)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.stores.list = make(map[*roomHistory]struct{})
	n.forgets.rooms = make(map[string]chan struct{})
	n.waits.of = make(map[*Client]map[string]*joinWait)
	n.subscribing.waits = make(map[string]map[*joinWait]struct{})
	n.checkNow = make(chan struct{}, 1)
	n.losses.news = make(chan struct{}, 1)
	n.syncs = newSyncs()
	n.numbers = newNumbers(cfg.Cluster.Heartbeat, n.wantedSince, n.interest.Asked)
	n.peers.seen = make(map[string]peer)
	n.interest.Add(nodesTopic)
	return n
}

// start begins the link.
func (n *node) start() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return nil
	}
	if err := n.broker.Start(brokerNode{n}); err != nil {
		return err
	}
	n.started = true
	runs := []func(){n.send, n.subscribe, n.reportLosses, n.findLosses, n.answerSyncs}
	if n.store != nil {
		runs = append(runs, n.checkStores)
	}
	for _, run := range runs {
		n.goroutines.Go(run) // owned by stop, which waits for it
	}
	return nil
}

// stop sends what waits for the link, for CloseTimeout at most, and ends the link.
func (n *node) stop() {
	if n == nil {
		return
	}
	n.stopOnce.Do(func() {
		n.mu.Lock()
		n.stopped = true
		started := n.started
		n.mu.Unlock()
		n.link.Close()
		defer n.stopWork()
		if !started {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), n.manager.cfg.CloseTimeout)
		defer cancel()
		select {
		case <-n.sent:
		case <-ctx.Done():
		}
		n.forgets.awaitAll(ctx)
		close(n.ending)
		n.cancel()
		if err := n.broker.Close(ctx); err != nil {
			n.manager.cfg.Logger.Warn("ws: the broker did not close", slog.Any("error", err))
		}
		n.goroutines.Wait()
	})
}

// stopWork ends the work for histories, and the joins that wait.
func (n *node) stopWork() {
	n.cancel()
	_ = n.jobs.Close(context.Background()) // its tasks end with n.ctx
	n.endSubscribing(ErrManagerStopped)
	for _, h := range n.stores.all() {
		h.mu.Lock()
		waits := h.stored.takeWaits()
		h.mu.Unlock()
		n.resume(waits, ErrManagerStopped)
	}
	_ = n.joins.Close(context.Background())
}

// subscribe keeps the subscriptions equal to the interest.
func (n *node) subscribe() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if n.renewed.Swap(false) {
			n.restore()
		}
		add, remove, wait := n.interest.Next(subscribeStep)
		if len(add) > 0 {
			n.subscribeTo(add)
			n.manager.presences.subscribed(add)
		}
		if len(remove) > 0 {
			n.coolAll(remove)
			_ = n.broker.Unsubscribe(remove)
		}
		var next <-chan time.Time
		if wait >= 0 {
			timer.Reset(wait)
			next = timer.C
		}
		select {
		case <-n.interest.Ready():
		case <-next:
		case <-n.ending:
			return
		}
	}
}

// subscribeTo subscribes to topics.
func (n *node) subscribeTo(topics []Topic) {
	if err := n.broker.Subscribe(topics); err != nil { // the next connection has the topics
		n.refuseWaits(topics)
		n.endSubscribingTo(topics)
		return
	}
	n.listen(topics)
	n.interest.Confirm(topics)
	n.confirm(topics)
	n.endSubscribingTo(topics)
}

// listen notes that the topics are effective: the heartbeats of other nodes come when nodesTopic is.
func (n *node) listen(topics []Topic) {
	if slices.Contains(topics, nodesTopic) && !n.listens.Swap(true) {
		n.numbers.watch.Listen()
		n.link.Wake()
	}
}

// subscribeStep is the greatest number of topics of one call of the broker.
const subscribeStep = 1000

// joined notes the first member of a room. It is called with Room.mu held.
func (n *node) joined(r *roomEntry, members int) {
	if n != nil && members == 1 {
		r.Data().losses.Store(n.losses.count.Load())
		n.interest.Begin(Topic{TopicRoom, r.ID()})
		if h := r.Data().history; h.isStored() {
			n.interest.Add(h.stored.topic())
		}
	}
}

// left notes that a room has no member any more. It is called with Room.mu held.
func (n *node) left(r *roomEntry, members int) {
	if n != nil && members == 0 {
		n.interest.Remove(Topic{TopicRoom, r.ID()})
		if h := r.Data().history; h.isStored() {
			n.interest.Remove(h.stored.topic())
		}
	}
}

// online notes the first device of a user. It is called with the lock of the user's devices held.
func (n *node) online(u user) {
	if n != nil {
		n.interest.Begin(Topic{TopicUser, u.String()})
	}
}

// offline is the reverse of online.
func (n *node) offline(u user) {
	if n != nil {
		n.interest.Remove(Topic{TopicUser, u.String()})
	}
}

// stats returns a snapshot.
func (n *node) stats() ClusterStats {
	if n == nil {
		return ClusterStats{}
	}
	c := &n.counts
	return ClusterStats{
		Up: n.up.Load(), Nodes: len(n.manager.Nodes()), Topics: n.interest.Len(), QueuedBytes: n.link.Bytes(),
		Published: c.published.Load(), Unsent: c.unsent.Load(), Refused: c.refused.Load(),
		Received: c.received.Load(), Unwanted: c.unwanted.Load(), Malformed: c.malformed.Load(),
		Undelivered: c.undelivered.Load(), Holes: c.holes.Load(),
		Breaks: uint64(n.losses.count.Load()), Gaps: n.losses.gaps.Load(),
		Loads: c.loads.Load(), Repairs: c.repairs.Load(), StoreErrors: c.storeErrors.Load(),
	}
}
