package client_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws"
	"github.com/qi-realtime/ws/client"
	"github.com/qi-realtime/ws/internal/harness"
)

// TestRepeatsRunOnce sends idempotent requests of two clients of one user over a network with
// faults: each is handled once, and answered with the first answer.
func TestRepeatsRunOnce(t *testing.T) {
	harness.OnBothWays(t, func(t *testing.T, w harness.Way) {
		s := harness.Start(t, ws.WithIdempotency(10*time.Minute), ws.WithAuthenticate(harness.ByQuery))
		var mu sync.Mutex
		runs := make(map[int]int) // guarded by mu
		require.NoError(t, ws.Handle(s.Manager, "count", func(_ *ws.Client, n *int) (*int, error) {
			mu.Lock()
			defer mu.Unlock()
			runs[*n]++
			sum := len(runs)
			return &sum, nil
		}))
		proxy := newCutter(t, s.AddrOf(w), 9)
		proxy.setRate(0.05)
		requests := harness.FewerUnderRace(200)
		var users sync.WaitGroup
		var answers sync.Map // each answer is another number
		for i := range 2 {
			c := newClient(t, "ws://"+proxy.addr()+"/ws?user=7")
			require.NoError(t, c.Connect(within(t)))
			users.Go(func() {
				for j := range requests {
					sum, err := client.Request[int](within(t), c, "count", 2*j+i, client.Idempotent())
					assert.NoError(t, err)
					_, twice := answers.LoadOrStore(sum, true)
					assert.False(t, twice, "two requests have the answer %d", sum)
				}
			})
		}
		users.Wait()
		t.Logf("%d faults", proxy.count())
		mu.Lock()
		defer mu.Unlock()
		assert.Len(t, runs, 2*requests)
		for n, times := range runs {
			assert.Equal(t, 1, times, "runs of request %d", n)
		}
	})
}
