package engine_test

import (
	"strings"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// A pong that replaces a shorter or longer one changes the memory of a blocked
// connection's queue: the count returns to 0.
func TestReplacedPongsAreCounted(t *testing.T) {
	m := startSimnet(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops = 1
		cfg.QueueBudget = 1 << 20
	})
	m.connect(1)
	backlog := func() int64 { return m.Shards()[0].Stats().QueuedMemory }
	for range 10 {
		m.Stall(0)
		m.Wait()
		require.NoError(t, m.peer(0).conn.SendPayload(codec.OpText, []byte("full"), engine.LaneNormal))
		m.Send(0, []byte(frame(gobwas.OpPing, "short")))
		m.Wait()
		short := backlog()
		m.Send(0, []byte(frame(gobwas.OpPing, strings.Repeat("l", 125))))
		m.Wait()
		require.Equal(t, short+120, backlog(), "the longer pong is counted")
		m.Resume(0)
		m.Wait()
		require.Zero(t, backlog(), "nothing waits any more")
		require.Zero(t, m.BudgetHeld(), "nothing counts against the budget")
	}
}
