package cluster_test

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/internal/cluster"
)

const (
	beat = 2 * time.Second
	step = 10 * time.Millisecond
)

// network is a sending node and a Watch, with a way for each topic: messages keep their order on it, and
// take their time. Not safe for concurrent use.
type network struct {
	t       *testing.T
	rng     *rand.Rand
	numbers *cluster.Numbers
	watch   *cluster.Watch
	since   map[cluster.Key]time.Time // of subscriptions
	ways    map[cluster.Key][]arrival // the zero Key is the way of beats and sums
	drop    func(k cluster.Key) bool
	beaten  time.Time
	found   []finding
	lost    []loss
}

type arrival struct {
	at      time.Time
	deliver func()
}

// finding is a loss that the Watch has found; the zero Key is one of all topics.
type finding struct {
	key cluster.Key
	at  time.Time
}

// loss is a message that was lost, and was sent long after the subscription to its topic.
type loss struct {
	key cluster.Key
	at  time.Time
}

func newNetwork(t *testing.T, seed uint64) *network {
	n := &network{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), numbers: cluster.NewNumbers(),
		since: make(map[cluster.Key]time.Time), ways: make(map[cluster.Key][]arrival),
		drop: func(cluster.Key) bool { return false },
	}
	n.watch = cluster.NewWatch(beat, func(k cluster.Key) (time.Time, bool) {
		since, ok := n.since[k]
		return since, ok
	})
	n.watch.Reset()
	n.beat()
	return n
}

func keyOf(i int) cluster.Key { return cluster.Key{Kind: 1, Name: strconv.Itoa(i)} }

// send puts a message on its way, or loses it.
func (n *network) send(k cluster.Key, deliver func()) {
	if n.drop(k) {
		n.lost = append(n.lost, loss{k, time.Now()})
		return
	}
	at := time.Now().Add(time.Duration(n.rng.IntN(int(beat / 4))))
	if way := n.ways[k]; len(way) > 0 && at.Before(way[len(way)-1].at) {
		at = way[len(way)-1].at
	}
	n.ways[k] = append(n.ways[k], arrival{at, deliver})
}

func (n *network) publish(k cluster.Key) {
	round, number := n.numbers.Next(k)
	if n.rng.IntN(20) == 0 { // the broker refuses it
		n.numbers.Undo(k)
		return
	}
	n.send(k, func() {
		if _, ok := n.since[k]; ok {
			n.note(n.watch.Message([]byte("node"), round, number, k), k)
		}
	})
}

func (n *network) beat() {
	n.beaten = time.Now()
	if round, topics := n.numbers.Round(); topics > 0 {
		sum := n.numbers.End()
		n.send(cluster.Key{}, func() {
			lost, all, err := n.watch.Sum([]byte("node"), round, false, sum)
			require.NoError(n.t, err)
			n.note(all, cluster.Key{})
			n.note(true, lost...)
		})
	}
	round, topics := n.numbers.Round()
	n.send(cluster.Key{}, func() { n.note(n.watch.Beat([]byte("node"), round, topics), cluster.Key{}) })
}

func (n *network) note(lost bool, keys ...cluster.Key) {
	for _, k := range keys {
		if lost {
			n.found = append(n.found, finding{k, time.Now()})
		}
	}
}

// run lets time pass.
func (n *network) run(d time.Duration, each func()) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(step)
		each()
		if time.Since(n.beaten) >= beat || n.numbers.Full(0) {
			n.beat()
		}
		for k, way := range n.ways {
			for len(way) > 0 && !time.Now().Before(way[0].at) {
				way[0].deliver()
				way = way[1:]
			}
			n.ways[k] = way
		}
		n.note(true, n.watch.Due()...)
	}
}

// change subscribes to a topic, or unsubscribes from it, at times.
func (n *network) change(k cluster.Key) {
	if _, ok := n.since[k]; ok {
		delete(n.since, k)
	} else {
		n.since[k] = time.Now()
	}
}

// TestWatchFindsNothing holds that without a loss there is no finding, whatever the subscriptions are.
func TestWatchFindsNothing(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, seed)
			topics := 1 + n.rng.IntN(30)
			n.run(time.Minute, func() {
				for range n.rng.IntN(4) {
					n.publish(keyOf(n.rng.IntN(topics)))
				}
				switch n.rng.IntN(100) {
				case 0, 1, 2:
					n.change(keyOf(n.rng.IntN(topics)))
				case 3:
					if n.rng.IntN(10) == 0 { // the node connects again
						clear(n.ways)
						n.watch.Reset()
					}
				}
			})
			require.Empty(t, n.found, "seed %d", seed)
		})
	}
}

// TestWatchFindsEachLoss holds that each loss on a topic is found there within two heartbeats and the
// time on the way, and nothing else, while messages come and go.
func TestWatchFindsEachLoss(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, seed)
			topics := 1 + n.rng.IntN(20)
			for i := range topics {
				n.since[keyOf(i)] = time.Now()
			}
			pause := n.rng.IntN(100)
			each := func() {
				if n.rng.IntN(1+pause) == 0 {
					n.publish(keyOf(n.rng.IntN(topics)))
				}
			}
			n.run(2*beat, each)
			n.drop = func(k cluster.Key) bool { return k.Kind != 0 && n.rng.IntN(10) == 0 }
			n.run(time.Minute, each)
			n.run(3*beat, func() {})
			require.NotEmpty(t, n.lost)
			for _, l := range n.lost {
				assert.True(t, n.foundBetween(l.key, l.at, l.at.Add(2*beat+beat/2)), "seed %d: %v", seed, l)
			}
			for _, f := range n.found {
				assert.True(t, n.lostBetween(f.key, f.at.Add(-2*beat-beat/2), f.at), "seed %d: %v", seed, f)
			}
		})
	}
}

