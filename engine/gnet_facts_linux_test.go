package engine_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/engine"
)

func TestFact04AWritableEventOfAnEarlierDescriptorIsStale(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
	s.dial()
	p := s.peer(0)
	sh := p.conn.Shard()
	onLoop(sh, func(sh *engine.Shard) {
		// The socket is writable, so the event comes at once: hold the table's
		// entry by arming for a generation that has passed.
		stale := p.conn.Generation() - 1
		must(t, sh.ArmWritable(&p.conn))
		assert.Nil(t, sh.TakeWritable(int32(p.conn.FD()), stale))
	})
}

func TestFilesLeft(t *testing.T) {
	for content, want := range map[string]int{
		"400\t0\t10000\n":               10_000 - 200 - 400,
		"9900\t0\t10000\n":              -100,
		"400\t0\t9223372036854775807\n": math.MaxInt32,
		"0\t0\t0\n":                     math.MaxInt32,
		"":                              math.MaxInt32,
	} {
		assert.Equal(t, want, engine.FilesLeft(content), content)
	}
}
