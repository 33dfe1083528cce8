package ws

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/qi-realtime/ws/internal/cluster"
)

// Node describes a node of a cluster, as it was at its last heartbeat. Immutable.
type Node struct {
	ID       string    `json:"-"`    // random, another one for each Manager
	Name     string    `json:"name"` // ClusterConfig.Name
	Started  time.Time `json:"started"`
	Clients  int       `json:"clients"`
	Rooms    int       `json:"rooms"`
	Draining bool      `json:"draining"` // Drain or Shutdown has begun
	Self     bool      `json:"-"`        // it is this node
}

// nodesTopic is the topic of the nodes' own messages. All nodes subscribe to it.
var nodesTopic = Topic{TopicNode, "nodes"}

const (
	maxNodes    = 4096 // nodes that are remembered
	maxNodeName = 256
	missedBeats = 4 // heartbeats that a node may miss
	// goneBeats is the number of missed heartbeats after which a node that has said nothing of its end is
	// believed to be dead, and its last messages possibly lost with it. A node that was only held up for some
	// seconds is back by then. Messages that have waited for so long are not sent any more: clients
	// who have read them on this node have possibly moved to another one.
	goneBeats = 15
)

// gone is the time of goneBeats.
func (n *node) gone() time.Duration { return goneBeats * n.manager.cfg.Cluster.Heartbeat }

// Nodes returns the nodes of the cluster that are alive, this one included, oldest first; nil without
// a Broker. Other nodes are known by their heartbeats: a new one after a moment, and one that has
// died for four times ClusterConfig.Heartbeat. While the link is down, they vanish. Safe for
// concurrent use.
func (m *Manager) Nodes() []Node {
	if m.node == nil {
		return nil
	}
	nodes, _ := m.node.peers.alive(missedBeats * m.cfg.Cluster.Heartbeat)
	nodes = append(nodes, m.node.describe())
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return nodes
}

// describe returns this node.
func (n *node) describe() Node {
	m := n.manager
	return Node{
		ID: n.id, Name: m.cfg.Cluster.Name, Started: m.created, Clients: m.GetClientCount(), Rooms: m.rooms.Len(),
		Draining: m.isDraining(), Self: true,
	}
}

// beat reports this node to the others. The goroutine of send calls it.
func (n *node) beat() {
	if n.up.Load() && n.peers.forget(n.gone()) {
		n.loseAll()
	}
	payload, err := json.Marshal(n.describe())
	if err != nil {
		panic(err) // never for this type
	}
	n.askLimit()
	n.sum()
	msg := cluster.Message{Kind: cluster.Beat, Stamp: n.numbers.sent.Round(), Payload: payload}
	_ = n.publishNow(nodesTopic, &msg) // the next one follows
}

// noteBeat notes the heartbeat of another node. A new one gets an answer at once.
func (n *node) noteBeat(id string, payload []byte) {
	var other Node
	if json.Unmarshal(payload, &other) != nil || len(other.Name) > maxNodeName {
		n.counts.malformed.Add(1)
		return
	}
	other.ID = id
	if n.peers.add(other, missedBeats*n.manager.cfg.Cluster.Heartbeat) {
		n.greet.Store(true)
		n.link.Wake()
		n.manager.presences.met(id)
	}
}

// peers holds the other nodes. Safe for concurrent use.
type peers struct {
	mu   sync.Mutex
	up   time.Time       // of the last connection to the broker; guarded by mu
	seen map[string]peer // guarded by mu
}

// peer is another node with the time of its last heartbeat.
type peer struct {
	Node
	at time.Time
}

// connected notes a new connection to the broker, on which the heartbeats have yet to come.
func (p *peers) connected() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = time.Now()
}

// add notes a heartbeat, and reports whether the node is new, or was silent for d.
func (p *peers) add(node Node, d time.Duration) (added bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.seen[node.ID]
	if !known && len(p.seen) >= maxNodes {
		return false
	}
	p.seen[node.ID] = peer{node, time.Now()}
	return !known || time.Since(before.at) > d
}

func (p *peers) knows(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.seen[id]
	return known
}

func (p *peers) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.seen, id)
}

// forget removes the nodes without a heartbeat for d, and reports whether there were any.
func (p *peers) forget(d time.Duration) (gone bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.up) <= d {
		return false
	}
	for id, other := range p.seen {
		if time.Since(other.at) > d {
			delete(p.seen, id)
			gone = true
		}
	}
	return gone
}

// alive returns the nodes with a heartbeat within d, and whether there are others that have not said that
// they stop.
func (p *peers) alive(d time.Duration) (nodes []Node, others bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.seen {
		if time.Since(other.at) <= d {
			nodes = append(nodes, other.Node)
		} else {
			others = true
		}
	}
	return nodes, others
}
