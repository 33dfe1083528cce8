package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
	"github.com/qi-realtime/ws/wstest"
)

// laggingLink is a link whose messages to rooms and users are on their way for a random time, in their order
// on each topic.
type laggingLink struct {
	*wstest.Link
	ended chan struct{}
	group sync.WaitGroup
	mu    sync.Mutex
	ways  map[ws.Topic]chan func() // guarded by mu
}

// maxLag is the longest time on the way.
const maxLag = 40 * time.Millisecond

type laggingNode struct {
	ws.BrokerNode
	link *laggingLink
}

func (l *laggingLink) Start(node ws.BrokerNode) error { return l.Link.Start(laggingNode{node, l}) }

func (l *laggingLink) Close(ctx context.Context) error {
	close(l.ended)
	err := l.Link.Close(ctx)
	l.group.Wait()
	return err
}

func (n laggingNode) Receive(topic ws.Topic, msg []byte) {
	if topic.Kind != ws.TopicRoom && topic.Kind != ws.TopicUser {
		n.BrokerNode.Receive(topic, msg)
		return
	}
	l := n.link
	l.mu.Lock()
	defer l.mu.Unlock()
	way := l.ways[topic]
	if way == nil {
		way = make(chan func(), 10_000)
		l.ways[topic] = way
		l.group.Go(func() { l.run(way) })
	}
	at := time.Now().Add(rand.N(maxLag))
	msg = append([]byte(nil), msg...)
	way <- func() {
		<-time.After(time.Until(at))
		n.BrokerNode.Receive(topic, msg)
	}
}

// run delivers the messages of one topic.
func (l *laggingLink) run(way chan func()) {
	for {
		select {
		case deliver := <-way:
			deliver()
		case <-l.ended:
			return
		}
	}
}

// startLagging starts nodes on laggingLinks.
func startLagging(t *testing.T, count int) (nodes []*harness.Server) {
	t.Helper()
	hub := wstest.NewHub()
	for range count {
		link := &laggingLink{Link: hub.Link(), ended: make(chan struct{}), ways: make(map[ws.Topic]chan func())}
		s := harness.Start(t, ws.WithAuthenticate(harness.ByQuery), ws.WithBroker(link),
			ws.WithCluster(ws.ClusterConfig{Heartbeat: time.Minute})) // so that no ws.sync fails
		require.NoError(t, ws.HandleJoin(s.Manager, func(*ws.Client, string) ([]ws.RoomOption, error) { return nil, nil }))
		nodes = append(nodes, s)
		harness.Eventually(t, func() bool { return len(s.Nodes()) == len(nodes) }, "the node knows no others")
	}
	for _, s := range nodes {
		harness.Eventually(t, func() bool { return len(s.Nodes()) == count }, "not all nodes are known")
	}
	return nodes
}

// TestMovesBetweenNodes moves a member of a room without a history between the nodes of a cluster, again and
// again, while each node publishes to the room and to the user. The messages reach the nodes at different times;
// the client reads each of them once and in order.
func TestMovesBetweenNodes(t *testing.T) {
	t.Parallel()
	nodes := startLagging(t, 3)
	var dials atomic.Int64
	c := newClient(t, "ws://cluster/ws?user=7", client.WithDialer(
		func(ctx context.Context, network, _ string) (net.Conn, error) {
			s := nodes[dials.Add(1)%2] // the third has publishers only
			return new(net.Dialer).DialContext(ctx, network, s.AddrOf(harness.Native))
		}))
	require.NoError(t, c.Connect(within(t)))
	_, err := c.Room("plain").Join(within(t))
	require.NoError(t, err)
	c.On("ws.gap", func(n client.Notify) { t.Errorf("a gap: %s", n.Data) })
	c.Room("plain").OnGap(func(g client.Gap) { t.Errorf("a gap: %+v", g) })

	var checks []*numbers
	var publishers sync.WaitGroup
	stop, published := make(chan struct{}), make([]int64, len(nodes))
	for i, s := range nodes {
		inRoom, forUser := &numbers{t: t}, &numbers{t: t}
		checks = append(checks, inRoom, forUser)
		event := fmt.Sprint("number.", i)
		c.Room("plain").On(event, inRoom.receive)
		c.On(event, forUser.receive)
		publishers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(8 * time.Millisecond)):
				}
				published[i]++
				_, err := s.PublishEvent(context.Background(), "plain", event, published[i])
				assert.NoError(t, err)
				text := fmt.Appendf(nil, `{"type":"notify","event":%q,"data":%d}`, event, published[i])
				assert.NoError(t, s.BroadcastToUser(7, text))
			}
		})
	}
	for move := range harness.FewerUnderRace(40) {
		from, to := nodes[(move+1)%2], nodes[move%2]
		notice(from)
		harness.Eventually(t, func() bool { return onlyClient(to) != "" && from.GetClientCount() == 0 }, "no move")
	}
	close(stop)
	publishers.Wait()
	harness.Eventually(t, func() bool {
		for i, n := range checks {
			if n.last.Load() != published[i/2] {
				return false
			}
		}
		return true
	}, "not all of %v messages", published)
	closeClient(t, c)
}
