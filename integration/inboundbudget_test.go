package integration_test

import (
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/internal/harness"
)

// Clients that send large messages and do not finish them hold no more than the
// budget and a read for each. The others are served, a large message of a client that
// goes on sending is finished.
func TestInboundBudget(t *testing.T) {
	t.Parallel()
	harness.OnEachTransport(t, func(t *testing.T, start func(opts ...ws.Option) *harness.Endpoint) {
		t.Parallel()
		const budget, clients, size = 2 << 20, 24, 400 << 10
		s := start(ws.WithInboundBudget(budget), ws.WithMessageTimeout(3*time.Second))
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) { _ = c.SendBytes(payload[:1]) })
		message := harness.Frame(gobwas.OpBinary, string(make([]byte, size)))
		unfinished := message[:len(message)-1]
		var hoarders []*harness.Client
		for range clients {
			hoarders = append(hoarders, s.Connect())
		}
		for _, c := range hoarders { // all at once: their time runs from the first byte
			c.WriteInBackground(unfinished)
		}
		harness.Eventually(t, func() bool { return s.Stats().InboundMemory > budget }, "the budget is not reached")
		harness.Eventually(t, func() bool { return s.Stats().Total.BudgetPaused > 0 }, "nobody waits for the budget")
		honest := s.Connect()
		var most int64
		for range 200 {
			honest.Send("small")
			honest.Expect("s")
			most = max(most, s.Stats().InboundMemory)
		}
		finish := honest.WriteInBackground(message)
		honest.Expect("\x00")
		finish()
		most = max(most, s.Stats().InboundMemory)
		t.Logf("%d KiB wait", most>>10)
		assert.Less(t, most, int64(budget+budget/8+clients*(16<<10)+2*(4+1)*(512<<10)))
		for _, c := range hoarders {
			_ = c.Close()
		}
		harness.Eventually(t, func() bool {
			stats := s.Stats()
			return stats.InboundMemory == 0 && stats.Total.BudgetPaused == 0
		}, "%d bytes are counted for ever", s.Stats().InboundMemory)
	})
}

// Messages that wait for workers count as well: their clients wait while the budget
// is exceeded, and all is answered.
func TestInboundBudgetOfMailboxes(t *testing.T) {
	t.Parallel()
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		const budget, clients, messages, size = 256 << 10, 10, 100, 4 << 10
		s := harness.Start(t, ws.WithInboundBudget(budget), func(c *ws.Config) { c.Workers = 2 })
		s.HandleRaw(func(c *ws.Client, _ ws.Opcode, payload []byte) {
			time.Sleep(100 * time.Microsecond) //nolint:forbidigo // a slow handler
			_ = c.SendBytes(payload[:1])
		})
		burst := ""
		for range messages {
			burst += harness.Frame(gobwas.OpBinary, string(make([]byte, size)))
		}
		var all []*harness.Client
		for range clients {
			c := s.Dial(w)
			c.WriteInBackground(burst)
			all = append(all, c)
		}
		var most int64
		for _, c := range all {
			for range messages {
				c.Expect("\x00")
				most = max(most, s.Stats().InboundMemory)
			}
		}
		assert.Less(t, most, int64(budget+clients*2*(64<<10)))
		harness.Eventually(t, func() bool { return s.Stats().InboundMemory == 0 }, "bytes are counted for ever")
		require.Equal(t, clients, s.GetClientCount())
	})
}
