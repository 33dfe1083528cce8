package engine_test

import (
	"log/slog"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// TestReadinessIsFound fails if gnet registers its descriptors in another way,
// because then nothing can be paused.
func TestReadinessIsFound(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no epoll")
	}
	for name, listeners := range map[string]int{"listening": 1, "enrolling": 0} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.Loops = 4
				if listeners == 0 {
					cfg.ListenAddr = ""
				}
			})
			<-s.Started()
			for _, shard := range s.Shards() {
				known, n := shard.Readiness()
				require.True(t, known)
				require.Equal(t, listeners, n)
			}
		})
	}
}

// TestReadinessUnknown asserts that an engine starts without readiness, and
// logs that.
func TestReadinessUnknown(t *testing.T) {
	var log safeBuffer
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.NoReadiness = true
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	c := s.dial()
	c.echo()
	known, _ := s.Shards()[0].Readiness()
	require.False(t, known)
	require.Contains(t, log.String(), "cannot be paused")
}
