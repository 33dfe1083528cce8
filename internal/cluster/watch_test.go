package cluster_test

import (
	"math/rand/v2"
	"slices"
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
	// fastest is the least time of a message on its way, half of it to the server.
	fastest = 20 * time.Millisecond
)

// network is a sending node and a Watch, with a server between them, and a way for each topic: messages keep
// their order on it, and take their time. Not safe for concurrent use.
type network struct {
	t       *testing.T
	rng     *rand.Rand
	numbers *cluster.Numbers
	watch   *cluster.Watch
	up      time.Time                 // of the last Reset
	wanted  map[cluster.Key]time.Time // since when
	subs    map[cluster.Key]time.Time // subscriptions at the server, since when
	ways    map[cluster.Key][]arrival // the zero Key is the way of beats and sums
	drop    func(k cluster.Key) bool
	beaten  time.Time
	sent    []*message
	found   []finding
}

// arrival is a message on its way.
type arrival struct {
	passes, at time.Time // the server, and the end of the way
	deliver    func(passes time.Time)
}

// message is a message that was sent.
type message struct {
	key     cluster.Key
	at      time.Time
	came    bool
	missed  bool // it was wanted, and did not come
	forgets bool // nobody wanted it any more before it had to be found
}

// finding is a loss that the Watch has found; the zero Key is one of all topics.
type finding struct {
	key   cluster.Key
	at    time.Time
	since time.Time // which the topic was wanted
}

func newNetwork(t *testing.T, seed uint64) *network {
	n := &network{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), numbers: cluster.NewNumbers(),
		wanted: make(map[cluster.Key]time.Time), subs: make(map[cluster.Key]time.Time),
		ways: make(map[cluster.Key][]arrival), drop: func(cluster.Key) bool { return false },
	}
	n.watch = cluster.NewWatch(beat, func(k cluster.Key) (time.Time, bool) {
		since, ok := n.wanted[k]
		return since, ok
	}, func(k cluster.Key) (time.Time, bool) {
		asked, ok := n.subs[k]
		return asked, ok
	})
	n.connect()
	n.beat()
	return n
}

func always(cluster.Key) (time.Time, bool) { return time.Time{}, true }

func keyOf(i int) cluster.Key { return cluster.Key{Kind: 1, Name: strconv.Itoa(i)} }

// way returns the time of a message on its way.
func (n *network) way() time.Duration {
	if n.rng.IntN(2) == 0 {
		return fastest
	}
	return fastest + time.Duration(n.rng.IntN(int(beat/4)))
}

// send puts a message on its way, or loses it.
func (n *network) send(k cluster.Key, deliver func(passes time.Time)) {
	if n.drop(k) {
		return
	}
	d := n.way()
	a := arrival{time.Now().Add(d / 2), time.Now().Add(d), deliver}
	if way := n.ways[k]; len(way) > 0 {
		last := way[len(way)-1]
		a.passes, a.at = later(a.passes, last.passes), later(a.at, last.at)
	}
	n.ways[k] = append(n.ways[k], a)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (n *network) publish(k cluster.Key) {
	st := n.numbers.Next(k)
	if n.rng.IntN(20) == 0 { // the broker refuses it
		n.numbers.Undo(k)
		return
	}
	since, wanted := n.wanted[k]
	m := &message{key: k, at: time.Now(), missed: wanted && !since.After(time.Now())}
	n.sent = append(n.sent, m)
	n.send(k, func(passes time.Time) {
		if subscribed, ok := n.subs[k]; ok && !passes.Before(subscribed) {
			m.came, m.missed = true, false
			n.note(n.watch.Message([]byte("node"), st, k), k)
		}
	})
}

func (n *network) beat() {
	n.beaten = time.Now()
	if n.numbers.Topics() > 0 {
		round := n.numbers.Round().Round
		sum := n.numbers.End()
		st := n.numbers.StampOf(round, time.Now())
		n.send(cluster.Key{}, func(time.Time) {
			broken, err := n.watch.Sum([]byte("node"), st, sum)
			require.NoError(n.t, err)
			n.note(broken, cluster.Key{})
		})
	}
	st := n.numbers.Round()
	n.send(cluster.Key{}, func(time.Time) { n.note(n.watch.Beat([]byte("node"), st), cluster.Key{}) })
}

func (n *network) note(lost bool, keys ...cluster.Key) {
	for _, k := range keys {
		if lost {
			n.found = append(n.found, finding{k, time.Now(), n.wanted[k]})
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
				way[0].deliver(way[0].passes)
				way = way[1:]
			}
			n.ways[k] = way
		}
		n.note(true, n.watch.Due()...)
	}
}

// connect makes a new connection. The messages on their way are lost, and the Watch is told.
func (n *network) connect() {
	for _, m := range n.sent {
		m.missed = m.missed && m.at.Add(found).Before(time.Now())
	}
	clear(n.ways)
	n.watch.Reset()
	n.up = time.Now()
}

