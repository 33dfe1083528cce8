package ws_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/internal/harness"
)

// slowNetwork is a manager with one event loop on a Simnet, on which each frame
// takes some time to write, so that a fan-out takes many turns.
type slowNetwork struct {
	*ws.Manager
	*ws.Simnet
	each    atomic.Int64 // nanoseconds for each data frame
	onFrame func(peer int, op codec.Opcode, payload []byte)
}

func startSlowNetwork(t *testing.T, clients int, opts ...ws.Option) *slowNetwork {
	t.Helper()
	n := &slowNetwork{Simnet: ws.NewSimnet()}
	n.OnFrame = func(peer int, frame []byte) {
		op, payload := codec.SplitFrame(frame)
		if !op.IsControl() {
			for began := time.Now(); time.Since(began) < time.Duration(n.each.Load()); {
				continue
			}
		}
		if n.onFrame != nil {
			n.onFrame(peer, op, payload)
		}
	}
	opts = append(opts, ws.WithLoops(1), func(c *ws.Config) {
		c.Simnet = n.Simnet
		c.Authenticate = harness.ByQuery
		c.MaxConnections = clients
	})
	m, err := ws.NewManager(opts...)
	require.NoError(t, err)
	n.Manager = m
	run := make(chan error, 1)
	go func() { run <- m.Run() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.NoError(t, m.Shutdown(ctx))
		assert.NoError(t, <-run)
	})
	for i := range clients {
		n.Connect(1, []byte(harness.UpgradeRequest(fmt.Sprintf("/ws?id=%d&user=7", i), "")))
	}
	require.True(t, harness.Holds(func() bool { return m.GetClientCount() == clients }))
	n.Wait()
	return n
}

// While large messages are published to a large room, the loop looks at its
// connections again after each millisecond or so: a message of one is handled between
// two of some thousand writes.
func TestTurnsAreShortWhileLargeMessagesAreFannedOut(t *testing.T) {
	const members, publishes, each = 500, 64, 20 * time.Microsecond // 0.7 s at least, when nobody else runs
	targets := map[string]func(n *slowNetwork, message []byte){
		"room": func(n *slowNetwork, message []byte) { assert.NoError(t, n.BroadcastToRoom("room", message, nil)) },
		"all":  func(n *slowNetwork, message []byte) { n.BroadcastAll(message) },
		"user": func(n *slowNetwork, message []byte) { assert.NoError(t, n.BroadcastToUser(7, message)) },
	}
	for name, publish := range targets {
		t.Run(name, func(t *testing.T) {
			n := startSlowNetwork(t, members, ws.WithQueueBytes(256<<10), ws.WithHandlerMode(ws.Inline))
			n.RangeClients(func(c *ws.Client) bool { return assert.NoError(t, c.JoinRoom("room")) })
			again := []byte(harness.Frame(2, "again"))
			var writes, most, all int // loop-confined until done
			var done atomic.Bool
			n.onFrame = func(_ int, op codec.Opcode, _ []byte) {
				if op == codec.OpText {
					writes++
					all++
				}
			}
			n.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
				most, writes = max(most, writes), 0
				if !done.Load() {
					n.Send(0, again)
				}
			})
			n.each.Store(int64(each))
			n.Send(0, again)
			for range publishes {
				publish(n, make([]byte, 64<<10))
			}
			require.Eventually(t, func() bool { return n.Manager.Stats().Total.MessagesOut == members*publishes },
				2*time.Minute, time.Millisecond, "%+v", n.Manager.Stats().Total)
			done.Store(true)
			n.Wait()
			assert.Equal(t, members*publishes, all)
			// A turn may take as long as the round of reads before it, 20 ms at most.
			assert.Less(t, most, int(20*time.Millisecond/each)+100, "writes in a turn")
			drops := n.Manager.Stats().Total.Drops
			assert.Zero(t, drops.Lost())
		})
	}
}

