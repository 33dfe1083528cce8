package engine_test

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// panickingLog is a slog.Handler with a fault.
type panickingLog struct{}

func (panickingLog) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingLog) Handle(context.Context, slog.Record) error { panic("the log handler panics") }
func (l panickingLog) WithAttrs([]slog.Attr) slog.Handler      { return l }
func (l panickingLog) WithGroup(string) slog.Handler           { return l }

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
