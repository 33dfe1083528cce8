package redisbroker_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	redisbroker "github.com/qi-realtime/ws/contrib/redis"
)

// reconnected reports whether the node has been told of a second connection.
func (n *node) reconnected() (yes bool) {
	n.read(func() { yes = n.up && n.ups > 1 })
	return yes
}

func TestKilledServer(t *testing.T) {
	for name, sharded := range map[string]bool{"plain": false, "sharded": true} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			cfg := s.config()
			cfg.Sharded = sharded
			a, b, an, bn := pair(t, cfg)
			topics := rooms(5000)
			require.NoError(t, b.Subscribe(topics[1:]))
			s.kill()
			for _, n := range []*node{an, bn} {
				eventually(t, func() bool { return !n.isUp() }, "the end of the server goes unseen")
				n.read(func() { require.ErrorContains(t, n.cause, "redisbroker: ") })
			}
			require.ErrorIs(t, a.Publish(topics[0], nil), redisbroker.ErrDown)
			require.ErrorIs(t, b.Subscribe(topics[:1]), redisbroker.ErrDown)
			require.NoError(t, b.Unsubscribe(topics[1:2]))
			require.True(t, s.start())
			for _, n := range []*node{an, bn} {
				eventually(t, n.reconnected, "no second connection")
			}
			for _, topic := range topics {
				require.NoError(t, a.Publish(topic, nil))
			}
			for i, topic := range topics {
				if i != 1 {
					eventually(t, func() bool { return bn.count(topic) == 1 }, "no message")
				}
			}
			require.Zero(t, bn.count(topics[1]))
		})
	}
}

// TestStoppedServer stops a server that then has messages without an answer.
func TestStoppedServer(t *testing.T) {
	s := newServer(t)
	cfg := s.config()
	cfg.PingInterval, cfg.Timeout = 500*time.Millisecond, 5*time.Second
	a, b, an, bn := pair(t, cfg)
	sent, silent := room("sent"), room("silent")
	require.NoError(t, b.Subscribe([]ws.Topic{sent, silent}))
	require.NoError(t, a.Publish(silent, nil))
	eventually(t, func() bool { return bn.count(silent) == 1 }, "no message")
	s.do("PING") // the server has also answered the publisher
	s.signal(syscall.SIGSTOP)
	for i := range 10 {
		require.NoError(t, a.Publish(sent, []byte(strconv.Itoa(i))))
	}
	for _, n := range []*node{an, bn} {
		eventually(t, func() bool { return !n.isUp() }, "a server without answers goes unseen")
	}
	require.ErrorIs(t, a.Publish(sent, nil), redisbroker.ErrDown)
	s.signal(syscall.SIGCONT)
	for _, n := range []*node{an, bn} {
		eventually(t, n.reconnected, "no second connection")
	}
	an.read(func() {
		require.Equal(t, map[ws.Topic]int{sent: 1}, an.unconfirmed)
		require.Less(t, slices.Index(an.log, "unconfirmed"), lastIndex(an.log, "up"), an.log)
	})
	bn.read(func() { require.Empty(t, bn.unconfirmed) })
	require.NoError(t, a.Publish(silent, nil))
	eventually(t, func() bool { return bn.count(silent) == 2 }, "no message")
}

func lastIndex(log []string, entry string) int {
	for i, e := range slices.Backward(log) {
		if e == entry {
			return i
		}
	}
	return -1
}

