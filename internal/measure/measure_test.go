package measure_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/measure"
)

func TestBounds(t *testing.T) {
	for name, bounds := range map[string][]float64{"times": measure.TimeBounds(), "sizes": measure.SizeBounds()} {
		assert.Len(t, bounds, measure.NumBuckets-1, name)
		assert.True(t, slices.IsSorted(bounds), name)
	}
	assert.InDelta(t, 10e-6, measure.TimeBounds()[0], 0)
	assert.InDelta(t, 10, measure.TimeBounds()[measure.NumBuckets-2], 0)
}

func TestTimes(t *testing.T) {
	var h measure.Times
	for d, bucket := range map[time.Duration]int{
		-time.Second: 0, 0: 0, 10 * time.Microsecond: 0, 10*time.Microsecond + 1: 1,
		time.Millisecond: 4, 10 * time.Second: 12, 10*time.Second + 1: 13, time.Hour: 13,
	} {
		before := h.Counts()
		h.Observe(d, 3)
		after := h.Counts()
		before.Buckets[bucket] += 3
		before.Sum += 3 * max(d, 0)
		assert.Equal(t, before, after, d)
	}
	sum, counts := measure.TimeCounts{}, h.Counts()
	sum.Add(&counts)
	sum.Add(&counts)
	assert.Equal(t, 2*counts.Sum, sum.Sum)
	assert.Equal(t, 2*counts.Buckets[13], sum.Buckets[13])
}

func TestSizes(t *testing.T) {
	var h measure.Sizes
	for n, bucket := range map[int]int{0: 0, 256: 0, 257: 1, 1 << 20: 6, 5 << 30: 13} {
		before := h.Counts()
		h.Observe(n)
		before.Buckets[bucket]++
		before.Sum += uint64(n)
		assert.Equal(t, before, h.Counts(), n)
	}
	sum, counts := measure.SizeCounts{}, h.Counts()
	sum.Add(&counts)
	assert.Equal(t, counts, sum)
}

// count returns the number of times in h.
func count(h *measure.Times) (n uint64) {
	for _, bucket := range h.Counts().Buckets {
		n += bucket
	}
	return n
}

// Few events are all measured; of many, each counts for those that are not.
func TestSampler(t *testing.T) {
	var s measure.Sampler
	var h measure.Times
	for tick := range uint32(10) {
		for range 32 {
			sample := s.Begin(tick)
			require.True(t, sample.Taken())
			h.Note(sample)
		}
	}
	require.EqualValues(t, 320, count(&h))
	const events = 1_000_000
	taken := 0
	for range events {
		if sample := s.Begin(100); sample.Taken() {
			taken++
			h.Note(sample)
		}
	}
	assert.InDelta(t, events/16, taken, events/160)
	assert.InDelta(t, events, count(&h), events/10)
}

// Messages that alternate are both measured: the choice has no fixed step.
func TestSamplerAlternating(t *testing.T) {
	var s measure.Sampler
	var taken [2]int
	for i := range 100_000 {
		if s.Begin(1).Taken() {
			taken[i%2]++
		}
	}
	assert.InDelta(t, taken[0], taken[1], float64(taken[0])/5)
}

func TestSharedSampler(t *testing.T) {
	var s measure.SharedSampler
	var h measure.Times
	for tick := range uint32(10) {
		for range 32 {
			h.Note(s.Begin(tick))
		}
	}
	require.EqualValues(t, 320, count(&h))
	const events = 250_000
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range events {
				h.Note(s.Begin(100))
			}
		})
	}
	all.Wait()
	assert.InDelta(t, 4*events+320, count(&h), 4*events/10)
}

// A sample that was noted begins anew.
func TestNote(t *testing.T) {
	var s measure.Sampler
	var first, second measure.Times
	began := time.Now()
	sample := s.Begin(0)
	time.Sleep(2 * time.Millisecond) //nolint:forbidigo // the time that is to be measured
	sample = first.Note(sample)
	second.Note(sample)
	assert.GreaterOrEqual(t, first.Counts().Sum, 2*time.Millisecond)
	assert.LessOrEqual(t, first.Counts().Sum+second.Counts().Sum, time.Since(began), "a time counts twice")
	assert.False(t, first.Note(measure.Sample{}).Taken())
	assert.EqualValues(t, 1, count(&first))
}

func TestNoAllocations(t *testing.T) {
	var s measure.Sampler
	var shared measure.SharedSampler
	var h measure.Times
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		h.Note(s.Begin(0))
		h.Note(shared.Begin(0))
	}))
}

func BenchmarkSampler(b *testing.B) {
	for name, tick := range map[string]uint32{"few": 1, "many": 0} {
		b.Run("events="+name, func(b *testing.B) {
			var s measure.Sampler
			var h measure.Times
			now := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				now += tick
				h.Note(s.Begin(now))
			}
		})
	}
}

func BenchmarkSharedSampler(b *testing.B) {
	var s measure.SharedSampler
	var h measure.Times
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.Note(s.Begin(1))
		}
	})
}
