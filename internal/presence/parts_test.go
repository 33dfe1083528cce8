package presence_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/presence"
)

// simNode is a node of a cluster with one room.
type simNode struct {
	id      string
	view    *presence.View
	clients map[string]int

	// The messages on their way to it, by sender. Two topics have no order between them.
	deltas map[*simNode][]presence.Delta
	pages  map[*simNode][]presence.Page
	asks   map[*simNode]bool // nodes that it has to ask
}

// simCluster is nodes whose messages are delayed and lost.
type simCluster struct {
	t       *testing.T
	rng     *rand.Rand
	nodes   []*simNode
	started int
	version uint64
	now     time.Duration
}

// start adds a node.
func (s *simCluster) start() {
	s.started++
	n := &simNode{
		id: strconv.Itoa(s.started), view: presence.NewView(true), clients: map[string]int{},
		deltas: map[*simNode][]presence.Delta{}, pages: map[*simNode][]presence.Page{}, asks: map[*simNode]bool{},
	}
	for _, other := range s.nodes {
		n.asks[other], other.asks[n] = true, true
	}
	s.nodes = append(s.nodes, n)
}

// kill removes a node. Its messages that are on their way are ignored.
func (s *simCluster) kill(i int) {
	dead := s.nodes[i]
	s.nodes = slices.Delete(s.nodes, i, i+1)
	for _, n := range s.nodes {
		n.view.Remove(dead.id)
		delete(n.deltas, dead)
		delete(n.pages, dead)
		delete(n.asks, dead)
	}
}

// send sends the deltas of a node. The others learn of each loss.
func (s *simCluster) send(n *simNode, loses bool) {
	for n.view.Unsent() {
		s.version++
		d := n.view.Delta(s.version)
		n.view.Sent(&d)
		for _, other := range s.nodes {
			switch {
			case other == n:
			case loses && s.rng.IntN(4) == 0:
				other.asks[n] = true
			default:
				other.deltas[n] = append(other.deltas[n], d)
			}
		}
	}
}

// receive delivers some messages to a node, and reports whether there was one.
func (s *simCluster) receive(n *simNode, loses bool) (some bool) {
	for from, deltas := range n.deltas {
		if len(deltas) > 0 {
			n.deltas[from], some = deltas[1:], true
			known := n.view.Apply(from.id, &deltas[0])
			n.asks[from] = n.asks[from] || !known && len(n.pages[from]) == 0 // or the answer is on its way
		}
	}
	for from, pages := range n.pages {
		if len(pages) == 0 {
			continue
		}
		n.pages[from], some = pages[1:], true
		if loses && s.rng.IntN(4) == 0 {
			n.asks[from] = true
			continue
		}
		n.asks[from] = !n.view.Load(from.id, &pages[0]) || n.asks[from]
	}
	for from, asked := range n.asks {
		if asked {
			n.asks[from], some = false, true
			s.send(from, loses)
			pages := from.view.Pages()
			if pages == nil {
				pages = []presence.Page{{Version: 1, Last: true}}
			}
			n.pages[from] = append(n.pages[from], pages...)
		}
	}
	return some
}

// act lets a client come or go, or time pass.
func (s *simCluster) act(n *simNode) {
	key := strconv.Itoa(s.rng.IntN(6))
	switch op := s.rng.IntN(5); {
	case op < 2:
		n.view.Join(key)
		n.clients[key]++
	case op < 4 && n.clients[key] > 0:
		n.view.Leave(key, s.now+time.Duration(s.rng.IntN(2))*5)
		n.clients[key]--
	case op == 4:
		s.now++
		n.view.Expire(s.now)
	}
}

// settle delivers all messages, and compares the nodes.
func (s *simCluster) settle() {
	s.now += 100
	want, clients := map[string]bool{}, 0
	for _, n := range s.nodes {
		n.view.Expire(s.now)
		for key, count := range n.clients {
			if clients += count; count > 0 {
				want[key] = true
			}
		}
		s.send(n, false)
	}
	for some := true; some; {
		some = false
		for _, n := range s.nodes {
			some = s.receive(n, false) || some
		}
	}
	for _, n := range s.nodes {
		require.Len(s.t, sorted(n.view), len(want), "node %s", n.id)
		for key := range n.view.All() {
			require.True(s.t, want[key], key)
		}
		require.Equal(s.t, len(want), n.view.Users())
		require.Equal(s.t, clients, n.view.Clients())
	}
}

// TestPartsConverge has nodes start, die, lose and delay messages. Once all messages have come, each node
// knows the users of all.
func TestPartsConverge(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := &simCluster{t: t, rng: rand.New(rand.NewPCG(seed, 1)), version: 1} // an empty part has 1
			s.start()
			for range 400 {
				n := s.nodes[s.rng.IntN(len(s.nodes))]
				switch op := s.rng.IntN(100); {
				case op < 50:
					s.act(n)
				case op < 65:
					s.send(n, true)
				case op < 95:
					s.receive(n, true)
				case op < 98 && len(s.nodes) < 4:
					s.start()
				case op == 98 && len(s.nodes) > 1:
					s.kill(s.rng.IntN(len(s.nodes)))
				case op == 99:
					s.settle()
				}
			}
			s.settle()
		})
	}
}

// TestPartsOfManyUsers holds that many users come in several messages, in both ways.
func TestPartsOfManyUsers(t *testing.T) {
	a, deltas, pages := presence.NewView(true), presence.NewView(true), presence.NewView(true)
	for i := range 20_000 {
		a.Join("user " + strconv.Itoa(i))
	}
	version := uint64(0)
	for a.Unsent() {
		version++
		d := a.Delta(version)
		require.Less(t, len(d.Append(nil)), 64<<10)
		a.Sent(&d)
		require.True(t, deltas.Apply("a", &d))
	}
	require.Greater(t, version, uint64(3))
	list := a.Pages()
	require.Greater(t, len(list), 3)
	for i := range list {
		require.Less(t, len(list[i].Append(nil)), 64<<10)
		require.True(t, pages.Load("a", &list[i]))
	}
	for _, v := range []*presence.View{deltas, pages} {
		require.Equal(t, sorted(a), sorted(v))
		require.Equal(t, 20_000, v.Clients())
	}
	require.False(t, presence.NewView(true).Load("a", &list[1]), "a page without the first")
}
