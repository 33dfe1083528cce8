package presence_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/presence"
)

// TestDiffsBetween holds that the messages between two versions are all there, or none.
func TestDiffsBetween(t *testing.T) {
	var d presence.Diffs[uint64]
	between := func(has, now uint64) []uint64 {
		messages, ok := d.Between(has, now)
		if !ok {
			require.Empty(t, messages)
			return []uint64{math.MaxUint64}
		}
		return messages
	}
	none := []uint64{math.MaxUint64}
	assert.Empty(t, between(7, 7), "nothing is missing")
	assert.Equal(t, none, between(6, 7))
	for version := range uint64(3) {
		d.Add(5+version, 5+version, 100, 100)
	}
	assert.Equal(t, []uint64{5, 6, 7}, between(4, 7))
	assert.Equal(t, []uint64{7}, between(6, 7))
	assert.Empty(t, between(7, 7))
	assert.Equal(t, none, between(3, 7), "too old")
	assert.Equal(t, none, between(0, 7))
	assert.Equal(t, none, between(8, 7), "beyond the newest")
	assert.Equal(t, none, between(math.MaxUint64, 7))
	assert.Equal(t, none, between(7, 8), "the newest came by other means")
	d.Add(9, 9, 100, 100)
	assert.Equal(t, none, between(7, 9))
	assert.Equal(t, []uint64{9}, between(8, 9))
}

// TestDiffsAreBounded holds that the kept messages have bounds, and that each message between is
// returned at random bounds.
func TestDiffsAreBounded(t *testing.T) {
	var d presence.Diffs[uint64]
	rng := rand.New(rand.NewPCG(1, 2))
	for version := uint64(1); version < 3000; version++ {
		users := rng.IntN(3000)
		d.Add(version, version, 1+rng.IntN(1000), users)
		first := version
		for messages, ok := d.Between(first, version); ok; messages, ok = d.Between(first, version) {
			for i, message := range messages {
				require.Equal(t, first+uint64(i)+1, message)
			}
			require.Len(t, messages, int(version-first))
			first--
		}
		require.LessOrEqual(t, version-first, uint64(129))
	}
	d.Add(3000, 3000, 24*100+512, 100)
	_, ok := d.Between(2999, 3000)
	assert.True(t, ok, "as large as the list")
	d.Add(3001, 3001, 24*100+513, 100)
	_, ok = d.Between(3000, 3001)
	assert.False(t, ok, "larger than the list")
	d.Add(3002, 3002, 64<<10+1, 100_000)
	_, ok = d.Between(3001, 3002)
	assert.False(t, ok, "larger than the bound")
}
