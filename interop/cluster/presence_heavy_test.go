//go:build heavy

package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/client"
)

// presenceBound is the time within which the users of a dead node are no longer present, with the default
// heartbeat of 2 s. CI gives it more, because its machine may be busy.
const presenceBound = 10 * time.Second

// TestPresence kills a node whose users are in a room WithPresence. They vanish from the other nodes, but
// for one who has a device there, and are back with the node.
func TestPresence(t *testing.T) {
	s := startNATS(t, subnet+".1")
	testPresence(t, brokerConfig{NATS: []string{natsURL(s.host)}}, 100)
	t.Run("Redis", func(t *testing.T) {
		full(t)
		s := startRedis(t, subnet+".2")
		testPresence(t, brokerConfig{Redis: []string{addressOf(s.host, portRedis)}}, 110)
	})
}

func testPresence(t *testing.T, broker brokerConfig, first int) {
	c := newCluster(t, nodeConfig{Broker: broker, Heartbeat: 2 * time.Second, Presence: true}, first)
	c.start(t)
	for i, users := range [numNodes][]string{{"ann", "bob", "both"}, {"cem", "dan"}, {"eve", "both"}} {
		for _, user := range users {
			enter(t, c.nodes[i], user)
		}
	}
	c.awaitPresent(t, 6)
	c.nodes[0].die()
	died := time.Now()
	c.awaitPresent(t, 4)
	took := time.Since(died)
	t.Logf("the users of a dead node have vanished after %v", took)
	if *all {
		assert.Less(t, took, presenceBound)
	}
	c.start(t) // under the same name
	c.awaitPresent(t, 6)
}

// enter lets a user join room 0 at a node, and again when the node has come back.
func enter(t *testing.T, n *clusterNode, user string) {
	t.Helper()
	c, err := client.New("ws://" + n.address + "/ws?user=" + user)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		<-c.Done()
	})
	require.NoError(t, c.Connect(t.Context()))
	_, err = c.Room(roomName(0)).Join(t.Context())
	require.NoError(t, err)
}

// awaitPresent waits until all nodes that are up know of that number of users in room 0.
func (c *cluster) awaitPresent(t *testing.T, users int) {
	t.Helper()
	for _, n := range c.nodes {
		var s nodeState
		eventually(t, func() bool {
			if n.process == nil {
				return true
			}
			n.ask(t, "state", &s)
			return s.Present == users
		}, "%s: %+v", n.name, &s)
	}
}
