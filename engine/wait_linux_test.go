package engine_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

// startWaiting runs an engine whose loops wait by themselves although the process may
// have no further processor.
func startWaiting(t *testing.T, loops int) *server {
	t.Helper()
	t.Setenv("WS_OWN_WAITS", "on")
	return start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = loops })
}

// waits returns the number of the loops' own waits.
func (s *server) waits() (n uint64) {
	for _, sh := range s.Shards() {
		n += sh.Stats().Waits
	}
	return n
}

// The eventfd is found by the way in which it is registered.
func TestFact15GnetWakesItsLoopByOneEdgeTriggeredEventFD(t *testing.T) {
	s := start(t, nil)
	for i, fd := range s.EventFDs() {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		require.NoError(t, err, "loop %d", i)
		assert.Equal(t, "anon_inode:[eventfd]", link, "loop %d", i)
	}
}

func TestOwnWaits(t *testing.T) {
	for _, setting := range []string{"on", "off"} {
		t.Run(setting, func(t *testing.T) {
			t.Setenv("WS_OWN_WAITS", setting)
			s := start(t, func(cfg *engine.Config, _ *server) { cfg.Loops = 1 })
			c := s.dial()
			if setting == "off" {
				for range 2000 {
					c.echo()
				}
				assert.Zero(t, s.waits())
				return
			}
			for deadline := time.Now().Add(patience); s.waits() < 100; c.echo() {
				require.True(t, time.Now().Before(deadline), "%d waits", s.waits())
			}
		})
	}
}

// A task that is posted while a loop begins or ends a wait of its own runs.
func TestOwnWaitsMissNoPost(t *testing.T) {
	s := startWaiting(t, 2)
	end := time.Now().Add(2 * time.Second)
	var posters sync.WaitGroup
	for i := range 3 {
		posters.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for n := 0; time.Now().Before(end); n++ {
				ran := make(chan struct{})
				s.Shards()[random.IntN(2)].Post(taskFunc(func(*engine.Shard) { close(ran) }))
				select {
				case <-ran:
				case <-time.After(patience):
					t.Errorf("task %d of poster %d did not run", n, i)
					return
				}
				// Busy: a timer would come too late for the end of a wait.
				for until := time.Now().Add(time.Duration(random.IntN(3)) * 500 * time.Microsecond); time.Now().Before(until); {
				}
			}
		})
	}
	posters.Wait()
	assert.NotZero(t, s.waits())
}

// Tasks of gnet itself, such as those of Enroll and Stop, come to a loop that posts keep
// in a wait of its own.
func TestOwnWaitsLeaveTheTasksOfGnet(t *testing.T) {
	s := startWaiting(t, 1)
	stop := make(chan struct{})
	var posting sync.WaitGroup
	posting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s.Shards()[0].Post(taskFunc(func(*engine.Shard) {}))
			for until := time.Now().Add(100 * time.Microsecond); time.Now().Before(until); {
			}
		}
	})
	require.Eventually(t, func() bool { return s.waits() > 100 }, patience, time.Millisecond)
	for range 20 {
		s.enroll("tcp", "127.0.0.1:0")
	}
	s.shutdown()
	close(stop)
	posting.Wait()
}
