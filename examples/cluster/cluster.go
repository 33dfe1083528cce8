package main

import (
	"fmt"
	"net"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// cluster is the nodes, and the NATS server. Safe for concurrent use.
type cluster struct {
	url string // of the NATS server

	mu     sync.Mutex
	broker *natsserver.Server // nil while it is stopped; guarded by mu
	port   int                // guarded by mu
	nodes  []*node            // nil while it is stopped; guarded by mu
	next   int                // node of the next connection; guarded by mu
}

// newCluster starts the NATS server and the nodes.
func newCluster(nodes int) (*cluster, error) {
	c := &cluster{port: natsserver.RANDOM_PORT, nodes: make([]*node, nodes)}
	if err := c.switchBroker(true); err != nil {
		return nil, err
	}
	c.url = c.broker.ClientURL()
	for i := range nodes {
		if err := c.switchNode(i, true); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// switchBroker starts or stops the NATS server.
func (c *cluster) switchBroker(on bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on == (c.broker != nil) {
		return nil
	}
	if !on {
		c.broker.Shutdown()
		c.broker.WaitForShutdown()
		c.broker = nil
		return nil
	}
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: c.port, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return fmt.Errorf("the NATS server does not listen on port %d", c.port)
	}
	c.broker, c.port = s, s.Addr().(*net.TCPAddr).Port
	return nil
}

// switchNode starts or stops a node.
func (c *cluster) switchNode(i int, on bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.nodes) {
		return fmt.Errorf("there is no node %d", i)
	}
	switch {
	case on == (c.nodes[i] != nil):
	case on:
		n, err := startNode(fmt.Sprint("node ", i+1), c.url)
		if err != nil {
			return err
		}
		c.nodes[i] = n
	default:
		c.nodes[i].stop()
		c.nodes[i] = nil
	}
	return nil
}

// pick returns the nodes in turn. It returns nil if none runs.
func (c *cluster) pick() *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range c.nodes {
		n := c.nodes[c.next%len(c.nodes)]
		c.next++
		if n != nil {
			return n
		}
	}
	return nil
}

// clusterState is the state of the cluster for the page.
type clusterState struct {
	Broker bool         `json:"broker"`
	Nodes  []*nodeState `json:"nodes"` // nil is a stopped node
}

func (c *cluster) state() clusterState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := clusterState{Broker: c.broker != nil}
	for _, n := range c.nodes {
		var state *nodeState
		if n != nil {
			state = n.state()
		}
		s.Nodes = append(s.Nodes, state)
	}
	return s
}

// close stops everything.
func (c *cluster) close() {
	for i := range c.nodes {
		_ = c.switchNode(i, false) // there is a node i
	}
	_ = c.switchBroker(false) // a stop cannot fail
}
