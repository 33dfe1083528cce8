package cluster_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// numNodes is the number of nodes of a cluster.
const numNodes = 3

// cluster is nodes, each in a process of its own. Not safe for concurrent use.
type cluster struct {
	owner *testing.T
	cfg   nodeConfig // of all, but for Name and Address
	nodes []*clusterNode
}

// clusterNode is a node. Not safe for concurrent use.
type clusterNode struct {
	*process // nil while it is down

	name, address string
	before        []string // the words of a command that executes it
}

// newCluster describes nodes whose addresses begin with a number.
func newCluster(owner *testing.T, cfg nodeConfig, first int) *cluster {
	c := &cluster{owner: owner, cfg: cfg}
	for i := range numNodes {
		address := addressOf(fmt.Sprintf("%s.%d", subnet, first+i), portNode)
		c.nodes = append(c.nodes, &clusterNode{name: fmt.Sprint("n", i), address: address})
	}
	return c
}

// start starts the nodes that are down, waits until all know each other, and lets them publish.
func (c *cluster) start(t *testing.T) {
	t.Helper()
	for i, n := range c.nodes {
		if n.process == nil {
			cfg := c.cfg
			cfg.Name, cfg.Address = n.name, n.address
			if len(cfg.Broker.NATS) > 1 { // each node knows its own server, which names the others
				cfg.Broker.NATS = cfg.Broker.NATS[i : i+1]
			}
			n.process = spawn(t, c.owner, n.name, roleNode, cfg, n.before...)
		}
	}
	c.await(t, len(c.nodes))
	c.ask(t, "publish")
}

// await waits until all nodes that are up know each other.
func (c *cluster) await(t *testing.T, nodes int) {
	t.Helper()
	for _, n := range c.nodes {
		var s nodeState
		eventually(t, func() bool {
			if n.process == nil {
				return true
			}
			n.ask(t, "state", &s)
			return s.Cluster.Up && s.Nodes == nodes
		}, "%s does not know the others: %+v", n.name, &s)
	}
}

// ask gives a command to all nodes that are up, and returns their answers.
func (c *cluster) ask(t *testing.T, command string) (states []nodeState) {
	t.Helper()
	for _, n := range c.nodes {
		if n.process != nil {
			states = append(states, n.state(t, command))
		}
	}
	return states
}

func (n *clusterNode) state(t *testing.T, command string) (s nodeState) {
	t.Helper()
	n.ask(t, command, &s)
	return s
}

// publishers returns the names of the publishers of the nodes that are up.
func (c *cluster) publishers(t *testing.T) (names []string) {
	t.Helper()
	for _, s := range c.ask(t, "state") {
		names = append(names, s.Publisher)
	}
	return names
}

// die ends a node at once.
func (n *clusterNode) die() {
	n.kill()
	n.process = nil
}

// retire drains a node, and returns its last state.
func (n *clusterNode) retire(t *testing.T) (s nodeState) {
	t.Helper()
	s = n.state(t, "drain")
	require.NoError(t, n.stdin.Close())
	n.wait()
	n.process = nil
	return s
}