// join lets a client want a topic. With wait it does so when the subscription is confirmed.
func (n *network) join(k cluster.Key, wait bool) {
	effective := time.Now().Add(n.way() / 2)
	n.subs[k], n.wanted[k] = effective, time.Now()
	if wait {
		n.wanted[k] = effective.Add(n.way()/2 + time.Millisecond)
	}
}

// leave ends that.
func (n *network) leave(k cluster.Key) {
	delete(n.subs, k)
	delete(n.wanted, k)
	for _, m := range n.sent {
		m.forgets = m.forgets || m.key == k && time.Since(m.at) < found
	}
}

// found is the time within which a loss is found: two heartbeats, and the time on the way.
const found = 2*beat + beat/2 + fastest

// change lets a client want a topic, or not any more.
func (n *network) change(k cluster.Key, wait bool) {
	if _, ok := n.wanted[k]; ok {
		n.leave(k)
	} else {
		n.join(k, wait)
	}
}

// check holds that each missed message was found, and that each finding is a message that did not come, and
// was sent after its topic was wanted, or just before that.
func (n *network) check(seed uint64) (missed int) {
	for _, m := range n.sent {
		if !m.missed || m.forgets {
			continue
		}
		missed++
		require.True(n.t, n.isFound(m), "seed %d: not found: %v", seed, m)
	}
	for _, f := range n.found {
		require.True(n.t, n.isLoss(f), "seed %d: not lost: %v", seed, f)
	}
	return missed
}

func (n *network) isFound(m *message) bool {
	return slices.ContainsFunc(n.found, func(f finding) bool {
		return f.key == m.key && !f.at.Before(m.at) && !f.at.After(m.at.Add(found))
	})
}

func (n *network) isLoss(f finding) bool {
	return slices.ContainsFunc(n.sent, func(m *message) bool {
		return m.key == f.key && !m.came && !m.at.After(f.at) && !m.at.Add(found).Before(f.at) &&
			!m.at.Add(beat/4+fastest).Before(f.since)
	})
}

// TestWatchFindsNothing holds that without a loss there is no finding, whatever the subscriptions are, once the
// Watch knows the time on the way.
func TestWatchFindsNothing(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, seed)
			topics := 1 + n.rng.IntN(30)
			each := func() {
				for range n.rng.IntN(4) {
					n.publish(keyOf(n.rng.IntN(topics)))
				}
			}
			n.run(8*beat, each)
			n.run(time.Minute, func() {
				each()
				if n.rng.IntN(30) == 0 {
					n.change(keyOf(n.rng.IntN(topics)), true)
				}
			})
			n.run(beat, func() {})
			require.Empty(t, n.found, "seed %d", seed)
			require.Zero(t, n.check(seed))
		})
	}
}

// TestWatchFindsEachLoss holds that each message that does not come after its topic is wanted is found within
// two heartbeats and the time on the way, and nothing else, while messages and clients come and go:
// also one that was sent before the subscription.
func TestWatchFindsEachLoss(t *testing.T) {
	missed := 0
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, seed)
			topics := 1 + n.rng.IntN(20)
			pause, stays := n.rng.IntN(30), 1+n.rng.IntN(1000)
			for i := range topics {
				n.join(keyOf(i), true)
			}
			if seed%2 == 0 {
				n.drop = func(k cluster.Key) bool { return k.Kind != 0 && n.rng.IntN(10) == 0 }
			}
			n.run(time.Minute, func() {
				if n.rng.IntN(1+pause) == 0 {
					n.publish(keyOf(n.rng.IntN(topics)))
				}
				if n.rng.IntN(stays) == 0 {
					n.change(keyOf(n.rng.IntN(topics)), n.rng.IntN(2) == 0)
				}
				if seed%4 == 3 && n.rng.IntN(1000) == 0 {
					n.connect()
				}
			})
			n.run(3*beat, func() {})
			missed += n.check(seed)
		})
	}
	require.Greater(t, missed, 500)
}

// TestWatchSettles holds that a round is settled only when each message that was sent before its end has come,
// or its loss is found, and that each round is settled in that time.
func TestWatchSettles(t *testing.T) {
	waited := 0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, seed)
			topics := 1 + n.rng.IntN(20)
			for i := range topics {
				n.join(keyOf(i), true)
			}
			n.drop = func(k cluster.Key) bool { return k.Kind != 0 && n.rng.IntN(50) == 0 }
			type question struct {
				round uint32
				at    time.Time
			}
			var open []question
			step := func() {
				open = slices.DeleteFunc(open, func(q question) bool {
					if !n.watch.Settled("node", q.round) {
						waited++
						require.Less(t, time.Since(q.at), found, "seed %d: a round is never settled", seed)
						return false
					}
					for _, m := range n.sent {
						known := m.came || !m.missed || n.isFound(m)
						require.True(t, known || m.at.After(q.at), "seed %d: not settled: %v", seed, m)
					}
					return true
				})
			}
			n.run(10*beat, func() {
				step()
				n.publish(keyOf(n.rng.IntN(topics)))
				if n.rng.IntN(20) == 0 {
					n.beat()
					open = append(open, question{n.numbers.Round().Round - 1, time.Now()})
				}
			})
			n.run(3*beat, step)
			require.Empty(t, open)
		})
	}
	require.Positive(t, waited)
	w := cluster.NewWatch(beat, always, always)
	assert.True(t, w.Settled("silent", 0))
	assert.False(t, w.Settled("unheard", 1))
}

