package integration_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// A message to a user takes one place in the ring of each event loop, however many
// devices the user has, also from an inline handler.
func TestFlowUserOfManyDevices(t *testing.T) {
	const devices, messages = 300, 20
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithHandlerMode(ws.Inline), ws.WithAuthenticate(harness.ByQuery),
			func(c *ws.Config) { c.Broadcast.QueueSize = 8 })
		s.HandleRaw(func(_ *ws.Client, _ ws.Opcode, p []byte) {
			for i := range messages {
				assert.NoError(t, s.BroadcastToUser(7, []byte(strconv.Itoa(i))))
			}
		})
		var all []*harness.Client
		for range devices {
			all = append(all, s.Dial(w, "user=7"))
		}
		s.Dial(w).Send("go")
		for _, c := range all {
			for i := range messages {
				c.Expect(strconv.Itoa(i))
			}
		}
		assert.Zero(t, s.Stats().Total.Drops)
	})
}

// Behind a held loop a publish to a user takes one timeout, and nobody gets it.
func TestFlowUserBehindAHeldLoop(t *testing.T) {
	const devices, timeout = 50, 100 * time.Millisecond
	s := harness.Start(t, harness.OneBlockingLoop, ws.WithAuthenticate(harness.ByQuery), func(c *ws.Config) {
		c.Broadcast.QueueSize, c.Broadcast.Timeout = 4, timeout
	})
	var all []*harness.Client
	for range devices {
		all = append(all, s.Dial(harness.Native, "user=7"))
	}
	release := s.BlockLoop(s.Dial(harness.Native))
	for i := range 4 {
		require.NoError(t, s.BroadcastToUser(7, []byte(strconv.Itoa(i))))
	}
	began := time.Now()
	require.ErrorIs(t, s.BroadcastToUser(7, []byte("nobody")), ws.ErrBroadcastTimeout)
	_, err := s.PublishToUser("7", []byte("nobody"))
	require.ErrorIs(t, err, ws.ErrBroadcastTimeout)
	assert.Less(t, time.Since(began), devices*timeout, "a timeout for each device would be twice as long")
	release()
	for _, c := range all {
		c.Expect("0", "1", "2", "3")
	}
	report, err := s.PublishToUser("7", []byte("last"), ws.HighPriority())
	require.NoError(t, err)
	require.NoError(t, report.Wait(t.Context()))
	assert.Equal(t, devices, report.Queued())
	for _, c := range all {
		c.Expect("last")
	}
	report, err = s.PublishToUser("8", []byte("no device"))
	require.NoError(t, err)
	require.NoError(t, report.Wait(t.Context()))
	assert.Zero(t, report.Queued())
}

// An answer fits behind whatever its own handler has sent, and no bound skips it.
func TestFlowAnswerBehindAFullQueue(t *testing.T) {
	harness.OnEachTransportAndMode(t, func(t *testing.T, _ ws.HandlerMode, start func(...ws.Option) *harness.Endpoint) {
		s := start(ws.WithMessageQueueSize(4))
		require.NoError(t, ws.Handle0(s.Manager, "fill", func(c *ws.Client, _ *ordered) error {
			for c.SendBytes(make([]byte, 64<<10)) == nil {
			}
			return nil
		}))
		c := s.Connect()
		const requests = 3
		wait := c.WriteInBackground(burstOf("fill", requests))
		harness.Eventually(t, func() bool { return s.Stats().Total.Drops.Full > 0 }, "the queue does not fill")
		for i := 0; i < requests; {
			f := c.Next()
			if f.Payload[0] == '{' {
				require.Contains(t, string(f.Payload), `"request_id":"`+strconv.Itoa(i)+`"`)
				i++
			}
		}
		wait()
	})
}
