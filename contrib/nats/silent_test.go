package natsbroker_test

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// heartbeat of Managers whose losses are to be found soon.
const heartbeat = 200 * time.Millisecond

// awaitHole publishes in the room until the Manager to has found one more loss, and c reads its gap.
func awaitHole(t *testing.T, from, to *manager, c *harness.Client, room string) {
	t.Helper()
	before := to.Stats().Cluster.Holes
	harness.Eventually(t, func() bool {
		require.NoError(t, from.BroadcastToRoom(room, []byte("x"), nil))
		return to.Stats().Cluster.Holes > before
	}, "the loss is silent")
	for text := ""; !strings.Contains(text, `"ws.gap","room":"`+room+`"`); {
		text = string(c.Next().Payload)
	}
}

// TestRefusedPermissions holds that messages and subscriptions which the server refuses are gaps, and are
// counted: the server informs nobody but the log of the Broker.
func TestRefusedPermissions(t *testing.T) {
	t.Parallel()
	denied := &natsserver.SubjectPermission{Deny: []string{"ws.r.*.refused"}}
	s := newServer(t, natsserver.Options{Users: []*natsserver.User{
		{Username: "publisher", Password: "p", Permissions: &natsserver.Permissions{Publish: denied}},
		{Username: "subscriber", Password: "p", Permissions: &natsserver.Permissions{Subscribe: denied}},
		{Username: "all", Password: "p"},
	}})
	as := func(user string) string { return "nats://" + user + ":p@" + s.Addr().String() }
	for name, users := range map[string][]string{
		"publisher": {as("publisher"), as("all")}, "subscriber": {as("all"), as("subscriber")},
	} {
		t.Run(name, func(t *testing.T) {
			m := managersWith(t, heartbeat, users...)
			c, _ := m[1].join("", "refused")
			awaitHole(t, m[0], m[1], c, "refused")
		})
	}
}

// route is a way between two servers that can be broken. Safe for concurrent use.
type route struct {
	net.Listener
	target string

	mu     sync.Mutex
	broken bool                  // guarded by mu
	conns  map[net.Conn]struct{} // guarded by mu
}

// newRoute listens for connections to the target.
func newRoute(t *testing.T, target string) *route {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &route{Listener: l, target: target, conns: make(map[net.Conn]struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		r.setBroken(true)
		_ = l.Close()
		running.Wait()
	})
	return r
}

// serve copies between a connection and one to the target, until either ends.
func (r *route) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	to, err := net.Dial("tcp", r.target)
	if err != nil || !r.add(c, to) {
		return
	}
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{c, to}, {to, c}} {
		copies.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_, _ = c.Close(), to.Close()
		})
	}
	copies.Wait()
}

func (r *route) add(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.conns[c] = struct{}{}
	}
	if r.broken {
		_ = conns[1].Close()
	}
	return !r.broken
}

func (r *route) setBroken(broken bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = broken
	if broken {
		for c := range r.conns {
			_ = c.Close()
		}
		clear(r.conns)
	}
}

// TestBrokenRoute breaks the route between the servers of two Managers, whose connections stay: members read
// a gap.
func TestBrokenRoute(t *testing.T) {
	t.Parallel()
	cluster := func() natsserver.ClusterOpts {
		return natsserver.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, PoolSize: -1}
	}
	a := newServer(t, natsserver.Options{ServerName: "a", Cluster: cluster()})
	r := newRoute(t, a.ClusterAddr().String())
	b := newServer(t, natsserver.Options{
		ServerName: "b", Cluster: cluster(), Routes: []*url.URL{{Scheme: "nats", Host: r.Addr().String()}},
	})
	routes := func(n int) func() bool { return func() bool { return a.NumRoutes() == n && b.NumRoutes() == n } }
	eventually(t, routes(1), "no route")
	m := managersWith(t, heartbeat, a.ClientURL(), b.ClientURL())
	c, _ := m[1].join("", "r")
	for i := range 5 { // until the messages of each node reach the other
		text := fmt.Sprint("before ", i)
		harness.Eventually(t, func() bool {
			require.NoError(t, m[0].BroadcastToRoom("r", []byte(text), nil))
			return len(m[1].Nodes()) == 2
		}, "no route")
	}
	r.setBroken(true)
	eventually(t, routes(0), "the route is not broken")
	require.NoError(t, m[0].BroadcastToRoom("r", []byte("lost"), nil))
	harness.Eventually(t, func() bool { return m[0].Stats().Cluster.QueuedBytes == 0 }, "not sent")
	m[0].await(ws.TopicAll, "") // its server has read the message
	r.setBroken(false)
	awaitHole(t, m[0], m[1], c, "r")
	for _, m := range m {
		require.True(t, m.Stats().Cluster.Up)
	}
}
