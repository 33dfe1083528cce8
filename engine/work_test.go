package engine_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/engine"
)

// Callbacks within each other count once, and a gap counts up to maxGap.
func TestLoopWork(t *testing.T) {
	w := engine.NewLoopWork()
	at := engine.Monotonic()
	w.BeginAt(at)
	first := w.Total()
	assert.GreaterOrEqual(t, first, engine.MaxGap, "before the first callback")
	assert.Equal(t, at, w.Running())
	w.Begin()
	w.BeginAt(at + time.Hour)
	w.End()
	w.End()
	assert.Equal(t, at, w.Running(), "the outermost one")
	w.End()
	assert.Zero(t, w.Running())
	idle := w.Total()
	assert.GreaterOrEqual(t, idle, first)
	<-time.After(10 * time.Millisecond)
	assert.Equal(t, idle, w.Total(), "grows while idle")
	began := time.Now()
	w.Begin()
	got := w.Total()
	assert.GreaterOrEqual(t, got, idle+engine.MaxGap)
	assert.LessOrEqual(t, got, idle+engine.MaxGap+time.Since(began), "the gap counts up to maxGap")
	<-time.After(10 * time.Millisecond)
	assert.GreaterOrEqual(t, w.Total(), idle+10*time.Millisecond, "the running callback counts")
}

// The total never goes back, whenever it is read.
func TestLoopWorkGrows(t *testing.T) {
	w := engine.NewLoopWork()
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for last := time.Duration(0); ; {
				select {
				case <-done:
					return
				default:
				}
				total := w.Total()
				if total < last {
					assert.Failf(t, "the total goes back", "from %v to %v", last, total)
					return
				}
				last = total
			}
		})
	}
	for began := time.Now(); time.Since(began) < 200*time.Millisecond; {
		w.Begin()
		w.End()
	}
	close(done)
	readers.Wait()
}

func BenchmarkLoopWork(b *testing.B) {
	w := engine.NewLoopWork()
	b.ReportAllocs()
	for b.Loop() {
		w.Begin()
		w.End()
	}
}
