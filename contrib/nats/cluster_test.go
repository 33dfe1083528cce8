package natsbroker_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

// three starts a broker at each server of a cluster. They know their own server only, and learn of
// the others from it.
func three(t *testing.T, urls []string, cfg natsbroker.Config) (brokers []*natsbroker.Broker, nodes []*node) {
	t.Helper()
	for i, u := range urls {
		n := newNode(t, fmt.Sprint("node", i))
		cfg.Servers = []string{u}
		brokers, nodes = append(brokers, connect(t, n, cfg)), append(nodes, n)
	}
	return brokers, nodes
}

// exchange publishes a message of each topic by each broker until each other node has it. A server reports
// its new subscriptions to the others when it has the time.
func exchange(t *testing.T, brokers []*natsbroker.Broker, nodes []*node, topics []ws.Topic) {
	t.Helper()
	for i, b := range brokers {
		for j, n := range nodes {
			if i == j {
				continue
			}
			msg := fmt.Sprintf("%d of %d to %d", n.total(), i, j)
			missing := topics
			eventually(t, func() bool {
				missing = slices.DeleteFunc(slices.Clone(missing), func(topic ws.Topic) bool { return n.has(topic, msg) })
				for _, topic := range missing {
					_ = b.Publish(topic, []byte(msg))
				}
				return len(missing) == 0
			}, "no message "+msg)
		}
	}
}

func TestClusterOfServers(t *testing.T) {
	servers := newCluster(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	brokers, nodes := three(t, urls, natsbroker.Config{})
	topics := rooms(1)
	for _, b := range brokers {
		require.NoError(t, b.Subscribe(topics))
	}
	exchange(t, brokers, nodes, topics)

	go servers[0].LameDuckShutdown() // ends with the server
	eventually(t, func() bool {
		nodes[0].mu.Lock()
		defer nodes[0].mu.Unlock()
		return nodes[0].ups == 2 && nodes[0].up
	}, "the node did not move")
	exchange(t, brokers, nodes, topics)
	servers[0].WaitForShutdown()
	for _, n := range nodes[1:] {
		n.read(func() { require.Equal(t, 1, n.ups, "the others stay") })
	}
}

// TestKilledServerOfCluster kills, and stops, the server of a node.
func TestKilledServerOfCluster(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var processes []*process
			var urls []string
			var routes []int
			for range 3 {
				c := processConfig{Port: freePort(t), ClusterPort: freePort(t), Routes: routes}
				processes = append(processes, newProcess(t, c))
				urls, routes = append(urls, urlOf(c.Port)), append(routes, c.ClusterPort)
			}
			brokers, nodes := three(t, urls, natsbroker.Config{PingInterval: 500 * time.Millisecond, Timeout: 5 * time.Second})
			topics := rooms(1000)
			for _, b := range brokers { // a busy machine does not answer pings in time
				eventually(t, func() bool { return b.Subscribe(topics) == nil }, "no subscriptions")
			}
			exchange(t, brokers, nodes, topics)
			processes[0].signal(signal)
			eventually(t, func() bool {
				nodes[0].mu.Lock()
				defer nodes[0].mu.Unlock()
				return nodes[0].up && nodes[0].ups > 1
			}, "the node did not move")
			exchange(t, brokers, nodes, topics)
		})
	}
}