func (n *network) foundBetween(k cluster.Key, from, to time.Time) bool {
	for _, f := range n.found {
		if f.key == k && !f.at.Before(from) && !f.at.After(to) {
			return true
		}
	}
	return false
}

func (n *network) lostBetween(k cluster.Key, from, to time.Time) bool {
	for _, l := range n.lost {
		if l.key == k && !l.at.Before(from) && !l.at.After(to) {
			return true
		}
	}
	return false
}

// TestWatchFindsBrokenWay holds that a node from which nothing comes for a while is a loss on all topics, if
// it has sent something.
func TestWatchFindsBrokenWay(t *testing.T) {
	for _, publishes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1)
			n.since[keyOf(1)] = time.Now()
			each := func() {
				if publishes {
					n.publish(keyOf(1))
				}
			}
			n.run(3*beat, each)
			n.drop = func(cluster.Key) bool { return true }
			n.run(5*beat, each)
			n.drop = func(cluster.Key) bool { return false }
			healed := time.Now()
			n.run(3*beat, func() {})
			assert.Equal(t, publishes, n.foundBetween(cluster.Key{}, healed, healed.Add(2*beat)), "%v", n.found)
			assert.Equal(t, publishes, len(n.found) > 0)
		})
	}
}

// TestWatchOfLateNode holds that a node that is first heard of long after this one is up, and has sent
// messages before, is a loss on all topics, and one that has just begun or connected is none.
func TestWatchOfLateNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		<-time.After(3 * beat)
		assert.False(t, n.watch.Beat([]byte("new"), 1, 0))
		assert.True(t, n.watch.Beat([]byte("hidden"), 2, 0))
		assert.True(t, n.watch.Beat([]byte("hidden before its first sum"), 1, 1))
		for _, again := range []bool{false, true} {
			_, all, err := n.watch.Sum([]byte{byte(len(n.found))}, 7, again, nil)
			require.NoError(t, err)
			assert.NotEqual(t, again, all)
			n.note(true, cluster.Key{})
		}
		n.watch.Reset()
		assert.False(t, n.watch.Beat([]byte("hidden"), 2, 0))
	})
}

// TestWatchKnowsReportedLosses holds that a loss that is known otherwise is not found again, and the next
// one is.
func TestWatchKnowsReportedLosses(t *testing.T) {
	for name, tell := range map[string]func(n *network, k cluster.Key){
		"by the broker": func(n *network, k cluster.Key) { n.watch.Forgive(k) },
		"by its node": func(n *network, k cluster.Key) {
			round, number := n.numbers.Next(k)
			n.watch.Told([]byte("node"), round, k)
			n.watch.Message([]byte("node"), round, number, k)
		},
		"on all topics": func(n *network, _ cluster.Key) {
			round, _ := n.numbers.Round()
			n.numbers.End()
			n.watch.SumLost([]byte("node"), round)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 1)
				k := keyOf(1)
				n.since[k] = time.Now()
				n.run(2*beat, func() {})
				n.publish(k)
				n.run(2*beat, func() {})
				n.drop = func(drop cluster.Key) bool { return drop == k }
				n.publish(k)
				n.drop = func(cluster.Key) bool { return false }
				tell(n, k)
				n.publish(k)
				n.run(3*beat, func() {})
				assert.Empty(t, n.found)
				n.drop = func(drop cluster.Key) bool { return drop == k }
				n.publish(k)
				n.drop = func(cluster.Key) bool { return false }
				n.run(3*beat, func() {})
				assert.Len(t, n.found, 1)
			})
		})
	}
}

// TestWatchIsBounded holds that many nodes and rounds without a sum do no harm.
func TestWatchIsBounded(t *testing.T) {
	w := cluster.NewWatch(beat, func(cluster.Key) (time.Time, bool) { return time.Time{}, true })
	w.Reset()
	for i := range 10_000 {
		w.Message([]byte(strconv.Itoa(i)), 1, 1, keyOf(0))
		w.Message([]byte("0"), uint32(1+i), 1, keyOf(i))
		w.Told([]byte("0"), 1<<32-1, keyOf(i))
	}
	_, _, err := w.Sum([]byte("0"), 20_000, false, []byte{1, 200, 'x'})
	require.ErrorIs(t, err, cluster.ErrMalformed)
	assert.Empty(t, w.Due())
}

// BenchmarkNumbers is the cost of a message at its node and at another one.
func BenchmarkNumbers(b *testing.B) {
	for _, topics := range []int{1, 1000} {
		b.Run("topics="+strconv.Itoa(topics), func(b *testing.B) {
			n := cluster.NewNumbers()
			w := cluster.NewWatch(beat, func(cluster.Key) (time.Time, bool) { return time.Time{}, true })
			keys := make([]cluster.Key, topics)
			for i := range keys {
				keys[i] = cluster.Key{Kind: 1, Name: "room " + strconv.Itoa(i)}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				k := keys[i%topics]
				round, number := n.Next(k)
				w.Message([]byte("ABCDEFGHIJKLMNOPQRST"), round, number, k)
				i++
			}
		})
	}
}