// TestCloseOfStoppedServer closes a broker whose messages get no answers.
func TestCloseOfStoppedServer(t *testing.T) {
	s := newServer(t)
	n := newNode(t, "a")
	cfg := s.config()
	cfg.Timeout = time.Hour
	b := connect(t, n, cfg)
	s.signal(syscall.SIGSTOP)
	require.NoError(t, b.Publish(room("r"), nil))
	blocked := make(chan error, 1)
	go func() {
		for {
			if err := b.Publish(room("r"), make([]byte, 100_000)); err != nil {
				blocked <- err
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.Close(ctx), context.DeadlineExceeded)
	n.read(func() { n.closed = true })
	select {
	case err := <-blocked:
		require.ErrorIs(t, err, redisbroker.ErrDown)
	case <-time.After(patience):
		require.Fail(t, "Publish waits after Close")
	}
}

// TestSlowNode holds a node until the server has more messages for it than its limit. Only the server
// ends the connection, because pings are rare.
func TestSlowNode(t *testing.T) {
	s := newServer(t, "--client-output-buffer-limit", "pubsub 1mb 0 0")
	cfg := s.config()
	cfg.PingInterval, cfg.Timeout = time.Hour, time.Hour
	slow, fast := newNode(t, "slow"), newNode(t, "fast")
	slow.hold = make(chan struct{})
	b := connect(t, slow, cfg)
	a := connect(t, fast, cfg)
	require.NoError(t, b.Subscribe(rooms(1)))
	clients := func() int { return strings.Count(s.do("CLIENT", "LIST", "TYPE", "pubsub"), "\n") }
	require.Equal(t, 2, clients())
	eventually(t, func() bool {
		for range 100 {
			require.NoError(t, a.Publish(room("room 0"), make([]byte, 10_000)))
		}
		return clients() == 1
	}, "the server keeps the slow connection")
	close(slow.hold)
	eventually(t, slow.reconnected, "no second connection")
	before := slow.count(room("room 0"))
	require.NoError(t, a.Publish(room("room 0"), nil))
	eventually(t, func() bool { return slow.count(room("room 0")) > before }, "no message")
	fast.read(func() {
		require.Equal(t, 1, fast.ups)
		require.Empty(t, fast.unconfirmed, "the server has answered")
	})
}

// TestRefusedMessages has a user with the permissions of the README, but for one room only.
func TestRefusedMessages(t *testing.T) {
	s := newServer(t)
	s.do("ACL", "SETUSER", "node", "on", ">secret", "&ws.a.*", "&ws.n.*", "&ws.r.allowed",
		"+@pubsub", "+@connection", "+role", "+cluster|slots", "+cluster|shards")
	cfg := s.config()
	cfg.Options.Username, cfg.Options.Password = "node", "secret"
	a, b, an, bn := pair(t, cfg)
	allowed, refused := room("allowed"), room("refused")
	require.NoError(t, b.Subscribe([]ws.Topic{allowed}))
	require.NoError(t, a.Publish(refused, nil))
	eventually(t, an.reconnected, "no second connection")
	an.read(func() { require.Equal(t, map[ws.Topic]int{refused: 1}, an.unconfirmed) })
	require.NoError(t, a.Publish(allowed, nil))
	eventually(t, func() bool { return bn.count(allowed) == 1 }, "no message")
	bn.read(func() { require.Equal(t, 1, bn.ups) })
}

// TestRefusedMessagesAgain holds that a link without a permission does not flap: the time between two
// connections grows, and the reason names the channel.
func TestRefusedMessagesAgain(t *testing.T) {
	s := newServer(t)
	s.do("ACL", "SETUSER", "node", "on", ">secret", "&ws.a.*", "&ws.n.*", "+@pubsub", "+@connection", "+role")
	cfg := s.config()
	cfg.Options.Username, cfg.Options.Password = "node", "secret"
	cfg.ReconnectWait = 5 * time.Millisecond
	n := newNode(t, "a")
	b := connect(t, n, cfg)
	begin := time.Now()
	eventually(t, func() (done bool) {
		_ = b.Publish(room("refused"), nil)
		n.read(func() { done = n.ups == 6 })
		return done
	}, "the connections end")
	require.GreaterOrEqual(t, time.Since(begin), (10+20+40+80+160)*time.Millisecond)
	eventually(t, func() (told bool) {
		_ = b.Publish(room("refused"), nil)
		n.read(func() { told = n.cause != nil && strings.Contains(n.cause.Error(), `"ws.r.refused": NOPERM`) })
		return told
	}, "the reason does not name the channel")
}

// isDown reports whether the node knows the error as the reason why it has no connection.
func (n *node) isDown(reason error) (yes bool) {
	n.read(func() { yes = errors.Is(n.cause, reason) })
	return yes
}

// TestReplica promotes a replica after its primary has been killed.
func TestReplica(t *testing.T) {
	primary := newServer(t)
	replica := newServer(t, "--replicaof", "127.0.0.1", strconv.Itoa(primary.port))
	a, b := newNode(t, "a"), newNode(t, "b")
	start(t, a, replica.config())
	eventually(t, func() bool { return a.isDown(redisbroker.ErrReplica) }, "the reason is not told")
	broker := connect(t, b, primary.config())
	primary.kill()
	eventually(t, func() bool { return !b.isUp() }, "the end of the primary goes unseen")
	replica.do("REPLICAOF", "NO", "ONE")
	eventually(t, a.isUp, "no connection to the new primary")
	require.ErrorIs(t, broker.Publish(room("r"), nil), redisbroker.ErrDown)
}

// TestMovedSlots moves the slots of all partitions of a server to another one.
func TestMovedSlots(t *testing.T) {
	servers := newCluster(t)
	cfg := configOf(servers...)
	cfg.Sharded, cfg.Partitions = true, 3
	a, b, _, bn := pair(t, cfg)
	topics := rooms(100)
	require.NoError(t, b.Subscribe(topics))
	id := strings.TrimSpace(servers[1].do("CLUSTER", "MYID"))
	slot := strconv.Itoa(redisbroker.Slot(redisbroker.Tags(3)[0]))
	for _, s := range []*server{servers[1], servers[0], servers[2]} {
		s.do("CLUSTER", "SETSLOT", slot, "NODE", id)
	}
	eventually(t, bn.reconnected, "the removed subscriptions go unseen")
	for _, topic := range topics {
		eventually(t, func() bool {
			_ = a.Publish(topic, nil) // the first ones may find the slot at the old server
			return bn.count(topic) > 0
		}, "no message")
	}
}
