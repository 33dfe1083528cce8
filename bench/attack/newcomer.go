//go:build linux

package attack

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/qi-realtime/ws/bench/result"
)

// newcomerInterval is the time between healthy clients that connect beside an
// attack.
const newcomerInterval = 100 * time.Millisecond

// newcomers connect at fixed times, send one request, and leave. Safe for
// concurrent use.
type newcomers struct {
	stop chan struct{}
	wg   sync.WaitGroup
	left atomic.Int64 // under way

	mu      sync.Mutex
	took    [numPhases]result.Histogram // guarded by mu, as the fields below
	came    int
	refused map[string]int
}

// newNewcomers starts the newcomers; end stops them. phase returns the present
// phase.
func newNewcomers(ctx context.Context, d dialer, phase func() int32) *newcomers {
	n := &newcomers{stop: make(chan struct{}), refused: make(map[string]int)}
	for i := range n.took {
		n.took[i] = result.NewHistogram()
	}
	n.wg.Go(func() { // ends with end
		every := time.NewTicker(newcomerInterval)
		defer every.Stop()
		for {
			select {
			case <-n.stop:
				return
			case <-every.C:
				now := phase()
				n.left.Add(1)
				n.wg.Go(func() { n.come(ctx, d, now) }) // bounded by healthyLimit
			}
		}
	})
	return n
}

// end lets no more come and waits for those that are under way.
func (n *newcomers) end() {
	close(n.stop)
	n.wg.Wait()
}

func (n *newcomers) come(ctx context.Context, d dialer, phase int32) {
	defer n.left.Add(-1)
	began := time.Now()
	c, err := d.dial(ctx)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(began.Add(healthyLimit))
		err = c.exchange(requestFrame("noop", "1", `{}`))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came++
	if err != nil {
		n.refused[cause(err)]++
		return
	}
	n.took[phase].Record(int64(time.Since(began)))
}

// refusals is how many got no answer.
func (n *newcomers) refusals() (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, count := range n.refused {
		sum += count
	}
	return sum
}
