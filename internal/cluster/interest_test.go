package cluster_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/cluster"
)

const delay = 2 * time.Second

func TestInterestDebounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := cluster.NewInterest[string](delay)
		next := func() (add, remove []string, wait time.Duration) { return i.Next(10) }
		i.Add("a")
		<-i.Ready()
		add, remove, wait := next()
		assert.Equal(t, []string{"a"}, add)
		assert.Empty(t, remove)
		assert.Negative(t, wait)
		i.Remove("a")
		<-i.Ready()
		_, _, wait = next()
		assert.Equal(t, delay, wait)
		<-time.After(delay - 1)
		i.Add("a") // in time
		<-time.After(1)
		add, remove, wait = next()
		assert.Empty(t, add)
		assert.Empty(t, remove)
		assert.Negative(t, wait)
		i.Remove("a")
		<-time.After(delay)
		add, remove, wait = next()
		assert.Empty(t, add)
		assert.Equal(t, []string{"a"}, remove)
		assert.Negative(t, wait)
		assert.Zero(t, i.Len())
	})
}

// TestInterestForAMoment holds that a topic which nobody wants any more is not subscribed to.
func TestInterestForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := cluster.NewInterest[string](delay)
		i.Add("a")
		i.Remove("a")
		add, _, wait := i.Next(10)
		assert.Empty(t, add)
		assert.Equal(t, delay, wait)
		<-time.After(delay)
		add, remove, _ := i.Next(10)
		assert.Empty(t, add)
		assert.Empty(t, remove)
		assert.Zero(t, i.Len())
	})
}

// TestInterestAgainstModel makes random operations. The calls must alternate for each topic, and at
// rest the subscriptions are the topics that are wanted.
func TestInterestAgainstModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		i := cluster.NewInterest[int](delay)
		wants, subscribed := map[int]int{}, map[int]bool{}
		step := func() time.Duration {
			add, remove, wait := i.Next(3)
			require.LessOrEqual(t, len(add), 3)
			require.LessOrEqual(t, len(remove), 3)
			for _, topic := range add {
				require.False(t, subscribed[topic], "subscribed twice")
				subscribed[topic] = true
			}
			for _, topic := range remove {
				require.True(t, subscribed[topic], "not subscribed")
				require.Zero(t, wants[topic], "still wanted")
				delete(subscribed, topic)
			}
			return wait
		}
		for range 200 {
			for range rng.IntN(50) {
				switch topic := rng.IntN(20); {
				case rng.IntN(2) == 0:
					i.Add(topic)
					wants[topic]++
				case wants[topic] > 0:
					i.Remove(topic)
					wants[topic]--
				}
				if rng.IntN(10) == 0 {
					step()
				}
			}
			<-time.After(time.Duration(rng.Int64N(int64(3 * delay / 2))))
		}
		for wait := step(); wait >= 0; wait = step() {
			<-time.After(wait)
		}
		want := map[int]bool{}
		for topic, n := range wants {
			if n > 0 {
				want[topic] = true
			}
		}
		assert.Equal(t, want, subscribed)
		assert.Equal(t, len(want), i.Len())
	})
}

// TestInterestIsConfirmed holds that a topic is effective from its confirmation until it is unsubscribed
// from, and that one which Next has not returned cannot be confirmed.
func TestInterestIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := cluster.NewInterest[string](delay)
		assert.False(t, i.Add("a"))
		i.Confirm([]string{"a", "unknown"})
		assert.Empty(t, i.ConfirmAll())
		assert.False(t, i.Add("a"))
		_, _, _ = i.Next(10)
		assert.False(t, i.Add("a"))
		assert.False(t, i.Effective("a"))
		assert.Equal(t, []string{"a"}, i.ConfirmAll())
		assert.True(t, i.Effective("a"))
		assert.True(t, i.Add("a"))
		for range 4 {
			i.Remove("a")
		}
		assert.True(t, i.Has("a"))
		<-time.After(delay)
		_, remove, _ := i.Next(10)
		assert.Equal(t, []string{"a"}, remove)
		assert.False(t, i.Has("a"))
		assert.False(t, i.Effective("a"))
		assert.False(t, i.Add("a"))
	})
}

// TestInterestSince holds that the times are those of the newest clients of a topic, and of the first
// confirmation of its subscription.
func TestInterestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := cluster.NewInterest[string](delay)
		i.Add("a")
		_, ok := i.Since("a")
		assert.False(t, ok, "nobody has begun")
		i.Begin("a")
		began := time.Now()
		i.Confirm([]string{"a"})
		assert.Zero(t, i.EffectiveFor("a"), "it is not subscribed to yet")
		<-time.After(time.Second)
		i.Next(10)
		i.Confirm([]string{"a"})
		<-time.After(time.Second)
		i.ConfirmAll()
		assert.Equal(t, time.Second, i.EffectiveFor("a"))
		since, ok := i.Since("a")
		assert.True(t, ok)
		assert.Equal(t, began, since)
		i.Remove("a")
		i.Begin("a")
		since, _ = i.Since("a")
		assert.Equal(t, time.Now(), since)
		_, ok = i.Since("b")
		assert.False(t, ok)
		assert.Zero(t, i.EffectiveFor("b"))
	})
}
