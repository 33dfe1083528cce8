package ws

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"runtime/trace"
	"sync"
)

// flightRecorder is the FlightRecorder of a manager. Safe for concurrent use.
type flightRecorder struct {
	mu       sync.Mutex
	recorder *trace.FlightRecorder // guarded by mu; nil without one
}

// start starts the recorder, if there is one and it does not run, and returns the function
// that stops it again.
func (f *flightRecorder) start(logger *slog.Logger) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recorder == nil || f.recorder.Enabled() {
		return func() {}
	}
	if err := f.recorder.Start(); err != nil {
		logger.Warn("ws: flight recorder not started", slog.Any("error", err))
		return func() {}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.recorder.Stop()
	}
}

// WriteTrace writes the last seconds of the execution trace of the process, as
// Config.FlightRecorder has them, for `go tool trace`. It returns ErrNoFlightRecorder if none
// runs. A trace of 10 s may take some MiB, and writing stops the process for a moment. Safe for
// concurrent use.
func (m *Manager) WriteTrace(w io.Writer) error {
	var b bytes.Buffer // a slow w must hold up neither Shutdown nor another trace
	if err := m.flight.copyTo(&b); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}

func (f *flightRecorder) copyTo(b *bytes.Buffer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recorder == nil || !f.recorder.Enabled() {
		return ErrNoFlightRecorder
	}
	if _, err := f.recorder.WriteTo(b); err != nil {
		return fmt.Errorf("ws: write trace: %w", err)
	}
	return nil
}
