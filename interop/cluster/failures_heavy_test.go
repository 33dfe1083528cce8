//go:build heavy

package cluster_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	all     = flag.Bool("all", false, "run all failures, not only those that CI runs")
	clients = flag.Int("clients", 300, "clients in all")
	history = flag.Int("history", 0, "messages in the history of each room; 0 for rooms without one")
	pause   = flag.Duration("pause", 10*time.Second, "length of a stop and of a partition")
)

const (
	roomSize  = 30 // clients in a room, a third of them at each node
	roomEvery = 200 * time.Millisecond
)

// failure is one thing that goes wrong.
type failure struct {
	name string
	ci   bool // CI runs it
	// happen causes the failure, and returns the time of its end: all but a dead process is as before.
	happen func(t *testing.T, x *experiment) time.Time
}

// experiment is a cluster under load that fails. Not safe for concurrent use.
type experiment struct {
	*cluster
	broker string
	server *server
	fleet  *fleet

	retired []nodeState // the last states of nodes that were drained

	// One of these, for some failures.
	replicated *replicated
	namespace  *namespace
}

var ofNodes = []failure{
	{"kill -9 of a node", true, func(_ *testing.T, x *experiment) time.Time {
		x.nodes[0].die()
		return time.Now()
	}},
	{"SIGSTOP of a node", false, func(t *testing.T, x *experiment) time.Time {
		return x.stop(t, x.nodes[1].process)
	}},
	{"rolling restart", true, func(t *testing.T, x *experiment) time.Time {
		for _, n := range x.nodes {
			x.retired = append(x.retired, n.retire(t))
			x.start(t)
		}
		return time.Now()
	}},
}

var ofServers = []failure{
	{"kill -9 of the server", true, func(t *testing.T, x *experiment) time.Time {
		x.server.kill()
		moment(2 * time.Second)
		x.server.restart(t)
		return time.Now()
	}},
	{"SIGSTOP of the server", false, func(t *testing.T, x *experiment) time.Time {
		return x.stop(t, x.server.process)
	}},
}

// wiped is for rooms with a history. Redis keeps nothing on disk here: a kill wipes it, too.
var wiped = failure{"kill -9 of the server, which loses its data", false, func(t *testing.T, x *experiment) time.Time {
	x.server.kill()
	require.NoError(t, os.RemoveAll(x.server.store))
	moment(2 * time.Second)
	x.server.restart(t)
	return time.Now()
}}

// ofOneServer are the failures of one of three servers, which does not come back before the clients go on.
var ofOneServer = []failure{
	{"kill -9 of one server of three", false, func(_ *testing.T, x *experiment) time.Time {
		x.server.kill()
		return time.Now()
	}},
}

var partition = failure{"partition of a node from the server", false, func(t *testing.T, x *experiment) time.Time {
	x.namespace.cut(t)
	moment(*pause)
	x.namespace.heal(t)
	return time.Now()
}}

var failover = failure{"kill -9 of the primary, failover", false, func(t *testing.T, x *experiment) time.Time {
	x.replicated.primary.kill()
	x.replicated.awaitFailover(t)
	return time.Now()
}}

// moment is a time in the middle of a failure.
func moment(d time.Duration) { <-time.After(d) }

// stop stops a process for a while.
func (x *experiment) stop(t *testing.T, p *process) time.Time {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	moment(*pause)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	return time.Now()
}

// TestFailures lets the parts of clusters on NATS and on Redis fail, one after the other.
func TestFailures(t *testing.T) {
	r := newReport(t)
	t.Run("NATS", func(t *testing.T) {
		s := startNATS(t, subnet+".1")
		x := &experiment{broker: "NATS", server: s}
		failures := slices.Concat(ofNodes, ofServers)
		if *history > 0 {
			failures = append(failures, wiped)
		}
		x.run(t, r, brokerConfig{NATS: []string{natsURL(s.host)}}, failures)
	})
	t.Run("NATS cluster", func(t *testing.T) {
		full(t)
		x := &experiment{broker: "NATS"}
		var hosts, urls []string
		for i := range numNodes {
			hosts = append(hosts, fmt.Sprint(subnet, ".", 1+i))
			urls = append(urls, natsURL(hosts[i]))
		}
		for _, host := range hosts {
			x.server = startNATS(t, host, hosts...)
		}
		x.run(t, r, brokerConfig{NATS: urls, Replicas: numNodes}, ofOneServer)
	})
	t.Run("Redis", func(t *testing.T) {
		full(t)
		s := startRedis(t, subnet+".1")
		x := &experiment{broker: "Redis", server: s}
		x.run(t, r, brokerConfig{Redis: []string{addressOf(s.host, portRedis)}}, slices.Concat(ofNodes, ofServers))
	})
	t.Run("Redis with Sentinel", func(t *testing.T) {
		full(t)
		rs := startReplicated(t, 1)
		x := &experiment{broker: "Redis", replicated: rs}
		x.run(t, r, brokerConfig{Redis: rs.sentinels, Master: masterName}, []failure{failover})
	})
	t.Run("NATS in a partition", func(t *testing.T) {
		full(t)
		x := &experiment{broker: "NATS", namespace: newNamespace(t)}
		s := startNATS(t, x.namespace.broker)
		x.run(t, r, brokerConfig{NATS: []string{natsURL(s.host)}}, []failure{partition})
	})
	t.Run("Redis in a partition", func(t *testing.T) {
		full(t)
		x := &experiment{broker: "Redis", namespace: newNamespace(t)}
		s := startRedis(t, x.namespace.broker)
		x.run(t, r, brokerConfig{Redis: []string{addressOf(s.host, portRedis)}}, []failure{partition})
	})
}

