package ws_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
)

func TestRetryReason(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       `{"retry_ms":0}`,
		1840 * time.Millisecond: `{"retry_ms":1840}`,
		time.Microsecond:        `{"retry_ms":0}`,
		-time.Second:            `{"retry_ms":0}`,
	} {
		assert.Equal(t, want, ws.RetryReason(d))
	}
	assert.LessOrEqual(t, len(ws.RetryReason(math.MaxInt64)), 123, "the space of a close reason")
}

// TestRetryWithin looks at the spread of 1,000 reasons.
func TestRetryWithin(t *testing.T) {
	least, most := 1000, 0
	for range 1000 {
		var reason struct {
			RetryMS int `json:"retry_ms"`
		}
		require.NoError(t, json.Unmarshal([]byte(ws.RetryWithin(time.Second)), &reason))
		require.True(t, reason.RetryMS >= 0 && reason.RetryMS <= 1000, "%d", reason.RetryMS)
		least, most = min(least, reason.RetryMS), max(most, reason.RetryMS)
	}
	assert.Less(t, least, 100)
	assert.Greater(t, most, 900)
	assert.Equal(t, `{"retry_ms":0}`, ws.RetryWithin(-time.Second))
}
