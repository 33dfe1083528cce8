package natsbroker_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	natsbroker "github.com/qi-realtime/ws/contrib/nats"
)

// admin returns a connection that manages streams.
func admin(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, nats.Timeout(patience))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	require.NoError(t, err)
	return js
}

// head returns the position of the newest message of a room.
func head(t *testing.T, b *natsbroker.HistoryBroker, room string) ws.Position {
	t.Helper()
	heads, err := b.Heads(t.Context(), []string{room})
	require.NoError(t, err)
	return heads[0]
}

// TestLostStream takes the stream away, or its messages, while the connections of the nodes stay.
func TestLostStream(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, js jetstream.JetStream){
		"stream": func(t *testing.T, js jetstream.JetStream) { require.NoError(t, js.DeleteStream(t.Context(), "ws-h0")) },
		"messages": func(t *testing.T, js jetstream.JetStream) {
			s, err := js.Stream(t.Context(), "ws-h0")
			require.NoError(t, err)
			require.NoError(t, s.Purge(t.Context()))
		},
		"newest messages": func(t *testing.T, js jetstream.JetStream) {
			cfg, err := js.Stream(t.Context(), "ws-h0")
			require.NoError(t, err)
			epoch, err := cfg.GetLastMsgForSubject(t.Context(), "ws.e.0")
			require.NoError(t, err)
			require.NoError(t, js.DeleteStream(t.Context(), "ws-h0"))
			c := cfg.CachedInfo().Config
			c.FirstSeq = epoch.Sequence
			_, err = js.CreateStream(t.Context(), c)
			require.NoError(t, err)
			_, err = js.PublishMsg(t.Context(), &nats.Msg{Subject: "ws.e.0", Data: epoch.Data})
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			cfg := natsbroker.HistoryConfig{Streams: 1}
			an, bn := newNode(t, "a"), newNode(t, "b")
			a, b := connectStore(t, an, s.ClientURL(), cfg), connectStore(t, bn, s.ClientURL(), cfg)
			require.NoError(t, b.Subscribe([]ws.Topic{{Kind: ws.TopicHistory, Name: "r"}}))
			old := appendText(t, a, "r", "1")
			require.Equal(t, old, head(t, b, "r"))
			appendText(t, a, "r", "2")

			lose(t, admin(t, s.ClientURL()))
			first := head(t, a, "r")
			require.NotEqual(t, old.Epoch, first.Epoch)
			require.Zero(t, first.Offset)
			p := appendText(t, b, "r", "3")
			require.Greater(t, p.Offset, old.Offset+1)
			require.Equal(t, ws.Position{Epoch: first.Epoch, Offset: p.Offset}, head(t, b, "r"))
			msgs, base := readAll(t, b, "r", old.Offset, 10)
			require.Equal(t, []stored{{epoch: first.Epoch, offset: p.Offset, text: "3"}}, msgs)
			require.Greater(t, base, old.Offset)
			var last stored
			eventually(t, func() bool {
				for _, last = range bn.history("r") {
				}
				return last.text == "3"
			}, "no message")
			require.Zero(t, last.prev, "it does not look like the next message")
			for _, n := range []*node{an, bn} {
				n.read(func() { require.True(t, n.up && n.ups == 1) })
			}
		})
	}
}

// TestAppendsWhileTheStreamIsLost loses the stream under appends of two nodes.
func TestAppendsWhileTheStreamIsLost(t *testing.T) {
	s := newStore(t)
	cfg := natsbroker.HistoryConfig{Streams: 1, Memory: true}
	a, b := connectStore(t, newNode(t, "a"), s.ClientURL(), cfg), connectStore(t, newNode(t, "b"), s.ClientURL(), cfg)
	js := admin(t, s.ClientURL())
	var wg sync.WaitGroup
	for i := range 3 {
		appendText(t, a, "r", fmt.Sprint(i))
		for _, b := range []*natsbroker.HistoryBroker{a, b, a, b} {
			wg.Go(func() {
				for range 50 {
					if _, err := b.Append(t.Context(), "r", nil, keep); err != nil {
						t.Error(err)
					}
				}
			})
		}
		require.NoError(t, js.DeleteStream(t.Context(), "ws-h0"))
		wg.Wait()
		p := appendText(t, b, "r", "last")
		require.Equal(t, p.Offset, head(t, a, "r").Offset)
		require.Equal(t, head(t, a, "r"), head(t, b, "r"))
		msgs, _ := readAll(t, a, "r", 0, 1000)
		require.Equal(t, "last", msgs[len(msgs)-1].text)
	}
}

