package ws_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestAdmission asserts that a storm is taken in at the pace that is set, and
// that nobody is refused.
func TestAdmission(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithAdmission(ws.Admission{PerSecond: 200, Burst: 10}))
		const n = 60
		began := time.Now()
		var storm sync.WaitGroup
		for range n {
			storm.Go(func() {
				_, err := s.TryDial(w)
				assert.NoError(t, err)
			})
		}
		storm.Wait()
		require.GreaterOrEqual(t, time.Since(began), (n-10)*time.Second/200)
		harness.Eventually(t, func() bool { return s.Stats().Clients == n }, "clients")
		st := s.Stats().Accept
		assert.EqualValues(t, 1, st.Pace.Times)
		assert.Positive(t, st.Pace.Time)
		assert.Zero(t, st.Descriptors)
		harness.Eventually(t, func() bool { st := s.Stats().Accept; return !st.Pace.Resting && st.Upgrades == 0 },
			"somebody waits")
	})
}

// TestAdmissionWithinHandshakeTimeout asserts that HandleUpgrade refuses when it
// has waited for HandshakeTimeout, and only then.
func TestAdmissionWithinHandshakeTimeout(t *testing.T) {
	s := harness.Start(t, ws.WithAdmission(ws.Admission{PerSecond: 0.001}), func(c *ws.Config) {
		c.HandshakeTimeout = 300 * time.Millisecond
	})
	s.Dial(harness.NetHTTP)
	require.NoError(t, harness.Receive(t, s.Upgrades, "HandleUpgrade"))
	began := time.Now()
	_, err := s.TryDial(harness.NetHTTP)
	require.ErrorContains(t, err, "503")
	require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
	var refusal *ws.HandshakeError
	require.ErrorAs(t, harness.Receive(t, s.Upgrades, "HandleUpgrade"), &refusal)
	require.Equal(t, http.StatusServiceUnavailable, refusal.Status)
}
