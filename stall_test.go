package ws_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// An inline handler that blocks is a stall, with its event and stack, on each way. A pooled one
// is none.
func TestStallsOfHandlers(t *testing.T) {
	const threshold = time.Second // a busy machine holds a callback for less
	harness.OnEachTransportAndMode(t, func(t *testing.T, mode ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		t.Parallel()
		log, stalls := new(harness.Buffer), make(chan ws.Stall, 10)
		s := start(ws.WithLoopStallThreshold(threshold), ws.WithOnStall(func(st ws.Stall) { stalls <- st }),
			ws.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		entered, release := harness.RegisterBlock(t, s.Manager)
		c := s.Connect()
		c.Send(harness.BlockMessage(1))
		harness.Receive(t, entered, "the handler did not run")
		if mode == ws.Inline {
			st := harness.Receive(t, stalls, "no stall is reported")
			assert.Equal(t, "block", st.Event)
			assert.GreaterOrEqual(t, st.Held, threshold)
			assert.Contains(t, st.Stack, "harness.RegisterBlock")
			assert.EqualValues(t, 1, s.Stats().Loops[st.Loop].Stalls)
			assert.EqualValues(t, 1, s.Stats().Total.Stalls)
			assert.True(t, harness.ContainsLine(log.String(), "level=WARN", "event loop is held", "event=block",
				"harness.RegisterBlock"), log.String())
		} else {
			<-time.After(3 * threshold)
			assert.Zero(t, s.Stats().Total.Stalls)
			assert.NotContains(t, log.String(), "event loop")
		}
		release()
		c.ExpectReply("1", 200, "success")
		assert.Empty(t, stalls)
		assert.LessOrEqual(t, strings.Count(log.String(), "event loop"), 1)
	})
}

// OnStall may block and panic, and may call Shutdown, which ends with the handler.
func TestOnStallMayDoAnything(t *testing.T) {
	log, called, released := new(harness.Buffer), make(chan struct{}), make(chan struct{})
	var m *ws.Manager
	m = harness.NewManager(t, ws.WithLoopStallThreshold(time.Second), ws.WithHandlerMode(ws.Inline),
		ws.WithLogger(slog.New(slog.NewTextHandler(log, nil))), ws.WithOnStall(func(ws.Stall) {
			close(released)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second) // the client does not answer
			defer cancel()
			_ = m.Shutdown(ctx)
			close(called)
			panic("OnStall panics")
		}))
	require.NoError(t, m.Register("block", func(*ws.Client, *ws.Message) error { <-released; return nil }))
	s := harness.Run(t, m)
	s.Dial(harness.Native).Send(harness.BlockMessage(1))
	harness.Receive(t, called, "Shutdown did not return")
	s.Stop()
	assert.True(t, harness.ContainsLine(log.String(), "level=ERROR", "panic recovered", "OnStall panics"), log.String())
}

// A loop that is held for ever shows as busy.
func TestHeldLoopIsBusy(t *testing.T) {
	s := harness.Start(t, harness.OneBlockingLoop)
	idle := s.Stats().Loops[0].Busy
	require.Less(t, idle, time.Minute)
	release := s.BlockLoop(s.Dial(harness.Native))
	began, before := time.Now(), s.Stats().Loops[0].Busy
	harness.Eventually(t, func() bool { return s.Stats().Loops[0].Busy > before+200*time.Millisecond },
		"a held loop does not work")
	assert.LessOrEqual(t, s.Stats().Loops[0].Busy-before, time.Since(began))
	release()
}
