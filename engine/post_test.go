package engine_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/codec"
	"github.com/qi-realtime/ws/engine"
)

// hold blocks the loop of sh until the returned function is called. Its task
// keeps its space in the ring.
func hold(sh *engine.Shard) (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	sh.Post(taskFunc(func(*engine.Shard) {
		close(held)
		<-free
	}))
	<-held
	return sync.OnceFunc(func() { close(free) })
}

// Publishers that find a full ring get their turns in the order of their
// arrival, for one ring and for several.
func TestPublishersShareAFullRingFairly(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.BroadcastQueueSize = 4
		cfg.BroadcastTimeout = patience
	})
	shards := s.Shards()
	targets := [][]*engine.Shard{shards, shards[:1], shards[1:], shards, shards[:1], shards[1:], shards, shards}
	counts := make([]atomic.Int64, len(targets))
	nothing := taskFunc(func(*engine.Shard) {})
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	for i := range targets {
		publishing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !assert.NoError(t, s.Publish(context.Background(), nothing, slices.Clone(targets[i]))) {
					return
				}
				counts[i].Add(1)
			}
		})
	}
	const each = 500
	from, turns := make([]int64, len(counts)), make([]int64, len(counts))
	alike := func(publishers ...int) bool {
		least, most := int64(1<<60), int64(0)
		for _, i := range publishers {
			least, most = min(least, turns[i]), max(most, turns[i])
		}
		return most < 3*least
	}
	// A publisher that is kept from its processor stands in no line, so one round must be fair.
	s.eventually(func() bool {
		for i := range counts {
			turns[i] = counts[i].Load() - from[i]
		}
		if slices.Min(turns) < each {
			return false
		}
		for i := range counts {
			from[i] = counts[i].Load()
		}
		return alike(0, 3, 6, 7) && alike(1, 4) && alike(2, 5)
	}, "no round is fair")
	close(stop)
	publishing.Wait()
}

// While one loop is stuck, many publishers that wait for it do not use up the
// rings of the others.
func TestPublishersThatWaitHoldNothingElsewhere(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.BroadcastQueueSize = 4
		cfg.BroadcastTimeout = time.Hour
	})
	well, stuck := s.Shards()[0], s.Shards()[1]
	release := hold(stuck)
	t.Cleanup(release)
	var ran [2]atomic.Int64
	both := taskFunc(func(sh *engine.Shard) { ran[sh.Index()].Add(1) })
	const publishers = 32
	var waiting sync.WaitGroup
	for range publishers {
		waiting.Go(func() { assert.NoError(t, s.Publish(context.Background(), both, []*engine.Shard{well, stuck})) })
	}
	s.eventually(func() bool { return stuck.Waiting() == publishers-3 }, "the ring is not full")
	var alone atomic.Int64
	for range 100 {
		must(t, s.Publish(context.Background(), taskFunc(func(*engine.Shard) { alone.Add(1) }), []*engine.Shard{well}))
	}
	s.eventually(func() bool { return alone.Load() == 100 && ran[0].Load() >= 3 }, "the other loop stands")
	assert.EqualValues(t, 3, ran[0].Load(), "a waiting publisher has published nothing")
	release()
	waiting.Wait()
	s.eventually(func() bool { return ran[0].Load() == publishers && ran[1].Load() == publishers }, "all arrive")
}

