package engine_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/engine"
)

func TestRingIsBounded(t *testing.T) {
	r := engine.NewRing[int](5)
	require.Equal(t, 8, r.Cap(), "rounded up to a power of two")
	for i := range r.Cap() {
		require.True(t, r.Acquire())
		require.EqualValues(t, i, r.Put(i))
	}
	assert.False(t, r.Acquire())
	assert.Equal(t, 8, r.Len())
	v, ok := r.Pop()
	assert.True(t, ok)
	assert.Zero(t, v)
	assert.False(t, r.Acquire(), "a popped place is free only after its credit came back")
	r.Restore(1)
	assert.True(t, r.Acquire())
}

func TestRingPopOfNothing(t *testing.T) {
	r := engine.NewRing[*int](4)
	v, ok := r.Pop()
	assert.False(t, ok)
	assert.Nil(t, v)
}

// TestRingKeepsEachProducersOrder runs producers against one consumer through
// many wraps of a small ring: nothing is lost, doubled or out of order.
func TestRingKeepsEachProducersOrder(t *testing.T) {
	const producers, each = 8, 20_000
	type item struct{ producer, n int }
	r := engine.NewRing[item](16)
	var running sync.WaitGroup
	for p := range producers {
		running.Go(func() {
			for n := range each {
				for !r.Acquire() {
					runtime.Gosched()
				}
				r.Put(item{p, n})
			}
		})
	}
	var next [producers]int
	for got := 0; got < producers*each; {
		v, ok := r.Pop()
		if !ok {
			runtime.Gosched()
			continue
		}
		require.Equal(t, next[v.producer], v.n)
		next[v.producer]++
		r.Restore(1)
		got++
	}
	running.Wait()
	_, ok := r.Pop()
	assert.False(t, ok)
	assert.Zero(t, r.Len())
}

func BenchmarkRing(b *testing.B) {
	for _, producers := range []int{1, 4} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			r := engine.NewRing[*int](1024)
			v := new(int)
			stop := make(chan struct{})
			var running sync.WaitGroup
			for range producers {
				running.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if r.Acquire() {
							r.Put(v)
						} else {
							runtime.Gosched()
						}
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				for {
					if _, ok := r.Pop(); ok {
						break
					}
					runtime.Gosched()
				}
				r.Restore(1)
			}
			close(stop)
			running.Wait()
		})
	}
}
