package engine_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// threadTimes returns the time in which a thread of this process has run, and in which it has
// waited for a processor.
func threadTimes(t testing.TB, tid int) (ran, waited time.Duration) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
	must(t, err)
	_, err = fmt.Sscan(string(text), (*int64)(&ran), (*int64)(&waited))
	must(t, err)
	return ran, waited
}

// The busy time of a loop under load is the time of its thread, within 10 %. The time in which the
// thread waits for a processor may count or not: the loop waits with it, but only in a callback or
// a short gap does the measurement notice.
func TestBusyIsTheTimeOfTheThread(t *testing.T) {
	t.Setenv("WS_OWN_WAITS", "off") // of own waits up to 20 µs each count as work: busy is up to a third more here
	pin := func(cfg *engine.Config, s *server) (tid chan int) {
		cfg.Loops = 1
		tid = make(chan int, 1)
		s.onOpen = func(*peer) {
			runtime.LockOSThread() // until the loop ends
			select {
			case tid <- unix.Gettid():
			default:
			}
		}
		s.onMessage = func(p *peer, op codec.Opcode, payload []byte) {
			_ = p.conn.Send(engine.NewFrame(op, payload, engine.Handling{}))
		}
		return tid
	}
	t.Run("gnet", func(t *testing.T) {
		var tid chan int
		s := start(t, func(cfg *engine.Config, s *server) { tid = pin(cfg, s) })
		clients := []*client{s.dial(), s.dial(), s.dial(), s.dial()}
		checkBusy(t, s.Shards()[0], <-tid, func(end time.Time) {
			var all sync.WaitGroup
			for _, c := range clients {
				all.Go(func() {
					for time.Now().Before(end) {
						c.echo()
					}
				})
			}
			all.Wait()
		})
	})
	t.Run("simnet", func(t *testing.T) {
		var tid chan int
		m := startSimnet(t, func(cfg *engine.Config, s *server) { tid = pin(cfg, s) })
		m.connect(1)
		checkBusy(t, m.Shards()[0], <-tid, func(end time.Time) {
			// Many at once, so that the loop works and seldom waits: a short wait counts as work.
			messages := bytes.Repeat([]byte(frame(gobwas.OpText, "message")), 500)
			for time.Now().Before(end) {
				m.Send(0, messages)
				m.take(0)
			}
		})
	})
}

// checkBusy compares the busy time of a loop with the times of its thread during load, until they
// agree in one period: a virtual processor that its host takes away counts for neither time of the
// thread, and other processes may leave the thread too little to compare.
func checkBusy(t *testing.T, loop *engine.Shard, tid int, load func(end time.Time)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ran, waited := threadTimes(t, tid)
		busy := loop.Stats().Busy
		load(time.Now().Add(2 * time.Second))
		ranUntil, waitedUntil := threadTimes(t, tid)
		busy = loop.Stats().Busy - busy
		ran, waited = ranUntil-ran, waitedUntil-waited
		t.Logf("busy %v, ran %v, waited for a processor %v", busy, ran, waited)
		if ran > 100*time.Millisecond && busy >= ran*9/10 && busy <= (ran+waited)*11/10 {
			return
		}
		require.True(t, time.Now().Before(deadline), "the busy time is never the time of the thread")
	}
}