// addresses returns the addresses of the nodes.
func (c *cluster) addresses() (addresses []string) {
	for _, n := range c.nodes {
		addresses = append(addresses, n.address)
	}
	return addresses
}

// full skips a test that CI does not run.
func full(t *testing.T) {
	t.Helper()
	if !*all {
		t.Skip("it runs with -all")
	}
}

// run starts the nodes and the clients, and lets the failures happen.
func (x *experiment) run(t *testing.T, r *report, broker brokerConfig, failures []failure) {
	rooms := max(1, *clients/roomSize)
	x.cluster = newCluster(t, nodeConfig{
		Broker: broker, Rooms: rooms, Every: roomEvery, Window: 3 * time.Second, History: *history,
	}, 100)
	if n := x.namespace; n != nil {
		x.nodes[0].address, x.nodes[0].before = addressOf(n.clients, portNode), n.exec()
	}
	x.start(t)
	x.fleet = newFleet(t, x.addresses(), *clients, rooms, *history > 0)
	for _, f := range failures {
		if *all || f.ci {
			t.Run(f.name, func(t *testing.T) { x.observe(t, r, f) })
			require.False(t, t.Failed(), "the cluster may be broken")
		}
	}
}

// observe lets a failure happen to a cluster that is whole, and checks that each client has read all
// messages, or knows why not.
func (x *experiment) observe(t *testing.T, r *report, f failure) {
	x.fleet.goHome(t, x.publishers(t))
	before, err := x.fleet.tally()
	require.NoError(t, err)
	was := x.ask(t, "state")

	end := f.happen(t, x)
	recovery := x.fleet.recover(t, x.publishers(t), end)
	states := x.ask(t, "quiet")
	x.fleet.complete(t, states)
	x.fleet.settle(slices.Concat(was, states, x.retired))
	after, err := x.fleet.tally()
	require.NoError(t, err)
	after.add(before, -1)
	died, refused := 0, 0
	for _, s := range was {
		i := slices.IndexFunc(states, func(now nodeState) bool { return now.Publisher == s.Publisher })
		if i < 0 {
			if *history > 0 { // the store has them
				eventually(t, func() bool { return x.fleet.behind(s.Publisher) == 0 }, "messages died with the node")
			}
			died += x.fleet.behind(s.Publisher)
		} else {
			refused += states[i].Refused - s.Refused
		}
	}
	r.add(x.broker, f.name, after, died, refused, recovery)
	assert.Zero(t, after.Silent)
	assert.Zero(t, after.Duplicates)

	x.start(t)
}

// report is the table of the results.
type report struct{ rows []string }

const heading = "failure|clients cut|read|lost while cut|gaps read|lost in gaps|twice in gaps|" +
	"died with the node|refused publishes|silent, twice|all again after: median|longest"

// newReport prints the table at the end of the test.
func newReport(t *testing.T) *report {
	r := &report{rows: []string{heading}}
	t.Cleanup(func() {
		t.Logf("%d clients in rooms of %d, each with %d messages/s", *clients, roomSize, numNodes*time.Second/roomEvery)
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', tabwriter.Debug)
		for _, row := range r.rows {
			fmt.Fprintln(w, "| "+strings.ReplaceAll(row, "|", "\t ")+"\t")
		}
		_ = w.Flush()
	})
	return r
}

func (r *report) add(broker, name string, c tally, died, refused int, again recovery) {
	r.rows = append(r.rows, fmt.Sprintf("%s: %s|%d|%d|%d|%d|%d|%d|%d|%d|%d, %d|%.1f s|%.1f s",
		broker, name, c.Cuts, c.Received, c.LostWhileCut, c.Gaps, c.LostInGap, c.TwiceInGap, died, refused,
		c.Silent, c.Duplicates, again.median.Seconds(), again.longest.Seconds()))
}
