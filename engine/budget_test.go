package engine_test

import (
	"strings"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// The message timeout ends peers that begin a message and send nothing more,
// also while the budget pauses them: their waits do not add up one after the
// other. Peers that close meanwhile are forgotten.
func TestBudgetDoesNotShelterStalledMessages(t *testing.T) {
	const peers, timeout, tick = 200, time.Minute, 250 * time.Millisecond
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops = 1
		cfg.InboundBudget = 1 << 20
		cfg.MessageSizeLimit = 1 << 20
		cfg.MessageTimeout = timeout
		cfg.HandshakeTimeout, cfg.HeartbeatInterval, cfg.HeartbeatTimeout = time.Hour, time.Hour, 2*time.Hour
		cfg.CloseTimeout = 10 * time.Second
	})
	m.connect(peers)
	message := frame(gobwas.OpBinary, strings.Repeat("x", 400<<10))
	for i := range peers {
		m.Send(i, []byte(message[:40<<10]))
		m.Wait()
	}
	paused := func() int { return m.Shards()[0].Stats().Paused }
	require.Greater(t, paused(), peers/2, "the budget pauses most of them")
	for i := range 20 {
		m.HangUp(i)
	}
	m.Wait()
	ticks := func(d time.Duration) {
		for range d / tick {
			m.Advance(tick)
			m.Wait()
		}
	}
	ticks(timeout + peers/4*time.Second + 30*time.Second)
	assert.Zero(t, m.Shards()[0].Stats().Connections, "connections with an unfinished message stay")
	assert.Zero(t, m.Inbound())
	assert.Zero(t, paused())
}

// A message that the budget drops in the step that queues it does not count as
// queued: alone, with all queued messages of its connection, and in the place
// of the message that it conflates.
func TestBudgetDropsAreNotQueued(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy engine.Policy
		key    string
	}{
		{"newest", engine.DropNewest, ""},
		{"conflated", engine.DropNewest, "key"},
		{"disconnect", engine.Disconnect, ""},
		{"conflated, disconnect", engine.Disconnect, "key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := startSimnet(t, func(cfg *engine.Config, _ *server) {
				cfg.Loops = 1
				cfg.OverflowPolicy, cfg.QueueBudget = test.policy, 8<<10
			})
			m.connect(1)
			m.Stall(0)
			c := &m.peer(0).conn
			require.NoError(t, c.SendPayload(codec.OpText, []byte("full"), engine.LaneNormal))
			m.Wait()
			onLoop(m.Shards()[0], func(s *engine.Shard) {
				for n := 1; n <= 20; n++ {
					before := s.Stats().Drops.Budget
					f := engine.NewFrame(codec.OpText, []byte(strings.Repeat("x", n<<10)), engine.Handling{Key: test.key})
					queued := c.DeliverInLoop(f)
					if dropped := s.Stats().Drops.Budget > before; dropped || !queued {
						assert.False(t, queued, "it was dropped")
						assert.True(t, dropped, "by the budget")
						return
					}
				}
				assert.Fail(t, "the budget was never exceeded")
			})
		})
	}
}