// TestWatchFindsBrokenWay holds that a node from which nothing comes for a while is a loss on all topics, if
// it has sent something.
func TestWatchFindsBrokenWay(t *testing.T) {
	for _, publishes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1)
			n.join(keyOf(1), true)
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
			broken := slices.ContainsFunc(n.found, func(f finding) bool {
				return f.key == cluster.Key{} && f.at.After(healed) && f.at.Before(healed.Add(2*beat))
			})
			assert.Equal(t, publishes, broken, "%v", n.found)
			assert.Equal(t, publishes, len(n.found) > 0)
		})
	}
}

// TestWatchOfLateNode holds that a node is a loss on all topics when it is first heard of in a round that has
// begun after this node could hear it, because the sum before is missing.
func TestWatchOfLateNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := cluster.NewWatch(beat, always, always)
		heard := func(node string, round uint32, began time.Duration) bool {
			return w.Beat([]byte(node), cluster.Stamp{Round: round, Before: uint32(began.Microseconds())})
		}
		w.Reset()
		<-time.After(beat)
		assert.False(t, heard("new", 1, 0), "it has sent no sum")
		assert.False(t, heard("idle", 7, beat))
		assert.True(t, heard("hidden", 2, time.Second))
		sum := []byte{100} // the round has lasted for 10 ms
		lost, err := w.Sum([]byte("hidden, sums up"), cluster.Stamp{Round: 7}, sum)
		require.NoError(t, err)
		assert.True(t, lost)
		lost, err = w.Sum([]byte("connects anew"), cluster.Stamp{Round: 7, Before: uint32(beat.Microseconds())}, sum)
		require.NoError(t, err)
		assert.False(t, lost)
		w.Listen()
		assert.False(t, heard("hidden before", 2, 0))
		w.Reset()
		assert.False(t, heard("hidden", 2, 0))
	})
}

// TestWatchKnowsReportedLosses holds that a loss that is known otherwise is not found again, and the next
// one is.
func TestWatchKnowsReportedLosses(t *testing.T) {
	for name, tell := range map[string]func(n *network, k cluster.Key){
		"by the broker": func(n *network, k cluster.Key) { n.watch.Forgive(k) },
		"by its node": func(n *network, k cluster.Key) {
			st := n.numbers.Next(k)
			n.watch.Told([]byte("node"), st.Round, k)
			n.watch.Message([]byte("node"), st, k)
		},
		"on all topics": func(n *network, _ cluster.Key) {
			round := n.numbers.Round().Round
			n.numbers.End()
			n.watch.SumLost([]byte("node"), round)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 1)
				k := keyOf(1)
				n.join(k, true)
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
	w := cluster.NewWatch(beat, always, always)
	w.Reset()
	for i := range 10_000 {
		w.Message([]byte(strconv.Itoa(i)), cluster.Stamp{Round: 1, Number: 1}, keyOf(0))
		w.Message([]byte("0"), cluster.Stamp{Round: uint32(1 + i), Number: 1}, keyOf(i))
		w.Told([]byte("0"), 1<<32-1, keyOf(i))
	}
	for _, sum := range [][]byte{{}, {0, 1, 200, 'x'}, {0, 1, 1, 'x', 0, 0}, {0, 1, 1, 'x', 1}} {
		_, err := w.Sum([]byte("0"), cluster.Stamp{Round: 20_000}, sum)
		require.ErrorIs(t, err, cluster.ErrMalformed)
	}
	assert.Empty(t, w.Due())
}

// BenchmarkNumbers is the cost of a message at its node and at another one.
func BenchmarkNumbers(b *testing.B) {
	for _, topics := range []int{1, 1000} {
		b.Run("topics="+strconv.Itoa(topics), func(b *testing.B) {
			n := cluster.NewNumbers()
			w := cluster.NewWatch(beat, always, always)
			keys := make([]cluster.Key, topics)
			for i := range keys {
				keys[i] = cluster.Key{Kind: 1, Name: "room " + strconv.Itoa(i)}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				k := keys[i%topics]
				w.Message([]byte("ABCDEFGHIJKLMNOPQRST"), n.Next(k), k)
				i++
			}
		})
	}
}
