package cluster_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/qi-realtime/ws/internal/cluster"
)

// TestFlightsWaits holds that Wait waits for the calls that have begun before it, on either side, and not for
// later ones.
func TestFlightsWaits(t *testing.T) {
	for turns := range 3 {
		synctest.Test(t, func(t *testing.T) {
			var f cluster.Flights
			for range turns {
				assert.True(t, f.Wait(nil))
			}
			first := f.Begin()
			done := make(chan bool, 1)
			go func() { done <- f.Wait(nil) }()
			<-time.After(time.Second)
			second := f.Begin()
			<-time.After(time.Second)
			assert.Empty(t, done)
			f.End(first)
			assert.True(t, <-done)
			f.End(second)
		})
	}
}

// TestFlightsEnds holds that the end of the owner ends the wait.
func TestFlightsEnds(t *testing.T) {
	var f cluster.Flights
	f.Begin()
	ending := make(chan struct{})
	close(ending)
	assert.False(t, f.Wait(ending))
}

// TestFlightsOfManyCalls holds that all that was done in calls before Wait is done when it returns.
func TestFlightsOfManyCalls(t *testing.T) {
	var f cluster.Flights
	var group sync.WaitGroup
	var begun, ended [4]atomic.Int64
	stop := make(chan struct{})
	for i := range begun {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				side := f.Begin()
				begun[i].Add(1)
				runtime.Gosched()
				ended[i].Add(1)
				f.End(side)
			}
		})
	}
	for range 50 {
		var before [len(begun)]int64
		for i := range begun {
			before[i] = begun[i].Load()
		}
		assert.True(t, f.Wait(nil))
		for i := range begun {
			assert.GreaterOrEqual(t, ended[i].Load(), before[i])
		}
	}
	close(stop)
	group.Wait()
}
