//go:build linux

package workload

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/command"
)

func TestSlope(t *testing.T) {
	x, y := []float64{1000, 2000, 5000}, []float64{700_000, 1_300_000, 3_100_000}
	assert.InDelta(t, 600, slope(x, y), 1e-6)
	assert.InDelta(t, 600, ends(x, y), 1e-6)
}

// Commands that take long are run with small counts above: here with their own.
func TestDefaultSteps(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := command.NewSession()
	_, err := NewIdleRun().Run(ctx, &s)
	require.ErrorIs(t, err, context.Canceled)
}
