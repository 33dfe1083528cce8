package cluster_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/cluster"
)

func TestQueueBounds(t *testing.T) {
	q := cluster.NewQueue[int](100)
	require.True(t, q.Reserve(60))
	assert.False(t, q.Reserve(41))
	assert.True(t, q.Full())
	assert.False(t, q.Reserve(1), "space, but more than half is used")
	q.Release(10)
	assert.True(t, q.Reserve(50), "half was free")
	assert.EqualValues(t, 100, q.Bytes())
	q.Release(100)
	assert.True(t, q.Reserve(1000), "an empty queue takes one item of any size")
	assert.False(t, q.Reserve(1))
}

func TestQueueEnds(t *testing.T) {
	q := cluster.NewQueue[int](100)
	require.True(t, q.Reserve(1))
	q.Close()
	assert.False(t, q.Reserve(1))
	assert.False(t, q.Ended(), "a producer has yet to push")
	q.Push(7)
	item, ok := q.Pop()
	require.True(t, ok)
	assert.Equal(t, 7, item)
	assert.False(t, q.Ended(), "the item is not sent")
	<-q.Ready()
	q.Release(1)
	<-q.Ready()
	assert.True(t, q.Ended())
}

// TestQueueAgainstSlice compares random operations with those of a slice.
func TestQueueAgainstSlice(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	q := cluster.NewQueue[int](1 << 40)
	var want []int
	next := 0
	for range 100_000 {
		if rng.IntN(100) < 50+rng.IntN(3)-1 {
			require.True(t, q.Reserve(1))
			q.Push(next)
			want = append(want, next)
			next++
			continue
		}
		item, ok := q.Pop()
		require.Equal(t, len(want) > 0, ok)
		if ok {
			require.Equal(t, want[0], item)
			want = want[1:]
			q.Release(1)
		}
		require.EqualValues(t, len(want), q.Bytes())
	}
}
