package engine_test

import (
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

func TestRunReportsItsSecondCall(t *testing.T) {
	s := start(t, nil)
	require.ErrorIs(t, s.Run(), engine.ErrRunning)
}

func TestStopBeforeRun(t *testing.T) {
	e := engine.New(testConfig(), &server{t: t}, &server{t: t})
	require.NoError(t, e.Stop(t.Context(), codec.CloseGoingAway, ""))
	require.NoError(t, e.Run())
	require.True(t, errors.Is(engine.ErrClosed, net.ErrClosed))
}