// A publish that fails has reached no loop, and gives back its credits.
func TestFailedPublishReachesNoLoop(t *testing.T) {
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.BroadcastQueueSize = 4
		cfg.BroadcastTimeout = 10 * time.Millisecond
	})
	well, stuck := s.Shards()[0], s.Shards()[1]
	release := hold(stuck)
	defer release()
	targets := []*engine.Shard{well, stuck}
	var ran atomic.Int64
	task := taskFunc(func(*engine.Shard) { ran.Add(1) })
	for range 3 {
		must(t, s.Publish(context.Background(), task, slices.Clone(targets)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 20 {
		require.ErrorIs(t, s.Publish(context.Background(), task, slices.Clone(targets)), engine.ErrTimeout)
		require.ErrorIs(t, s.Publish(ctx, task, slices.Clone(targets)), context.Canceled)
		onLoop(well, func(*engine.Shard) { // never waits
			assert.ErrorIs(t, s.Publish(context.Background(), task, slices.Clone(targets)), engine.ErrQueueFull)
		})
	}
	assert.EqualValues(t, 3, ran.Load(), "those on the loop that is well")
	assert.Zero(t, stuck.Waiting())
	release()
	s.eventually(func() bool { return ran.Load() == 6 }, "not every accepted task has run")
	for range 100 { // all credits are back
		s.eventually(func() bool {
			return s.Publish(context.Background(), task, slices.Clone(targets)) == nil
		}, "no space")
	}
}

// A producer that gives up leaves the line at once. The others get their credits in
// the order of their arrival.
func TestLineKeepsOrderWhenProducersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 12
		l := engine.NewLine(0)
		granted, givenUp := make(chan int, n), make(chan int, n)
		var cancels [n]context.CancelFunc
		for i := range n {
			var ctx context.Context
			ctx, cancels[i] = context.WithCancel(t.Context())
			go func() {
				if l.Acquire(ctx) == nil {
					granted <- i
				} else {
					givenUp <- i
				}
			}()
			synctest.Wait()
		}
		for i := 0; i < n; i += 3 { // the first among them; the last goes too
			cancels[i]()
			assert.Equal(t, i, <-givenUp)
		}
		cancels[n-1]()
		assert.Equal(t, n-1, <-givenUp)
		for _, want := range []int{1, 2, 4, 5, 7, 8, 10} {
			l.Release()
			assert.Equal(t, want, <-granted)
		}
		assert.Zero(t, l.Len())
		for _, cancel := range cancels {
			cancel()
		}
	})
}

// A grant costs the same however many publishers wait.
func BenchmarkGrant(b *testing.B) {
	for _, waiting := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			l := engine.NewLine(waiting)
			b.ReportAllocs()
			for b.Loop() {
				l.Grant()
			}
		})
	}
}

// ending is a task that counts its kind of end.
type ending struct{ ran, abandoned *atomic.Int64 }

func (e ending) RunInLoop(*engine.Shard)   { e.ran.Add(1) }
func (e ending) AbandonTask(*engine.Shard) { e.abandoned.Add(1) }

// Each task that is posted while the engine stops either runs or is abandoned,
// exactly once.
func TestTasksAtTheEndRunOrAreAbandoned(t *testing.T) {
	for range 20 {
		s := start(t, nil)
		var posted, ran, abandoned atomic.Int64
		stop := make(chan struct{})
		var posting sync.WaitGroup
		for i := range 4 {
			posting.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					task := ending{&ran, &abandoned}
					if i%2 == 0 {
						if s.Publish(context.Background(), task, slices.Clone(s.Shards())) == nil {
							posted.Add(2)
						}
					} else {
						s.Shards()[0].Post(task)
						posted.Add(1)
					}
				}
			})
		}
		s.eventually(func() bool { return ran.Load() > 100 }, "tasks run")
		s.shutdown()
		close(stop)
		posting.Wait()
		s.Shards()[1].Post(ending{&ran, &abandoned}) // certainly too late
		posted.Add(1)
		assert.Equal(t, posted.Load(), ran.Load()+abandoned.Load())
		assert.Positive(t, abandoned.Load())
	}
}

