package ws_test

import (
	"bytes"
	"io"
	"log/slog"
	runtimetrace "runtime/trace"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// newRecorder returns a flight recorder that is stopped when the test ends.
func newRecorder(t *testing.T) *runtimetrace.FlightRecorder {
	r := runtimetrace.NewFlightRecorder(runtimetrace.FlightRecorderConfig{MinAge: time.Second, MaxBytes: 1 << 20})
	t.Cleanup(r.Stop)
	return r
}

// Run starts the recorder and stops it at its end, and WriteTrace writes a trace in between.
func TestWriteTrace(t *testing.T) {
	r := newRecorder(t)
	m := harness.NewManager(t, ws.WithFlightRecorder(r))
	require.ErrorIs(t, m.WriteTrace(io.Discard), ws.ErrNoFlightRecorder, "before Run")
	s := harness.Run(t, m)
	c := s.Dial(harness.Native)
	c.Sync()
	c.Abort()
	var b bytes.Buffer
	require.NoError(t, m.WriteTrace(&b))
	assert.True(t, bytes.HasPrefix(b.Bytes(), []byte("go 1.")), "%q", b.Bytes()[:min(16, b.Len())])
	s.Stop()
	require.ErrorIs(t, m.WriteTrace(io.Discard), ws.ErrNoFlightRecorder, "after Run")
	assert.False(t, r.Enabled())
}

// A recorder of the application goes on when the manager ends.
func TestWriteTraceOfTheApplication(t *testing.T) {
	r := newRecorder(t)
	require.NoError(t, r.Start())
	s := harness.Start(t, ws.WithFlightRecorder(r))
	var b bytes.Buffer
	require.NoError(t, s.WriteTrace(&b))
	assert.NotZero(t, b.Len())
	s.Stop()
	assert.True(t, r.Enabled())
}

// A manager runs without its recorder if another one runs.
func TestWriteTraceBesideAnother(t *testing.T) {
	require.NoError(t, newRecorder(t).Start())
	log := new(harness.Buffer)
	s := harness.Start(t, ws.WithFlightRecorder(newRecorder(t)),
		ws.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	require.ErrorIs(t, s.WriteTrace(io.Discard), ws.ErrNoFlightRecorder)
	assert.True(t, harness.ContainsLine(log.String(), "level=WARN", "flight recorder not started", "error="), log.String())
}

// Without a recorder there is no trace.
func TestWriteTraceWithout(t *testing.T) {
	s := harness.Start(t)
	require.ErrorIs(t, s.WriteTrace(io.Discard), ws.ErrNoFlightRecorder)
}
