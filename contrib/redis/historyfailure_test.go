package redisbroker_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

// requireNewEpoch holds that a history has lost messages, and that each reader sees another epoch: in
// Heads, in Read, with the next message, and on both nodes.
func requireNewEpoch(t *testing.T, old ws.Position, brokers []*redisbroker.HistoryBroker, nodes []*node) {
	t.Helper()
	var epochs []string
	for _, b := range brokers {
		head := heads(t, b, "r")[0]
		require.NotEqual(t, old.Epoch, head.Epoch)
		require.Less(t, head.Offset, old.Offset, "nothing is lost")
		epochs = append(epochs, read(t, b, "r", 0, 100).Epoch)
	}
	before := len(nodes[1].storedIn("r"))
	next := add(t, brokers[0], "r", keep, "next")
	for i, n := range nodes {
		require.Equal(t, next.Epoch, epochs[i])
		eventually(t, func() bool { return len(n.storedIn("r")) > before }, "no message")
		require.Equal(t, next, n.storedIn("r")[before].position)
	}
}

// TestFailover promotes a replica that lacks the last messages.
func TestFailover(t *testing.T) {
	primary := newServer(t, "--repl-diskless-sync-delay", "0")
	port := strconv.Itoa(primary.port)
	replica := newServer(t, "--replicaof", "127.0.0.1", port)
	a, b, an, bn := historyPair(t, primary.config())
	brokers, nodes := []*redisbroker.HistoryBroker{a, b}, []*node{an, bn}
	for _, b := range brokers {
		require.NoError(t, b.Subscribe([]ws.Topic{history("r")}))
	}
	eventually(t, func() bool {
		return strings.Contains(replica.do("INFO", "replication"), "master_link_status:up")
	}, "no replication")
	add(t, a, "r", keep, "a", "b", "c")
	require.Equal(t, "1", primary.do("WAIT", "1", "60000"))
	replica.do("REPLICAOF", "127.0.0.1", "1") // where nobody is
	last := add(t, a, "r", keep, "d", "e")
	for _, n := range nodes {
		eventually(t, func() bool { return len(n.storedIn("r")) == 5 }, "messages are missing")
	}
	primary.kill()
	for _, n := range nodes {
		eventually(t, func() bool { return !n.isUp() }, "the end of the primary goes unseen")
	}
	replica.do("REPLICAOF", "NO", "ONE")
	replica.do("CONFIG", "SET", "port", port) // as a proxy would, or an address that moves
	for _, n := range nodes {
		eventually(t, n.reconnected, "no connection to the new primary")
	}
	requireNewEpoch(t, last, brokers, nodes)
	require.Equal(t, []string{"a", "b", "c", "next"}, dataOf(read(t, b, "r", 0, 10)))
}

// TestSentinel kills a primary that a Sentinel replaces with its replica.
func TestSentinel(t *testing.T) {
	primary := newServer(t, "--repl-diskless-sync-delay", "0")
	replica := newServer(t, "--replicaof", "127.0.0.1", strconv.Itoa(primary.port))
	eventually(t, func() bool {
		return strings.Contains(replica.do("INFO", "replication"), "master_link_status:up")
	}, "no replication")
	sentinel := newSentinel(t, primary)
	eventually(t, func() bool {
		return strings.Contains(sentinel.do("INFO", "sentinel"), "slaves=1")
	}, "the Sentinel knows no replica")
	cfg := sentinel.config()
	cfg.Options.Sentinel.MasterSet = "main"
	a, b, an, bn := historyPair(t, cfg)
	require.NoError(t, b.Subscribe([]ws.Topic{history("r"), room("r")}))
	before := add(t, a, "r", keep, "a")
	require.Equal(t, "1", primary.do("WAIT", "1", "60000"))
	primary.kill()
	for _, n := range []*node{an, bn} {
		eventually(t, n.reconnected, "no connection to the new primary")
	}
	page := read(t, b, "r", 0, 10)
	require.Equal(t, []string{"a"}, dataOf(page))
	require.NotEqual(t, before.Epoch, page.Epoch)
	require.Equal(t, ws.Position{Epoch: page.Epoch, Offset: 2}, add(t, a, "r", keep, "b"))
	require.NoError(t, a.Publish(room("r"), []byte("plain")))
	eventually(t, func() bool {
		return len(bn.storedIn("r")) == 2 && bn.count(room("r")) == 1
	}, "no messages at the new primary")
}