func TestRestartOfTheStore(t *testing.T) {
	for _, memory := range []bool{false, true} {
		t.Run(fmt.Sprint("memory=", memory), func(t *testing.T) {
			o := natsserver.Options{Port: freePort(t), JetStream: true, StoreDir: t.TempDir()}
			s := newServer(t, o)
			n := newNode(t, "a")
			b := connectStore(t, n, s.ClientURL(), natsbroker.HistoryConfig{Memory: memory})
			require.NoError(t, b.Subscribe([]ws.Topic{{Kind: ws.TopicHistory, Name: "r"}}))
			var before []ws.Position
			for i := range 20 {
				before = append(before, appendText(t, b, "r", fmt.Sprint(i)))
			}
			restart(t, s, o)
			eventually(t, func() (up bool) {
				n.read(func() { up = n.up && n.ups == 2 })
				return up
			}, "no connection")
			last := before[len(before)-1]
			after := appendText(t, b, "r", "after")
			require.Greater(t, after.Offset, last.Offset)
			msgs, base := readAll(t, b, "r", before[9].Offset, 100)
			require.Equal(t, after, head(t, b, "r"))
			if memory {
				require.NotEqual(t, last.Epoch, after.Epoch)
				require.Len(t, msgs, 1)
				require.Greater(t, base, last.Offset)
			} else {
				require.Equal(t, last.Epoch, after.Epoch)
				require.Len(t, msgs, 11)
				require.Equal(t, before[9].Offset, base)
			}
			eventually(t, func() bool { return len(n.history("r")) == 21 }, "no message")
			require.Equal(t, memory, n.history("r")[20].prev != last.Offset)
		})
	}
}

// storeCluster is a cluster of three processes with JetStream.
type storeCluster struct {
	t         *testing.T
	configs   []processConfig
	processes []*process
	urls      []string
}

func newStoreCluster(t *testing.T) *storeCluster {
	c := &storeCluster{t: t}
	var routes []int
	for range 3 {
		routes = append(routes, freePort(t))
	}
	for _, r := range routes {
		p := processConfig{Port: freePort(t), ClusterPort: r, Routes: routes, StoreDir: t.TempDir()}
		c.configs, c.urls = append(c.configs, p), append(c.urls, urlOf(p.Port))
	}
	c.start()
	return c
}

// start starts all servers.
func (c *storeCluster) start() {
	c.processes = nil
	for _, p := range c.configs {
		c.processes = append(c.processes, newProcess(c.t, p))
	}
}

// leader returns the index of the leader of the stream.
func (c *storeCluster) leader(js jetstream.JetStream, stream string) (leader int) {
	c.t.Helper()
	eventually(c.t, func() bool {
		s, err := js.Stream(c.t.Context(), stream)
		if err != nil {
			return false
		}
		for i, p := range c.configs {
			if s.CachedInfo().Cluster.Leader == fmt.Sprint("s", p.Port) {
				leader = i
				return true
			}
		}
		return false
	}, "no leader")
	return leader
}

// TestKilledLeader kills the leader of a stream while three nodes append.
func TestKilledLeader(t *testing.T) {
	t.Parallel()
	c := newStoreCluster(t)
	var brokers []*natsbroker.HistoryBroker
	for i, u := range c.urls {
		n := newNode(t, fmt.Sprint(i))
		brokers = append(brokers, connectStore(t, n, u, natsbroker.HistoryConfig{Streams: 1, Replicas: 3}))
	}
	first := c.first(brokers[0])
	c.verify(brokers, first, c.appendUntilKilled(brokers, c.leader(admin(t, c.urls[0]), "ws-h0")))
}

