package engine_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

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