// Each client gets each message once and in order, whether it was published to its
// room, to all or to its user, while others end in the middle of a fan-out, come,
// and are sent heartbeats.
func TestClientsEndWithinAFanOut(t *testing.T) {
	const clients, publishes = 10_000, 60
	n := startSlowNetwork(t, clients, ws.WithHandlerMode(ws.Inline), ws.WithHeartbeatInterval(100*time.Millisecond),
		ws.WithHeartbeatTimeout(time.Hour))
	var mu sync.Mutex
	received := make(map[int][]uint32) // guarded by mu
	gone := make(map[int]bool)         // guarded by mu
	rng := rand.New(rand.NewPCG(1, 2)) // guarded by mu
	n.onFrame = func(peer int, op codec.Opcode, payload []byte) {
		if op == codec.OpBinary || op == codec.OpText {
			mu.Lock()
			defer mu.Unlock()
			received[peer] = append(received[peer], binary.BigEndian.Uint32(payload))
		}
	}
	again := []byte(harness.Frame(2, "again"))
	n.HandleRaw(func(*ws.Client, ws.Opcode, []byte) { // between two turns each time
		mu.Lock()
		defer mu.Unlock()
		for range 5 {
			ended := 1 + rng.IntN(clients-1)
			n.HangUp(ended)
			gone[ended] = true
		}
		if len(gone) < clients/2 {
			n.Send(0, again)
		}
	})
	n.RangeClients(func(c *ws.Client) bool { return assert.NoError(t, c.JoinRoom("room")) })
	n.Send(0, again)
	for i := range publishes {
		message := binary.BigEndian.AppendUint32(nil, uint32(i))
		switch i % 3 {
		case 0:
			require.NoError(t, n.BroadcastToRoom("room", message, nil))
		case 1:
			n.BroadcastAll(message)
		default:
			require.NoError(t, n.BroadcastToUser(7, message))
		}
		n.Advance(10 * time.Millisecond)
	}
	n.Wait()
	mu.Lock()
	defer mu.Unlock()
	want := make([]uint32, publishes)
	for i := range want {
		want[i] = uint32(i)
	}
	for peer := range clients {
		if gone[peer] {
			assert.True(t, slices.Equal(want[:len(received[peer])], received[peer]),
				"peer %d, which has ended, got %v", peer, received[peer])
		} else {
			assert.Equal(t, want, received[peer], "peer %d", peer)
		}
	}
	assert.Greater(t, len(gone), 100)
}

// A turn may take as long as the round of reads before it: fan-out goes on beside
// handlers that hold the loop.
func TestTurnsFollowTheRoundOfReads(t *testing.T) {
	const members, each, round = 500, 10 * time.Microsecond, 5 * time.Millisecond
	n := startSlowNetwork(t, members, ws.WithHandlerMode(ws.Inline))
	again := []byte(harness.Frame(2, "again"))
	var writes, most int // loop-confined until done
	var done atomic.Bool
	n.onFrame = func(int, codec.Opcode, []byte) { writes++ }
	n.HandleRaw(func(*ws.Client, ws.Opcode, []byte) {
		most, writes = max(most, writes), 0
		for began := time.Now(); time.Since(began) < round; {
			continue
		}
		if !done.Load() {
			n.Send(0, again)
		}
	})
	n.each.Store(int64(each))
	n.Send(0, again)
	for i := range 20 {
		n.BroadcastAll([]byte("x"))
		require.True(t, harness.Holds(func() bool { return n.Manager.Stats().Total.MessagesOut == uint64((i+1)*members) }))
	}
	done.Store(true)
	n.Wait()
	assert.Greater(t, most, 200, "writes in a turn; 1 ms has 100")
}

// A panic at one member of a fan-out costs the others nothing. In a room with a history the member,
// which may lack the message, gets no later one, and its connection ends.
func TestPanicInAFanOut(t *testing.T) {
	const peers, faulty = 20, 7
	for name, opts := range map[string][]ws.RoomOption{"history": {ws.WithHistory(ws.History{})}, "no history": nil} {
		t.Run(name, func(t *testing.T) {
			log := new(harness.Buffer)
			s := startSim(t, peers, byID, ws.WithOnSlow(func(*ws.Client, int) {}),
				ws.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
			_, err := s.CreateRoom("r", nil, opts...)
			require.NoError(t, err)
			for i := range peers {
				s.join(i, ws.Since{})
			}
			publish := func(n int) {
				_, err := s.PublishEvent(context.Background(), "r", "n", n)
				require.NoError(t, err)
				s.net.Wait()
			}
			s.net.Stall(faulty)
			publish(0)
			mend := ws.BreakSlowWatch(s.Manager)
			publish(1) // makes the client slow
			mend()
			assert.Equal(t, 1, strings.Count(log.String(), "panic recovered"))
			publish(2)
			if opts != nil {
				harness.Eventually(t, func() bool { return s.GetClientCount() == peers-1 }, "the client stays")
			}
			s.net.Resume(faulty)
			s.net.Wait()
			if opts != nil {
				assert.Empty(t, s.received[faulty])
			}
			for i := range peers {
				if i == faulty {
					continue
				}
				assert.Len(t, s.received[i], 3, "peer %d", i)
			}
		})
	}
}

// BenchmarkPublish publishes to ten members on a Simnet, without a Broker.
func BenchmarkPublish(b *testing.B) {
	const batch = 64
	r := startSimulatedRoom(b, 10)
	for _, c := range r.clients {
		require.NoError(b, c.JoinRoom("r"))
	}
	msg := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		for range batch {
			if err := r.BroadcastToRoom("r", msg, nil); err != nil {
				b.Fatal(err)
			}
		}
		r.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/publish")
}