// Frames whose time to live has ended are dropped, even while the socket stays
// full; a partly sent frame stays.
func TestTimeToLiveOnAVirtualClock(t *testing.T) {
	var later atomic.Int64
	since := time.Now()
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.QueueBytes = 1 << 30
		cfg.CloseTimeout = 50 * time.Millisecond // which makes a tick 5 ms
		cfg.HeartbeatInterval, cfg.HeartbeatTimeout = 1000*time.Hour, 2000*time.Hour
		cfg.Now = func() time.Time { return since.Add(time.Duration(later.Load())) }
	})
	c := s.dial()
	conn := &s.peer(0).conn
	send := func(text string, ttl time.Duration) {
		must(t, conn.Send(engine.NewFrame(codec.OpText, []byte(text), engine.Handling{TTL: ttl})))
	}
	stats := func() engine.ShardStats { return conn.Shard().Stats() }
	large := string(make([]byte, 16<<20))
	send(large, time.Second)
	s.eventually(func() bool { return stats().BlockedTotal == 1 }, "the socket did not fill")
	send("a minute", time.Minute)
	send("an hour", time.Hour)
	send("for ever", 0)
	pass := func(d time.Duration) {
		ticks := stats().Tasks
		later.Add(int64(d))
		onLoop(conn.Shard(), func(*engine.Shard) {})
		s.eventually(func() bool { return stats().Tasks > ticks }, "no turn")
	}
	pass(time.Minute - 1)
	assert.Zero(t, stats().Drops)
	queued := conn.QueuedBytes()
	pass(1)
	s.eventually(func() bool { return stats().Drops.Expired == 1 }, "a minute is over")
	assert.Equal(t, queued-2-len("a minute"), conn.QueuedBytes())
	send("late", time.Second)
	later.Add(int64(time.Second))
	require.Equal(t, large, string(c.read().Payload), "a partly sent frame is sent")
	c.expect("an hour")
	c.expect("for ever")
	c.echo()
	assert.Equal(t, engine.DropCounts{Expired: 2}, stats().Drops)
}

// A loop takes BroadcastBatchSize tasks from its inbox before it writes, and fewer if
// two batches would exceed half of a connection's queue.
func TestFanOutBatch(t *testing.T) {
	const sends = 11 // with the task that holds the loop, 12 tasks
	tests := []struct{ batch, queue, writes int }{
		{1, 256, 11},
		{2, 256, 6},
		{4, 256, 3},
		{6, 256, 2},
		{6, 4, 6},
		{6, 1, 11},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("batch=%d/queue=%d", tt.batch, tt.queue), func(t *testing.T) {
			s := start(t, func(cfg *engine.Config, _ *server) {
				cfg.Loops, cfg.BroadcastBatchSize, cfg.MessageQueueSize = 1, tt.batch, tt.queue
				cfg.OverflowPolicy = engine.DropOldest // so messages in transit to the loop do not count as queued
			})
			s.dial()
			conn := &s.peer(0).conn
			stats := func() engine.ShardStats { return conn.Shard().Stats() }
			release := hold(conn.Shard())
			defer release()
			before := stats().Writes
			for range sends {
				must(t, conn.Send(engine.NewFrame(codec.OpText, []byte("x"), engine.Handling{})))
			}
			release()
			s.eventually(func() bool { return stats().MessagesOut == sends }, "not all was sent")
			assert.EqualValues(t, tt.writes, stats().Writes-before)
		})
	}
}

// TestTasksPostedUnderALockKeepTheirOrder holds that publishers may number their
// messages: each loop runs them in the order of the numbers.
func TestTasksPostedUnderALockKeepTheirOrder(t *testing.T) {
	const publishers, rounds = 8, 500
	s := start(t, func(cfg *engine.Config, _ *server) {
		cfg.Loops, cfg.BroadcastQueueSize, cfg.BroadcastTimeout = 3, 4, patience
	})
	seen := make([]atomic.Int64, 3)
	var number int64
	var mu sync.Mutex // guards number
	var publishing sync.WaitGroup
	for range publishers {
		publishing.Go(func() {
			for range rounds {
				r, err := s.ReserveAll(t.Context(), s.Shards())
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				number++
				n := number
				r.Post(taskFunc(func(sh *engine.Shard) {
					assert.Equal(t, n, seen[sh.Index()].Add(1))
				}))
				mu.Unlock()
			}
		})
	}
	publishing.Wait()
	s.eventually(func() bool { return seen[0].Load()+seen[1].Load()+seen[2].Load() == 3*publishers*rounds },
		"tasks are missing")
}
