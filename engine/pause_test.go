package engine_test

import (
	"strings"
	"testing"
	"time"

	gws "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// paused counts the connections that are paused.
func paused(s *server) (n int) {
	for _, shard := range s.Shards() {
		n += shard.Stats().Paused
	}
	return n
}

// The limit of pings and pongs counts those of a tick, also of a connection that
// is resumed in each.
func TestPausedConnectionMayPing(t *testing.T) {
	const tick, ticks, pings = 250 * time.Millisecond, 20, 100
	m := startMemory(t, func(cfg *engine.Config, s *server) {
		cfg.ControlFrames = 1 // 1,000 in a tick; see minControlsPerTick
		s.onMessage = func(p *peer, _ codec.Opcode, _ []byte) { p.conn.PauseInLoop() }
	})
	m.connect(1)
	stream := strings.Repeat(frame(gws.OpPing, ""), pings) + frame(gws.OpText, "pause")
	for range ticks {
		m.Advance(tick)
		m.Wait()
		m.peer(0).conn.Resume()
		m.Wait()
		m.Send(0, []byte(stream))
		m.Wait()
		require.Equal(t, 1, paused(m.server))
	}
	require.False(t, m.peer(0).conn.Closed())
}
