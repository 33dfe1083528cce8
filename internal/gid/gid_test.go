package gid_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/gid"
)

func TestCurrentIsStableAcrossStackGrowth(t *testing.T) {
	before := gid.Current()
	require.NotZero(t, before)
	assert.Equal(t, before, deep(512))
}

// deep calls itself until the goroutine's stack has moved several times.
func deep(n int) uintptr {
	var pad [256]byte
	if n == 0 {
		return gid.Current() + uintptr(pad[0])
	}
	return deep(n-1) + uintptr(pad[n%len(pad)])
}

func TestCurrentDiffersBetweenLivingGoroutines(t *testing.T) {
	const goroutines = 64
	var (
		mu   sync.Mutex
		seen = map[uintptr]bool{gid.Current(): true}
		here sync.WaitGroup
		all  sync.WaitGroup
	)
	release := make(chan struct{})
	here.Add(goroutines)
	for range goroutines {
		all.Go(func() {
			mu.Lock()
			seen[gid.Current()] = true
			mu.Unlock()
			here.Done()
			<-release
		})
	}
	here.Wait()
	close(release)
	all.Wait()
	assert.Len(t, seen, goroutines+1)
}

func BenchmarkCurrent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = gid.Current()
	}
}
