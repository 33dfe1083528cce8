//go:build heavy && linux

package integration_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// A client with the default options of both sides stops reading for 40 s while
// 400 quotes a second are published.
func TestScenarioHeavyPricesAfterFortySeconds(t *testing.T) {
	var log slowLog
	s := harness.Start(t, ws.WithOverflowPolicy(ws.DropOldest), func(c *ws.Config) {
		c.HighWaterAge = ws.DefaultConfig().HighWaterAge
	}, log.options())
	e := &exchange{Server: s, ttl: 2 * time.Second, symbols: 20}
	c, window := dialNarrow(s, harness.Native, nil, 0)
	sc := onlyClient(s)
	end := time.Now().Add(40 * time.Second)
	e.run(time.Second/400, func() bool { return time.Now().After(end) })
	total := s.Stats().Total
	stale := e.expired(time.Now())
	require.NoError(t, sc.Send(quote(lastQuote), ws.Binary()))
	all, old, oldest := 0, 0, time.Duration(0)
	for {
		n := binary.BigEndian.Uint64(c.Next().Payload)
		if n == lastQuote {
			break
		}
		if n < stale {
			old++
		}
		all++
		oldest = max(oldest, time.Since(e.published[n]))
	}
	t.Logf("published %d, read %d, older than their TTL %d (%d bytes), the oldest %v; slow %d, oldest wait %v, drops %+v",
		len(e.published), all, old, old*quoteFrame, oldest.Round(time.Millisecond), total.Slow, total.OldestWait, total.Drops)
	assert.LessOrEqual(t, old*quoteFrame, window+ws.DefaultConfig().UnsentBytes+segment)
	assert.Equal(t, 1, total.Slow)
	assert.Equal(t, "slow "+sc.ID, harness.Receive(t, log.calls, "no OnSlow"))
}
