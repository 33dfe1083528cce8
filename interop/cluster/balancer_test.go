package cluster_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// balancer is a product whose configuration is in docs/cluster.md. Immutable.
type balancer struct {
	name    string
	replace map[string]string // of the configuration; %s is the test's address
	hash    [2]string         // the line for least connections, and those for a room on one node
	command func(t *testing.T, dir, config string) []string
}

var balancers = []balancer{
	{
		name: "nginx", replace: map[string]string{"listen 80;": "listen %s;"},
		hash: [2]string{"least_conn;", "hash $arg_room consistent;"},
		command: func(t *testing.T, dir, config string) []string {
			main := filepath.Join(dir, "main.conf")
			text := fmt.Sprintf("user root;\ndaemon off;\npid %[1]s/pid;\nerror_log stderr warn;\nworker_processes 2;\n"+
				"events { worker_connections 4096; }\nhttp {\naccess_log off;\n", dir)
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				text += fmt.Sprintf("%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
			}
			require.NoError(t, os.WriteFile(main, []byte(text+"include "+config+";\n}\n"), 0o600))
			return []string{"nginx", "-e", "stderr", "-c", main}
		},
	},
	{
		name: "haproxy", replace: map[string]string{
			"bind :80": "bind %s", "maxconn 100000": "maxconn 4000", // the machine may permit no more descriptors
			"check   5s": "check   60s", // and may be busy
		},
		hash: [2]string{"balance leastconn", "balance url_param room\n    hash-type consistent"},
		command: func(_ *testing.T, _, config string) []string {
			return []string{"haproxy", "-W", "-f", config}
		},
	},
}

// page returns a page of the documentation.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", name))
	require.NoError(t, err)
	return string(text)
}

// config returns the configuration of the documentation for the nodes of a cluster.
func (b *balancer) config(t *testing.T, address string, c *cluster, hash bool) string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t, "cluster.md"), "```"+b.name+"\n")
	require.True(t, ok, "docs/cluster.md has no configuration for %s", b.name)
	config, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	replace := func(old, text string) {
		require.Equal(t, 1, strings.Count(config, old), "%q", old)
		config = strings.Replace(config, old, text, 1)
	}
	for old, text := range b.replace {
		replace(old, strings.ReplaceAll(text, "%s", address))
	}
	for i, n := range c.nodes {
		replace(fmt.Sprintf("10.0.0.%d:8080", i+1), n.address)
	}
	if hash {
		for line := range strings.SplitSeq(b.hash[1], "\n    ") { // the page has the lines as a comment
			require.Contains(t, config, "# "+line)
		}
		replace(b.hash[0]+"\n", b.hash[1]+"\n")
	}
	return config
}

// run runs the balancer until the end of the test.
func (b *balancer) run(t *testing.T, address, config string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, b.name+".conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	words := b.command(t, dir, file)
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	p := start(t, t, b.name, exec.Command(words[0], words[1:]...))
	eventually(t, func() bool {
		select {
		case _, running := <-p.lines:
			require.True(t, running, "%s has ended: %s", b.name, &p.errs)
		default:
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, "%s does not listen: %s", b.name, &p.errs)
}

// TestBalancers kills and drains nodes behind the balancers of docs/cluster.md. Their clients go to the
// other nodes, and none of them is refused.
func TestBalancers(t *testing.T) {
	const (
		clients = 60
		rooms   = 5
	)
	nats := startNATS(t, subnet+".1")
	for i, b := range balancers {
		t.Run(b.name, func(t *testing.T) {
			broker := brokerConfig{NATS: []string{natsURL(nats.host)}, Prefix: b.name}
			c := newCluster(t, nodeConfig{
				Broker: broker, Rooms: rooms, Every: 100 * time.Millisecond, Window: time.Second,
			}, 10*(i+1))
			c.start(t)
			address := fmt.Sprintf("%s.%d:8080", subnet, 10*(i+1)+9)
			b.run(t, address, b.config(t, address, c, false))
			f := newFleet(t, []string{address}, clients, rooms, false)
			for _, s := range c.ask(t, "state") {
				assert.Greater(t, s.Clients, clients/numNodes/2, "the clients are not spread")
			}

			c.nodes[0].die()
			f.recover(t, c.publishers(t), time.Now())
			c.start(t)
			probe(t, address, c.nodes[0])
			c.nodes[1].retire(t)
			f.recover(t, c.publishers(t), time.Now())
			var now []nodeState
			eventually(t, func() bool {
				now = c.ask(t, "state")
				return now[0].Clients+now[1].Clients == clients
			}, "clients are lost, or have two connections")
			assert.Greater(t, now[0].Clients, clients/numNodes/2, "the clients are not spread")

			sum, err := f.tally()
			require.NoError(t, err)
			t.Logf("%+v", sum)
			assert.Zero(t, sum.Silent+sum.Duplicates)
			assert.Zero(t, f.refused(), "handshakes were refused")
		})
	}
}

// probe waits until the balancer sends a new client to a node. nginx takes a node that has failed for
// whole again when a connection to it has ended.
func probe(t *testing.T, address string, n *clusterNode) {
	t.Helper()
	eventually(t, func() bool {
		f := newFleet(t, []string{address}, 1, 1, false)
		used := n.state(t, "state").Clients > 0
		f.members[0].client.Close()
		<-f.members[0].client.Done()
		return used
	}, "the balancer does not use the node again")
}

// TestHashByRoom sends the clients of a room to one node.
func TestHashByRoom(t *testing.T) {
	const rooms = 8
	nats := startNATS(t, subnet+".2")
	broker := brokerConfig{NATS: []string{natsURL(nats.host)}}
	c := newCluster(t, nodeConfig{Broker: broker, Rooms: 1, Every: time.Second}, 30)
	c.start(t)
	for i, b := range balancers {
		t.Run(b.name, func(t *testing.T) {
			address := fmt.Sprintf("%s.%d:8080", subnet, 38+i)
			b.run(t, address, b.config(t, address, c, true))
			newFleet(t, []string{address}, 5*rooms, rooms, false)
			sum := 0
			eventually(t, func() bool { // the clients of the other balancer may not have left yet
				sum = 0
				for _, s := range c.ask(t, "state") {
					sum += s.Rooms
				}
				return sum == rooms
			}, "a room has members at two nodes")
		})
	}
}