// TestDemotedPrimary makes the server a replica while the connections stay.
func TestDemotedPrimary(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	b := connectHistory(t, n, s.config())
	before := add(t, b, "r", keep, "a")
	s.do("REPLICAOF", "127.0.0.1", "1")
	_, err := b.Append(t.Context(), "r", nil, keep)
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	eventually(t, func() bool { return n.isDown(redisbroker.ErrReplica) }, "the reason is not told")
	s.do("REPLICAOF", "NO", "ONE")
	eventually(t, n.reconnected, "no second connection")
	require.NotEqual(t, before.Epoch, add(t, b, "r", keep, "b").Epoch)
}

// TestLostKeys removes keys under open connections: by hand, for want of memory, and with a restart
// from a file that lacks the last messages.
func TestLostKeys(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, s *server){
		"flushall":             func(_ *testing.T, s *server) { s.do("FLUSHALL") },
		"eviction of the hash": func(_ *testing.T, s *server) { s.do("DEL", "ws.m.r") },
		"eviction of all": func(t *testing.T, s *server) {
			s.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "4mb")
			for i := 0; s.do("EXISTS", "ws.m.r") == "1"; i++ {
				require.Less(t, i, 10_000)
				s.do("EVAL", "redis.call('SET', ARGV[1], string.rep('x', 100000)) return 1", "0", fmt.Sprint(i))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			a, b, an, bn := historyPair(t, s.config())
			brokers, nodes := []*redisbroker.HistoryBroker{a, b}, []*node{an, bn}
			for _, b := range brokers {
				require.NoError(t, b.Subscribe([]ws.Topic{history("r")}))
			}
			last := add(t, a, "r", keep, "a", "b", "c")
			for _, n := range nodes {
				eventually(t, func() bool { return len(n.storedIn("r")) == 3 }, "messages are missing")
			}
			lose(t, s)
			requireNewEpoch(t, last, brokers, nodes)
			require.Equal(t, []string{"next"}, dataOf(read(t, b, "r", 0, 10)))
		})
	}
}

// TestEvictedStream removes the messages alone: the page names those that are lost.
func TestEvictedStream(t *testing.T) {
	s := newServer(t)
	b := connectHistory(t, newNode(t, "a"), s.config())
	last := add(t, b, "r", keep, "a", "b", "c")
	s.do("DEL", "ws.s.r")
	page := read(t, b, "r", 1, 10)
	require.Equal(t, []uint64{3, 3}, []uint64{page.Base, page.Top})
	next := add(t, b, "r", keep, "d")
	require.Equal(t, ws.Position{Epoch: last.Epoch, Offset: 4}, next)
	page = read(t, b, "r", 1, 10)
	require.EqualValues(t, 3, page.Base)
	require.Equal(t, []string{"d"}, dataOf(page))
}

// TestRestartWithAOF keeps the messages, with another epoch: the file may lack the last ones.
func TestRestartWithAOF(t *testing.T) {
	s := newServer(t, "--appendonly", "yes", "--appendfsync", "always", "--dir", t.TempDir())
	n := newNode(t, "a")
	b := connectHistory(t, n, s.config())
	last := add(t, b, "r", keep, "a", "b")
	s.kill()
	eventually(t, func() bool { return !n.isUp() }, "the end of the server goes unseen")
	require.True(t, s.start())
	eventually(t, n.reconnected, "no second connection")
	page := read(t, b, "r", 0, 10)
	require.Equal(t, []string{"a", "b"}, dataOf(page))
	require.NotEqual(t, last.Epoch, page.Epoch)
	require.Equal(t, ws.Position{Epoch: page.Epoch, Offset: 3}, add(t, b, "r", keep, "c"))
}

// TestForgottenScripts removes the scripts from the server, as a failover does.
func TestForgottenScripts(t *testing.T) {
	s := newServer(t)
	b := connectHistory(t, newNode(t, "a"), s.config())
	p := add(t, b, "r", keep, "a")
	s.do("SCRIPT", "FLUSH")
	require.Equal(t, ws.Position{Epoch: p.Epoch, Offset: 2}, add(t, b, "r", keep, "b"))
	s.do("SCRIPT", "FLUSH")
	require.Len(t, read(t, b, "r", 0, 10).Messages, 2)
	s.do("SCRIPT", "FLUSH")
	require.EqualValues(t, 2, heads(t, b, "r")[0].Offset)
}

