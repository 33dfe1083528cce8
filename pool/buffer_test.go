package pool_test

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/invariants"
	"github.com/qi-realtime/ws/pool"
)

func TestGetBufferIsEmpty(t *testing.T) {
	for range 100 {
		b := pool.GetBuffer()
		require.Empty(t, b.B)
		b.B = append(b.B, "some bytes"...)
		pool.PutBuffer(b)
	}
}

// GetBuffer never returns a larger buffer than PutBuffer keeps.
func TestPutBufferDropsLargeOnes(t *testing.T) {
	// A garbage collection would empty the pool and hide a large buffer.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, size := range []int{1, pool.MaxPooledBytes, pool.MaxPooledBytes + 1, 1 << 20} {
		for range 10 {
			b := pool.GetBuffer()
			assert.LessOrEqual(t, cap(b.B), pool.MaxPooledBytes)
			b.B = make([]byte, size)
			pool.PutBuffer(b)
		}
	}
}

func TestInvariants(t *testing.T) {
	if !invariants.Enabled {
		t.Skip("needs the build tag invariants")
	}
	t.Run("poison", func(t *testing.T) {
		b := pool.GetBuffer()
		b.B = append(make([]byte, 0, 64), "secret"...)
		kept := b.B[:cap(b.B)]
		pool.PutBuffer(b)
		assert.Equal(t, bytes.Repeat([]byte{invariants.PoisonByte}, 64), kept)
	})
	t.Run("double release", func(t *testing.T) {
		b := pool.GetBuffer()
		pool.PutBuffer(b)
		assert.Panics(t, func() { pool.PutBuffer(b) })
	})
	t.Run("double release of a large one", func(t *testing.T) {
		b := pool.GetBuffer()
		b.B = make([]byte, pool.MaxPooledBytes+1)
		pool.PutBuffer(b)
		assert.Panics(t, func() { pool.PutBuffer(b) })
	})
	t.Run("foreign buffer", func(t *testing.T) {
		assert.Panics(t, func() { pool.PutBuffer(&pool.Buffer{}) })
	})
}

// No two goroutines hold the same buffer.
func TestBufferConcurrent(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(g)}, 100)
			for range 1000 {
				b := pool.GetBuffer()
				b.B = append(b.B, want...)
				assert.Equal(t, want, b.B)
				pool.PutBuffer(b)
			}
		})
	}
	wg.Wait()
}

func BenchmarkBuffer(b *testing.B) {
	for _, size := range []int{128, 4096} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			payload := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				buf := pool.GetBuffer()
				buf.B = append(buf.B, payload...)
				pool.PutBuffer(buf)
			}
		})
	}
}