// TestKilledCluster kills all servers, and starts them again.
func TestKilledCluster(t *testing.T) {
	t.Parallel()
	c := newStoreCluster(t)
	fn, mn := newNode(t, "files"), newNode(t, "memory")
	inFiles := startStore(t, fn, natsbroker.Config{Servers: c.urls},
		natsbroker.HistoryConfig{Streams: 1, Replicas: 3})
	inMemory := startStore(t, mn, natsbroker.Config{Servers: c.urls, Prefix: "memory"},
		natsbroker.HistoryConfig{Streams: 1, Replicas: 3, Memory: true})
	first, lost := c.first(inFiles), c.first(inMemory)
	for _, p := range c.processes {
		p.kill()
	}
	for _, n := range []*node{fn, mn} {
		eventually(t, func() bool { return !n.isUp() }, "still up")
	}
	c.start()

	again := c.first(inFiles)
	require.Equal(t, first.Epoch, again.Epoch)
	msgs, base := readAll(t, inFiles, "r", first.Offset, 100)
	require.Equal(t, first.Offset, base)
	require.Equal(t, again.Offset, msgs[len(msgs)-1].offset)
	begun := c.first(inMemory)
	require.NotEqual(t, lost.Epoch, begun.Epoch)
	require.Greater(t, begun.Offset, lost.Offset)
}

// first appends a message as soon as the cluster has a leader, whose election takes long on a busy machine.
func (c *storeCluster) first(b *natsbroker.HistoryBroker) (p ws.Position) {
	c.t.Helper()
	require.Eventually(c.t, func() (ok bool) {
		var err error
		p, err = b.Append(c.t.Context(), "r", []byte("first"), keep)
		return err == nil
	}, 3*patience, 5*time.Millisecond, "no store")
	return p
}

// appendUntilKilled appends messages by all brokers, kills a server, and ends when each broker has
// appended another one. It returns the positions of the messages, which are zero after an error.
func (c *storeCluster) appendUntilKilled(brokers []*natsbroker.HistoryBroker, server int) map[string]ws.Position {
	var wg sync.WaitGroup
	var mu sync.Mutex
	appended := make(map[string]ws.Position)
	killed := make(chan struct{})
	for p, b := range brokers {
		wg.Go(func() {
			for i := 0; ; i++ {
				text := fmt.Sprint(p, " ", i)
				after := false
				<-time.After(time.Millisecond) // also of a broker that has no connection at the moment
				select {
				case <-killed:
					after = true
				default:
				}
				pos, err := b.Append(c.t.Context(), "r", []byte(text), keep)
				mu.Lock()
				appended[text] = pos
				count := len(appended)
				mu.Unlock()
				if p == 0 && i == 30 {
					c.processes[server].kill()
					close(killed)
				}
				if after && err == nil || count > 900 {
					return
				}
			}
		})
	}
	wg.Wait()
	return appended
}

// verify compares the store with the messages that were appended. A broker may have no connection
// yet, and a replica may lack the last messages for a moment.
func (c *storeCluster) verify(brokers []*natsbroker.HistoryBroker, first ws.Position, appended map[string]ws.Position) {
	c.t.Helper()
	newest := first.Offset
	for _, p := range appended {
		newest = max(newest, p.Offset)
	}
	for _, b := range brokers {
		eventually(c.t, func() bool {
			page, err := b.Read(c.t.Context(), "r", newest-1, 1)
			return err == nil && page.Top >= newest && len(page.Messages) > 0
		}, "the newest message is missing")
		msgs, base := readAll(c.t, b, "r", first.Offset, 100)
		require.Equal(c.t, first.Offset, base)
		found := make(map[string]bool)
		for _, m := range msgs {
			require.False(c.t, found[m.text], "twice: "+m.text)
			found[m.text] = true
			p, ok := appended[m.text]
			require.True(c.t, ok, m.text)
			if p != (ws.Position{}) {
				require.Equal(c.t, p, ws.Position{Epoch: m.epoch, Offset: m.offset})
			}
		}
		for text, p := range appended {
			require.True(c.t, found[text] || p == ws.Position{}, "missing: "+text)
		}
	}
}