// calls calls each method that uses the store.
func calls(ctx context.Context, b *redisbroker.HistoryBroker) map[string]error {
	errs := make(map[string]error)
	_, errs["Append"] = b.Append(ctx, "r", nil, keep)
	_, errs["Read"] = b.Read(ctx, "r", 0, 1)
	_, errs["Heads"] = b.Heads(ctx, []string{"r"})
	errs["Forget"] = b.Forget(ctx, "r")
	return errs
}

func TestHistoriesWithoutConnection(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	b := connectHistory(t, n, s.config())
	s.kill()
	eventually(t, func() bool { return !n.isUp() }, "the end of the server goes unseen")
	for name, err := range calls(t.Context(), b) {
		require.ErrorIs(t, err, ws.ErrBrokerUnavailable, name)
		require.ErrorIs(t, err, redisbroker.ErrDown, name)
	}
}

// TestHistoriesOfStoppedServer has calls under way, with a context that ends, and until the session ends.
func TestHistoriesOfStoppedServer(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	cfg := s.config()
	cfg.Timeout = time.Hour
	patient := connectHistory(t, newNode(t, "patient"), cfg)
	cfg.PingInterval, cfg.Timeout = 500*time.Millisecond, 5*time.Second
	b := connectHistory(t, n, cfg)
	s.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	for name, err := range calls(ctx, patient) {
		require.ErrorIs(t, err, context.Canceled, name)
	}
	_, err := b.Append(t.Context(), "r", nil, keep)
	require.ErrorIs(t, err, ws.ErrBrokerUnavailable)
	eventually(t, func() bool { return !n.isUp() }, "a server without answers goes unseen")
	s.signal(syscall.SIGCONT)
	eventually(t, n.reconnected, "no second connection")
	add(t, b, "r", keep, "a")
}

// TestFullServer holds that an error of the server is the caller's, and ends no connection.
func TestFullServer(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	b := connectHistory(t, n, s.config())
	add(t, b, "r", keep, "a")
	s.do("CONFIG", "SET", "maxmemory", "1")
	_, err := b.Append(t.Context(), "r", nil, keep)
	require.ErrorContains(t, err, "redisbroker: append: OOM")
	require.Len(t, read(t, b, "r", 0, 10).Messages, 1)
	s.do("CONFIG", "SET", "maxmemory", "0")
	require.EqualValues(t, 2, add(t, b, "r", keep, "b").Offset)
	n.read(func() { require.Equal(t, 1, n.ups) })
}

// TestPermissionsOfHistories has a user with the permissions of the README.
func TestPermissionsOfHistories(t *testing.T) {
	s := newServer(t)
	permissions := "&ws.* ~ws.* +@pubsub +@connection +role +cluster|slots +cluster|shards " +
		"+evalsha +eval +info +time +hmget +hset +xadd +xrange +xtrim +pttl +pexpire +persist +del"
	s.do(append([]string{"ACL", "SETUSER", "node", "on", ">secret"}, strings.Fields(permissions)...)...)
	cfg := s.config()
	cfg.Options.Username, cfg.Options.Password = "node", "secret"
	n := newNode(t, "a")
	b := connectHistory(t, n, cfg)
	few := ws.History{Size: 10, Bytes: 10, TTL: time.Minute}
	add(t, b, "r", few, "1234567890", "1234567890", "1234567890")
	few.TTL = -1
	add(t, b, "r", few, "d")
	s.do("PEXPIRE", "ws.m.r", "1000000")
	for name, err := range calls(t.Context(), b) {
		require.NoError(t, err, name)
	}
}

// TestMessagesOfOthers publishes bytes that are no message on the channel of a history.
func TestMessagesOfOthers(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	b := connectHistory(t, n, s.config())
	require.NoError(t, b.Subscribe([]ws.Topic{history("r")}))
	for _, msg := range []string{"", "epoch", "epoch 0 data", "epoch x data", "epoch -1 data", "e 9007199254740992 data"} {
		require.Equal(t, "1", s.do("PUBLISH", "ws.h.r", msg))
	}
	p := add(t, b, "r", keep, "a")
	eventually(t, func() bool { return len(n.storedIn("r")) > 0 }, "no message")
	require.Equal(t, []stored{{p, 0, "a"}}, n.storedIn("r"))
}
