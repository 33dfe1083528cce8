package engine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/engine"
)

func TestFact04AWritableEventOfAnEarlierDescriptorIsStale(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	s.dial()
	p := s.peer(0)
	sh := p.conn.Shard()
	onLoop(sh, func(*engine.Shard) {
		// The socket is writable, so the event comes at once: hold the table's
		// entry by arming for a generation that has passed.
		stale := p.conn.Generation() - 1
		assert.Nil(t, s.TakeWritable(int32(p.conn.FD()), stale))
		must(t, s.ArmWritable(&p.conn))
		assert.Nil(t, s.TakeWritable(int32(p.conn.FD()), stale))
	})
}
