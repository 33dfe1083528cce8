package engine_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// panickingLog is a slog.Handler with a fault.
type panickingLog struct{}

func (panickingLog) Enabled(context.Context, slog.Level) bool { return true }

func (panickingLog) Handle(context.Context, slog.Record) error { panic("the log handler panics") }

func (l panickingLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l panickingLog) WithGroup(string) slog.Handler { return l }

// A log handler that panics ends neither the goroutines that accept nor those
// of gnet.
func TestLogHandlerPanicsWhileAccepting(t *testing.T) {
	for name, addr := range listeners(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.Logger = slog.New(panickingLog{})
				cfg.ListenAddr = addr
				cfg.MaxDescriptors = nextFD(t) + 100
			})
			healthy := s.dial()
			var files []*os.File
			for range 150 {
				f, err := os.Open(os.DevNull)
				require.NoError(t, err)
				files = append(files, f)
			}
			late := s.dialTCP()
			late.raw(upgradeRequest)
			s.eventually(func() bool { return s.AcceptStats().Descriptors.Resting }, "the listener does not rest")
			for _, f := range files {
				_ = f.Close()
			}
			require.Equal(t, 101, late.response())
			late.echo()
			healthy.echo()
		})
	}
}

func TestFact14GnetLogsToTheConfiguredLogger(t *testing.T) {
	var buf safeBuffer
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.Logger = slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	s.shutdown()
	assert.Contains(t, buf.String(), "gnet: ")
}

// safeBuffer is a bytes.Buffer that goroutines may share.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
